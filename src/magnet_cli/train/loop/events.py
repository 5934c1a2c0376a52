"""What a training reports while it works: one listener receives all events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from magnet_cli.train.loop.schedule import Schedule


@dataclass(frozen=True)
class Encoded:
    """The codec has encoded `done` of `total` clips."""

    done: int
    total: int


@dataclass(frozen=True)
class Started:
    """The steps begin, after `first` that an earlier run of the training has done."""

    first: int
    schedule: Schedule


@dataclass(frozen=True)
class Progress:
    """A step is done.

    step, steps: done, and in all. figures: of this step. smoothed: the losses, smoothed, `loss_0` for the first
    codebook. held_out: the last loss on the held-out files. rate: steps per second. left: seconds. memory: the most
    bytes in use so far.
    """

    step: int
    steps: int
    figures: Mapping[str, float]
    smoothed: Mapping[str, float]
    held_out: float | None
    rate: float
    left: float
    memory: int


@dataclass(frozen=True)
class HeldOut:
    """The loss on the held-out files after `step` steps. best: whether it is the lowest so far."""

    step: int
    loss: float
    best: bool


@dataclass(frozen=True)
class Context:
    """How much a decoder uses the codes that it is given, after `step` steps.

    all_hidden, half_hidden: the loss of the first codebook with all of it hidden, and with half of it, in nats.
    """

    step: int
    all_hidden: float
    half_hidden: float


@dataclass(frozen=True)
class Outcome:
    """How a training ended. first: steps that were done before. best, best_step: the lowest held-out loss, if any."""

    first: int
    steps: int
    best: float | None = None
    best_step: int | None = None

    @property
    def is_new(self) -> bool:
        """Whether anything was trained."""
        return self.first < self.steps or self.steps == 0


Event = Encoded | Started | Progress | HeldOut | Context
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing."""
