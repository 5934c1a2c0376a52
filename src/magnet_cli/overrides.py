"""Sampling options as a user gives them, on the command line or in a row of a prompt file, over a model's defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from magnet_cli.config import SamplingConfig
from magnet_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Sampling options as given; None keeps what is there. The names are those of the options."""

    preset: str | None = None
    steps: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    greedy: bool | None = None
    guidance: float | None = None
    min_guidance: float | None = None
    spans: str | None = None
    span_score: str | None = None
    no_anneal: bool | None = None

    def apply(self, defaults: SamplingConfig) -> SamplingConfig:
        """The defaults, then the preset, then single options. UsageError for what cannot work."""
        sampling = defaults.with_preset(self.preset) if self.preset else defaults
        changes: dict[str, Any] = {
            name: value
            for name in ("temperature", "greedy", "guidance", "min_guidance", "spans", "span_score")
            if (value := getattr(self, name)) is not None
        }
        if self.steps is not None:
            changes["steps"] = parse_steps(self.steps)
        if self.top_p is not None or self.top_k is not None:  # one replaces the other
            changes |= {"top_p": self.top_p, "top_k": self.top_k}
        if self.no_anneal is not None:
            changes["anneal"] = not self.no_anneal
        return replace(sampling, **changes)


def parse_steps(text: str) -> tuple[int, ...]:
    """`20,10,10,10` -> (20, 10, 10, 10)."""
    numbers = text.split(",")
    if not all(re.fullmatch(r"\s*-?[0-9]{1,9}\s*", number) for number in numbers):
        raise UsageError(f"steps {text!r} are not whole numbers with commas between", "Give e.g. 20,10,10,10")
    return tuple(int(number) for number in numbers)
