"""The learning rate of every step: phases of a linear warm-up and a cosine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from magnet_cli.errors import UsageError
from magnet_cli.train.options import Optimization, warmup_of

MOST_WARMUP = 0.5  # share of a phase above which its warm-up deserves a warning


@dataclass(frozen=True)
class Phase:
    """Steps from `first` on, planned up to `last` - 1; the first `warmup` of them raise the learning rate."""

    first: int
    last: int
    warmup: int


@dataclass(frozen=True)
class Schedule:
    """Phases, each until the next one begins; a training that was extended has more than one."""

    phases: tuple[Phase, ...]
    optimization: Optimization

    @property
    def present(self) -> Phase:
        """The last phase."""
        return self.phases[-1]

    def rate(self, step: int) -> float:
        """The learning rate of a step.

        In each phase it rises linearly from where the phase before ended, or from 0, to `learning_rate`; then it falls
        along half a cosine to `last_rate` times that.
        """
        number = max(index for index, one in enumerate(self.phases) if one.first <= step)
        phase, highest = self.phases[number], self.optimization.learning_rate
        done = step - phase.first
        if done < phase.warmup:
            start = self._rate_before(number)
            return start + (highest - start) * (done + 1) / phase.warmup
        fallen = (done - phase.warmup) / max(1, phase.last - phase.first - phase.warmup)
        last = self.optimization.last_rate
        return highest * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, fallen))))

    def _rate_before(self, number: int) -> float:
        if number == 0:
            return 0.0
        before = Schedule(self.phases[:number], self.optimization)
        return before.rate(self.phases[number].first - 1)

    @property
    def words(self) -> str:
        """The present phase as a sentence."""
        phase, highest = self.present, self.optimization.learning_rate
        last = self.optimization.last_rate * highest
        start = self._rate_before(len(self.phases) - 1)
        rise = f"rises from {start:.3g} to {highest:.3g} over {phase.warmup} steps, then " if phase.warmup else ""
        fall = f"falls along a cosine from {highest:.3g} to {last:.3g} at step {phase.last}"
        if last == highest:
            fall = f"stays at {highest:.3g} until step {phase.last}"
        return f"the learning rate {rise}{fall}"

    @property
    def warning(self) -> str | None:
        """What is wrong with a phase that is mostly warm-up."""
        phase = self.present
        steps = phase.last - phase.first
        if steps == 0 or phase.warmup <= MOST_WARMUP * steps:
            return None
        reached = max(self.rate(step) for step in (phase.last - 1, min(phase.last, phase.first + phase.warmup) - 1))
        return (
            f"{min(phase.warmup, steps)} of {steps} steps are warm-up, and the learning rate reaches only {reached:.3g}"
            if phase.warmup > steps
            else f"{phase.warmup} of {steps} steps are warm-up"
        ) + "; give a smaller --warmup, or leave it out"

    @property
    def plain(self) -> list[list[int]]:
        """The phases as settings record them."""
        return [[one.first, one.last, one.warmup] for one in self.phases]


def new_schedule(steps: int, optimization: Optimization) -> Schedule:
    """The schedule of a training that begins."""
    return Schedule((Phase(0, steps, warmup_of(optimization, steps)),), optimization)


def schedule_of(before: Mapping[str, Any], done: int, steps: int, optimization: Optimization) -> Schedule:
    """The schedule of a training that resumes after `done` steps, extended if it is to have more than it had.

    before: its settings. Added steps are a phase of their own.

    Raises: UsageError when it has more steps already; ValueError for settings without a schedule.
    """
    phases = _phases(before)
    last = phases[-1].last
    if steps < last:
        raise UsageError(
            f"this training has {last} steps, not {steps}",
            f"Give --steps {last} to resume it, more to extend it, or --restart to start again from step 0",
        )
    if steps > last:
        added = Phase(done, steps, warmup_of(optimization, steps - done))
        phases = (*(one for one in phases if one.first < done), added)
    return Schedule(phases, optimization)


def _phases(settings: Mapping[str, Any]) -> tuple[Phase, ...]:
    """The phases that settings record. Those of earlier versions record no phases and have one.

    Raises: ValueError.
    """
    steps, rows = settings.get("steps"), settings.get("schedule")
    if rows is None:
        optimization = settings.get("optimization")
        rows = [[0, steps, optimization.get("warmup", 0) if isinstance(optimization, dict) else 0]]
    whole = isinstance(rows, list) and bool(rows)
    whole = whole and all(
        isinstance(row, list) and len(row) == 3 and all(type(one) is int and one >= 0 for one in row) for row in rows
    )
    firsts = [row[0] for row in rows] if whole else []
    if not whole or rows[-1][1] != steps or firsts[0] != 0 or firsts != sorted(firsts):
        raise ValueError(f"its schedule is {json.dumps(rows)[:60]}")
    return tuple(Phase(*row) for row in rows)


def settings_with(settings: Mapping[str, Any], schedule: Schedule) -> dict[str, Any]:
    """The settings of a training with its schedule, as they are recorded."""
    optimization = {**settings.get("optimization", {}), "warmup": schedule.present.warmup}
    return {**settings, "optimization": optimization, "steps": schedule.present.last, "schedule": schedule.plain}


def set_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Use this learning rate from now on, times `share` for a group of weights that has one."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
