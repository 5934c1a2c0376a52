"""The events of a running pipeline, which it passes to one listener."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from magnet_cli.hub.download import Downloading, DownloadPlan
from magnet_cli.options.job import Job


@dataclass(frozen=True)
class TextEncoded:
    """The prompts of these jobs are encoded."""

    jobs: Sequence[Job]


@dataclass(frozen=True)
class StepDone:
    """A pass through the network is done for these jobs together: `done` of `total` in this stage."""

    stage: str
    done: int
    total: int
    jobs: Sequence[Job]


@dataclass(frozen=True)
class ClipFailed:
    """A clip failed. index: its job's place among the jobs. Unless the listener raises, the other jobs continue."""

    index: int
    error: Exception


DecodingListener = Callable[[TextEncoded | StepDone], None]
Listener = Callable[[Downloading | TextEncoded | StepDone | ClipFailed], None]
OnDownload = Callable[[DownloadPlan, int], None]
OnStep = Callable[[StepDone, Sequence[Job]], None]
OnFailure = Callable[[int, Exception], None]


def listener_of(on_step: OnStep | None, on_failure: OnFailure | None) -> Listener:
    """A listener that forwards steps and failures. Without `on_failure` it raises a failure."""

    def hear(event: Downloading | TextEncoded | StepDone | ClipFailed) -> None:
        match event:
            case StepDone() if on_step is not None:
                on_step(event, event.jobs)
            case ClipFailed(index, error):
                if on_failure is None:
                    raise error
                on_failure(index, error)

    return hear
