"""Sampling options as a user gives them, on the command line or in a row of a prompt file, over a model's defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from magnet_cli.errors import UsageError
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig

# Options that become a field of their name as they are.
PLAIN = ("temperature", "greedy", "guidance", "min_guidance", "spans", "span_score", "rescore_weight")


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
    rescore_weight: float | None = None

    def apply(self, defaults: SamplingConfig) -> SamplingConfig:
        """The defaults, then the preset, then single options. UsageError for what cannot work."""
        sampling = defaults.with_preset(self.preset) if self.preset else defaults
        changes: dict[str, Any] = {name: value for name in PLAIN if (value := getattr(self, name)) is not None}
        if self.steps is not None:
            changes["steps"] = parse_steps(self.steps)
        if self.no_anneal is not None:
            changes["anneal"] = not self.no_anneal
        return replace(sampling, **changes, **self._truncation())

    def apply_to_musicgen(self, defaults: MusicGenSampling) -> MusicGenSampling:
        """The same for MusicGen, which knows fewer of them; UsageError for those that it does not."""
        for name in ("preset", "steps", "min_guidance", "spans", "span_score", "no_anneal", "rescore_weight"):
            if getattr(self, name) not in (None, False):
                raise UsageError(
                    f"MusicGen has no --{name.replace('_', '-')}: it decodes frame after frame",
                    "Leave it out, or choose a MAGNeT model",
                )
        names = ("temperature", "greedy", "guidance")
        changes: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(defaults, **changes, **self._truncation())

    def _truncation(self) -> dict[str, Any]:
        """top_p and top_k: one replaces the other."""
        if self.top_p is None and self.top_k is None:
            return {}
        return {"top_p": self.top_p, "top_k": self.top_k}


def apply_all(overrides: Overrides, defaults: SamplingConfig | MusicGenSampling) -> SamplingConfig | MusicGenSampling:
    """The options over the defaults of whichever kind of model."""
    return (
        overrides.apply_to_musicgen(defaults) if isinstance(defaults, MusicGenSampling) else overrides.apply(defaults)
    )


def parse_steps(text: str) -> tuple[int, ...]:
    """`20,10,10,10` -> (20, 10, 10, 10)."""
    numbers = text.split(",")
    if not all(re.fullmatch(r"\s*-?[0-9]{1,9}\s*", number) for number in numbers):
        raise UsageError(f"steps {text!r} are not whole numbers with commas between", "Give e.g. 20,10,10,10")
    return tuple(int(number) for number in numbers)
