"""How many decoding steps there is time for, so that a stream does not break off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEVELS = (1.0, 0.75, 0.5, 0.35, 0.25)  # shares of the steps that were asked for
SMOOTHING = 0.5  # weight of the latest window in the time for a step: a machine gets busy within seconds
# Seconds of music that are to be left when a window is done: the codec needs 1.4 s beyond what it gives out, and
# players have buffers of their own.
RESERVE = 2.0


def lowered(steps: Sequence[int], share: float) -> tuple[int, ...]:
    """This share of the steps of each codebook, at least one."""
    return tuple(max(1, round(share * one)) for one in steps)


@dataclass
class Pace:
    """Learns from each window how long a step takes."""

    seconds_per_step: float | None = None

    def observe(self, steps: Sequence[int], seconds: float) -> None:
        """A window took this long, everything included."""
        new = seconds / sum(steps)
        old = self.seconds_per_step
        self.seconds_per_step = new if old is None else (1 - SMOOTHING) * old + SMOOTHING * new

    def choose(self, wanted: Sequence[int], ahead: float | None) -> tuple[int, ...]:
        """The most steps for which there is time. ahead: seconds of music that wait; None: nobody waits for it."""
        if ahead is None or self.seconds_per_step is None:
            return tuple(wanted)
        choices = [lowered(wanted, share) for share in LEVELS]
        fitting = (one for one in choices if sum(one) * self.seconds_per_step <= ahead - RESERVE)
        return next(fitting, choices[-1])
