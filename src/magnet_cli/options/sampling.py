"""How codes are drawn: the sampling options, their limits, presets and the defaults of each kind of model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from magnet_cli.errors import UsageError, did_you_mean
from magnet_cli.options.declared import short_repr

Task = Literal["music", "sound"]
Spans = Literal["nonoverlap", "stride1"]
SpanScore = Literal["max", "prod"]
GuidanceSchedule = Literal["falling", "constant", "rising"]
SpanOrder = Literal["confidence", "corput", "hybrid"]


# Fields that options written by version 0.1.0 may lack, in records, bundles and batches; then their defaults apply.
LATER = ("guidance_schedule", "guidance_start", "guidance_end", "span_order", "order_noise", "entropy_bound", "remask")
# No use is known beyond these limits, where numbers overflow or a clip takes days.
MOST_STEPS = 1000
MOST_GUIDANCE = 1000
MOST_ORDER_NOISE = 100
MOST_ENTROPY = 100_000


@dataclass(frozen=True, repr=False)
class SamplingConfig:
    """How codes are drawn; the defaults are those of the reference for 10-second music models.

    steps           decoding steps for each codebook
    temperature     softmax temperature at the first step of a codebook
    anneal          lower the temperature linearly over the steps of a codebook
    top_p           draw from the most probable codes that hold this much probability; None: off
    top_k           draw from the k most probable codes; None: off (never together with top_p)
    greedy          take the most probable code instead of drawing
    guidance        weight of the text, at the first step of a codebook ...
    min_guidance    ... falling to this at its last
    spans           "nonoverlap": a fixed grid of spans; "stride1": spans may start at any frame
    span_score      rank a span by its most probable code ("max") or by the product ("prod"); for nonoverlap only
    rescore_weight  where another model rescores: share of the model's own probability in the ranking, the rest is the
                    other's; 1: the other is not asked. Without a rescorer it has no meaning. No value of the paper's is
                    known (arXiv 2401.04577, no public code); ours keeps more of the model that decodes
    guidance_schedule  "falling": as above; "constant": `guidance` at every step; "rising": from `min_guidance` at the
                    first step to `guidance` at the last
    guidance_start  place of the first guided step, from 0, a codebook's first, to 1, its last; outside of the interval
                    the weight is 1, and the half without text is not computed
    guidance_end    place of the last guided step
    span_order      which spans are decided first: those that the model is surest of ("confidence"), or those that come
                    first in the van der Corput sequence, which spreads them over the clip ("corput"), or half by the
                    sequence and half by the model ("hybrid"); for nonoverlap only, but for the first
    order_noise     how much Gumbel noise is added to the logarithm of the probability by which spans are ranked; it
                    falls to 0 over the steps of a codebook
    entropy_bound   nats; above 0: in the codebooks above the first, a step decides as many spans as keep the sum of
                    their entropies, less the largest, within this, and `steps` is the most that a codebook takes; 0:
                    off (nonoverlap only)
    remask          0 to 1: share of the largest chance with which spans of the first codebook that are decided may be
                    hidden again and drawn anew; 0: off (nonoverlap only, and not with "corput")

    Raises UsageError for a value that is not possible. Other models have other defaults: see `Pipeline.sampling`.
    """

    steps: tuple[int, ...] = (20, 10, 10, 10)
    temperature: float = 3.0
    anneal: bool = True
    top_p: float | None = 0.9
    top_k: int | None = None
    greedy: bool = False
    guidance: float = 10.0
    min_guidance: float = 1.0
    spans: Spans = "nonoverlap"
    span_score: SpanScore = "max"
    rescore_weight: float = 0.7
    guidance_schedule: GuidanceSchedule = "falling"
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    span_order: SpanOrder = "confidence"
    order_noise: float = 0.0
    entropy_bound: float = 0.0
    remask: float = 0.0

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if not self.steps or any(not 1 <= n <= MOST_STEPS for n in self.steps):
            raise UsageError(
                f"steps must be whole numbers from 1 to {MOST_STEPS}, not {','.join(map(str, self.steps))}",
                "Give e.g. 20,10,10,10",
            )
        if not 0 < self.temperature < math.inf:
            raise UsageError(
                f"temperature must be above 0, not {self.temperature}", "Give e.g. 3.0, or --greedy for no randomness"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(
                f"top-p must be above 0 and at most 1, not {self.top_p}",
                "Give e.g. 0.9, or 1 to draw from every code",
            )
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top-k must be at least 1, not {self.top_k}", "Give e.g. 250, or leave it out")
        if self.top_p is not None and self.top_k is not None:
            raise UsageError("top-p and top-k cannot be combined", "Give one of the two")
        if not (abs(self.guidance) <= MOST_GUIDANCE and abs(self.min_guidance) <= MOST_GUIDANCE):
            raise UsageError(
                f"guidance must lie between -{MOST_GUIDANCE} and {MOST_GUIDANCE}, "
                f"not {self.guidance:g} to {self.min_guidance:g}",
                "Give e.g. --guidance 10 --min-guidance 1",
            )
        if self.spans not in ("nonoverlap", "stride1"):
            raise UsageError(f"unknown spans {self.spans!r}", "Give nonoverlap or stride1")
        if self.span_score not in ("max", "prod"):
            raise UsageError(f"unknown span score {self.span_score!r}", "Give max or prod")
        if not 0 <= self.rescore_weight <= 1:
            raise UsageError(
                f"rescore weight must be from 0 to 1, not {self.rescore_weight:g}",
                "Give e.g. 0.7, or 1 to rank by the model's own probability only",
            )
        self._check_guidance_over_steps()
        self._check_span_order()

    def _check_guidance_over_steps(self) -> None:
        if self.guidance_schedule not in get_args(GuidanceSchedule):
            raise UsageError(
                f"unknown guidance schedule {self.guidance_schedule!r}", "Give falling, constant or rising"
            )
        if not 0 <= self.guidance_start <= self.guidance_end <= 1:
            raise UsageError(
                f"the guided steps must lie between 0 and 1, not from {self.guidance_start:g} to {self.guidance_end:g}",
                "Give e.g. --guidance-start 0.2 --guidance-end 0.8",
            )

    def _check_span_order(self) -> None:
        if self.span_order not in get_args(SpanOrder):
            raise UsageError(f"unknown span order {self.span_order!r}", f"Give {' or '.join(get_args(SpanOrder))}")
        if self.span_order != "confidence" and self.spans != "nonoverlap":
            raise UsageError(
                f"the span order {self.span_order} is one of spans on a fixed grid, not of {self.spans}",
                "Give --spans nonoverlap, or --span-order confidence",
            )
        if not 0 <= self.order_noise <= MOST_ORDER_NOISE:
            raise UsageError(
                f"order noise must be from 0 to {MOST_ORDER_NOISE}, not {self.order_noise:g}", "Give e.g. 4.5"
            )
        if self.order_noise and self.span_order == "corput":
            raise UsageError(
                "noise changes how spans are ranked, but the span order corput ranks none",
                "Give --order-noise 0, or --span-order confidence",
            )

        if not 0 <= self.entropy_bound <= MOST_ENTROPY:
            raise UsageError(
                f"the entropy bound must be from 0 to {MOST_ENTROPY} nats, not {self.entropy_bound:g}",
                "Give e.g. 20, or 0 to decide as many spans at each step as the schedule says",
            )
        if self.entropy_bound and self.spans != "nonoverlap":
            raise UsageError(
                f"an entropy bound is for spans on a fixed grid, not for {self.spans}",
                "Give --spans nonoverlap, or --entropy-bound 0",
            )

        self._check_remask()

    def _check_remask(self) -> None:
        if not 0 <= self.remask <= 1:
            raise UsageError(f"remask must be from 0 to 1, not {self.remask:g}", "Give e.g. 0.2")
        if self.remask and (self.spans != "nonoverlap" or self.span_order == "corput"):
            other = self.spans if self.spans != "nonoverlap" else "a fixed order"
            raise UsageError(
                f"remasking needs spans on a fixed grid that are ranked, not {other}",
                "Give --spans nonoverlap and --span-order confidence or hybrid, or --remask 0",
            )

    def remasks(self, codebook: int) -> bool:
        """Whether decided spans of this codebook may be hidden again."""
        return codebook == 0 and self.remask > 0

    def by_entropy(self, codebook: int) -> bool:
        """Whether entropy decides how many spans a step of this codebook decides, so that it may end early."""
        return codebook > 0 and self.entropy_bound > 0

    def with_preset(self, name: str) -> SamplingConfig:
        """This configuration, with the steps and spans of a preset; everything else stays."""
        if name not in PRESETS:
            raise UsageError(
                f"unknown preset {name!r}", did_you_mean(name, PRESETS, f"Give one of {', '.join(PRESETS)}")
            )
        preset = PRESETS[name]
        return replace(
            self,
            steps=preset.steps(len(self.steps)) or self.steps,
            spans=preset.spans or self.spans,
            # What is for a grid only does not go with the preset's spans.
            span_order="confidence" if preset.spans == "stride1" else self.span_order,
            entropy_bound=0.0 if preset.spans == "stride1" else self.entropy_bound,
            remask=0.0 if preset.spans == "stride1" else self.remask,
            guidance=self.guidance if preset.guidance is None else preset.guidance,
        )


@dataclass(frozen=True, repr=False)
class MusicGenSampling:
    """How MusicGen draws codes; the defaults are those of its authors' library (audiocraft `models/musicgen.py`).

    temperature     softmax temperature
    top_k           draw from the k most probable codes; None: off
    top_p           draw from the most probable codes that hold this much probability; None: off (never with top_k)
    greedy          take the most probable code instead of drawing
    guidance        weight of the text; 1: none, which takes half the time

    Raises UsageError for a value that is not possible.
    """

    temperature: float = 1.0
    top_k: int | None = 250
    top_p: float | None = None
    greedy: bool = False
    guidance: float = 3.0

    __repr__ = short_repr

    def __post_init__(self) -> None:
        # The limits of these are the same, and so are the words for what is beyond them.
        SamplingConfig(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)
        if not abs(self.guidance) <= MOST_GUIDANCE:
            raise UsageError(
                f"guidance must lie between -{MOST_GUIDANCE} and {MOST_GUIDANCE}, not {self.guidance:g}",
                "Give e.g. --guidance 3",
            )


@dataclass(frozen=True)
class Preset:
    """A named trade of time for quality; None keeps what the checkpoint's defaults say."""

    summary: str
    first_steps: int | None = None
    later_steps: int | None = None
    spans: Spans | None = None
    guidance: float | None = None

    def steps(self, codebooks: int) -> tuple[int, ...] | None:
        """Decoding steps for each codebook."""
        if self.first_steps is None or self.later_steps is None:
            return None
        return (self.first_steps,) + (self.later_steps,) * (codebooks - 1)


PRESETS: dict[str, Preset] = {
    # The first codebook carries the structure, the later ones refine it and attend only to their neighbourhood,
    # so steps are cut hardest there.
    "fast": Preset("half the steps of a 10-second model", first_steps=12, later_steps=4),
    "balanced": Preset("the steps that the model's authors chose"),
    # stride1 is what the reference's demo page uses for music; more steps mean fewer codes decided at once.
    "best": Preset(
        "twice the steps of a 10-second model, and overlapping spans", first_steps=60, later_steps=15, spans="stride1"
    ),
}


def check_steps(sampling: SamplingConfig, *, codebooks: int) -> None:
    """Raise UsageError unless there is a number of steps for every codebook."""
    if len(sampling.steps) != codebooks:
        raise UsageError(
            f"steps {','.join(map(str, sampling.steps))} are {len(sampling.steps)} numbers, "
            f"but the model has {codebooks} codebooks",
            f"Give one for each, e.g. --steps {','.join(['20'] + ['10'] * (codebooks - 1))}",
        )


def default_sampling(task: Task, clip_seconds: float, codebooks: int) -> SamplingConfig:
    """The sampling options a checkpoint's authors used for it.

    10-second music models: the defaults of the reference library. Longer music models and sound models: the
    evaluation settings in their training configurations (audiocraft `config/solver/magnet/*.yaml`).
    """
    if task == "sound":
        return SamplingConfig(
            steps=(20,) + (10,) * (codebooks - 1), temperature=3.5, top_p=0.8, guidance=20.0, min_guidance=1.0
        )
    first = 60 if clip_seconds >= 30 else 20
    return SamplingConfig(steps=(first,) + (10,) * (codebooks - 1))
