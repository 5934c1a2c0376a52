"""One listener hears of encoded prompts, steps and clips that fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from magnet_cli import Job, Pipeline, RuntimeConfig, SamplingConfig
from magnet_cli.errors import NumericsError, UsageError
from magnet_cli.pipeline.events import ClipFailed, StepDone, TextEncoded
from magnet_cli.pipeline.pipeline import Clip

QUICK = SamplingConfig(steps=(2, 1, 1, 1))


@pytest.fixture(scope="module")
def pipeline(tiny: str) -> Pipeline:
    return Pipeline.load(tiny, RuntimeConfig(device="cpu"))


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Three clips of which the second fails."""
    decode = Pipeline._generate_batch

    def odd(self: Pipeline, jobs: Sequence[Job], batch: Sequence[int], *others: Any) -> Iterator[Clip]:
        if any(jobs[index].prompt == "bad" for index in batch):
            raise NumericsError("logits are not finite", "Try another seed")
        return decode(self, jobs, batch, *others)

    monkeypatch.setattr(Pipeline, "_generate_batch", odd)
    return [Job(prompt, 1, QUICK) for prompt in ("a", "bad", "b")]


def test_events_come_in_order_and_name_their_clips(pipeline: Pipeline) -> None:
    events: list[object] = []
    (clip,) = pipeline.generate([Job("a", 1, QUICK)], listener=events.append)
    assert isinstance(events[0], TextEncoded)
    assert events[0].jobs == [clip.job]
    steps = [event for event in events[1:] if isinstance(event, StepDone)]
    assert [(step.stage, step.done, step.total) for step in steps] == [
        ("codebook 1/4", 1, 2),
        ("codebook 1/4", 2, 2),
        *((f"codebook {number}/4", 1, 1) for number in (2, 3, 4)),
    ]
    assert all(step.jobs == [clip.job] for step in steps)


def test_a_listener_that_returns_lets_the_others_go_on(pipeline: Pipeline, jobs: list[Job]) -> None:
    failed: list[tuple[int, str]] = []

    def hear(event: object) -> None:
        if isinstance(event, ClipFailed):
            failed.append((event.index, str(event.error)))

    assert [clip.job.prompt for clip in pipeline.generate(jobs, listener=hear)] == ["a", "b"]
    assert failed == [(1, "logits are not finite. Try another seed.")]


def test_a_listener_that_raises_stops_the_rest(pipeline: Pipeline, jobs: list[Job]) -> None:
    made: list[str] = []

    def hear(event: object) -> None:
        if isinstance(event, ClipFailed):
            raise event.error

    with pytest.raises(NumericsError):
        made += [clip.job.prompt for clip in pipeline.generate(jobs, listener=hear)]


def test_callbacks_hear_the_same(pipeline: Pipeline, jobs: list[Job]) -> None:
    failed: list[int] = []
    steps: list[tuple[str, str]] = []
    clips = pipeline.generate(
        jobs,
        on_step=lambda step, batch: steps.append((step.stage, batch[0].prompt)),
        on_failure=lambda index, error: failed.append(index),
    )
    assert [clip.job.prompt for clip in clips] == ["a", "b"]
    assert failed == [1]
    assert steps[0] == ("codebook 1/4", "a")
    assert len(steps) == 10
    with pytest.raises(NumericsError):  # nobody takes the failure
        list(pipeline.generate(jobs, on_step=lambda step, batch: None))
    with pytest.raises(UsageError, match="a listener also receives"):
        pipeline.generate(jobs, on_failure=lambda index, error: None, listener=lambda event: None)
