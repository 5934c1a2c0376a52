"""Sampling options as a user gives them, on the command line or in a row of a prompt file, over a model's defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, get_args

from magnet_cli.errors import UsageError
from magnet_cli.options.declared import Option, Panel, declared
from magnet_cli.options.sampling import (
    MOST_ENTROPY,
    MOST_GUIDANCE,
    MOST_ORDER_NOISE,
    MOST_STEPS,
    PRESETS,
    GuidanceSchedule,
    MusicGenSampling,
    SamplingConfig,
    SpanOrder,
    Spans,
    SpanScore,
)

DEFAULT = "the model's own"


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Sampling options as given; None keeps what is there. The names are those of the options."""

    PANEL: ClassVar[Panel] = "Sampling"

    preset: str | None = field(
        default=None,
        metadata=Option(
            help="Named trade of time for quality. "
            + " ".join(f"{name}: {preset.summary}." for name, preset in PRESETS.items()),
            metavar="|".join(PRESETS),
        ),
    )
    steps: str | None = field(
        default=None,
        metadata=Option(
            help=f"Number of decoding steps for each codebook, 1 to {MOST_STEPS}, e.g. 20,10,10,10. More steps take "
            "longer and decide fewer codes at once.",
            metavar="N,N,N,N",
            unset=DEFAULT,
        ),
    )
    temperature: float | None = field(
        default=None,
        metadata=Option(
            help="Softmax temperature at the first decoding step of each codebook, above 0. A higher temperature "
            "makes clips more varied and less predictable.",
            metavar="T",
            unset=DEFAULT,
        ),
    )
    top_p: float | None = field(
        default=None,
        metadata=Option(
            help="Draw each code from the most probable codes that together have this probability, above 0 and at "
            "most 1, where 1 means all codes. Cannot be combined with --top-k.",
            metavar="P",
            unset=DEFAULT,
        ),
    )
    top_k: int | None = field(
        default=None,
        metadata=Option(
            help="Draw each code from the K most probable codes, K at least 1. Replaces --top-p.",
            metavar="K",
            unset=DEFAULT,
        ),
    )
    greedy: bool | None = field(
        default=None, metadata=Option(help="Take the most probable code everywhere instead of drawing codes.")
    )
    guidance: float | None = field(
        default=None,
        metadata=Option(
            help="Weight of the text at the first decoding step of each codebook (classifier-free guidance), "
            f"-{MOST_GUIDANCE} to {MOST_GUIDANCE}. With a higher weight the clip follows the prompt more closely.",
            metavar="WEIGHT",
            unset=DEFAULT,
        ),
    )
    min_guidance: float | None = field(
        default=None,
        metadata=Option(
            help="Weight of the text at the last decoding step of each codebook, to which it falls from --guidance; "
            f"-{MOST_GUIDANCE} to {MOST_GUIDANCE}.",
            metavar="WEIGHT",
            unset=DEFAULT,
        ),
    )
    guidance_schedule: str | None = field(
        default=None,
        metadata=Option(
            help="How the weight of the text changes over the steps of a codebook. falling: from --guidance to "
            "--min-guidance. constant: --guidance at every step. rising: from --min-guidance to --guidance.",
            metavar="|".join(get_args(GuidanceSchedule)),
            unset=DEFAULT,
        ),
    )
    guidance_start: float | None = field(
        default=None,
        metadata=Option(
            help="Where guidance begins among the steps of a codebook, from 0, the first step, to 1, the last. Steps "
            "before have a weight of 1 and take half the work.",
            metavar="PLACE",
            unset=DEFAULT,
        ),
    )
    guidance_end: float | None = field(
        default=None,
        metadata=Option(
            help="Where guidance ends among the steps of a codebook, from 0, the first step, to 1, the last. Steps "
            "after have a weight of 1 and take half the work.",
            metavar="PLACE",
            unset=DEFAULT,
        ),
    )
    spans: str | None = field(
        default=None,
        metadata=Option(
            help="Where the spans of frames lie that are decoded together. nonoverlap: on a fixed grid. stride1: they "
            "start at any frame and may overlap.",
            metavar="|".join(get_args(Spans)),
            unset=DEFAULT,
        ),
    )
    span_score: str | None = field(
        default=None,
        metadata=Option(
            help="How nonoverlap spans are ranked to decide which are kept. max: by their most probable code. prod: "
            "by the product of the probabilities of their codes, as stride1 spans always are.",
            metavar="|".join(get_args(SpanScore)),
            unset=DEFAULT,
        ),
    )
    span_order: str | None = field(
        default=None,
        metadata=Option(
            help="Which nonoverlap spans are decided first. confidence: those that the model is surest of. corput: "
            "those that come first in the van der Corput sequence, which spreads them over the clip. hybrid: at each "
            "step, half by the sequence and half by the model.",
            metavar="|".join(get_args(SpanOrder)),
            unset=DEFAULT,
        ),
    )
    order_noise: float | None = field(
        default=None,
        metadata=Option(
            help="Amount of Gumbel noise in the ranking of spans, which makes the order in which they are decided more "
            f"random, 0 to {MOST_ORDER_NOISE}. It falls to 0 over the steps of each codebook.",
            metavar="AMOUNT",
            unset=DEFAULT,
        ),
    )
    entropy_bound: float | None = field(
        default=None,
        metadata=Option(
            help="In the codebooks above the first, decide at each step as many spans as keep the sum of their "
            f"entropies, less the largest of them, within this bound in nats, 0 to {MOST_ENTROPY}. A codebook ends "
            "when all of its spans are decided, and --steps is the most steps that it takes. 0: off.",
            metavar="NATS",
            unset=DEFAULT,
        ),
    )
    remask: float | None = field(
        default=None,
        metadata=Option(
            help="Hide some decided spans of the first codebook again at each step and draw them anew, above all those "
            "that the model was less sure of: a share, 0 to 1, of as many as the schedule allows. 0: off.",
            metavar="SHARE",
            unset=DEFAULT,
        ),
    )
    no_anneal: bool | None = field(
        default=None,
        metadata=Option(
            help="Keep the temperature constant. Otherwise, it falls linearly over the steps of each codebook."
        ),
    )
    rescore_weight: float | None = field(
        default=None,
        metadata=Option(
            help="Weight of the generating model's own probabilities when a --rescorer helps to rank codes, 0 to 1; "
            "the rescorer has the rest. With 1, the rescorer has no influence.",
            panel="Other models",
            metavar="WEIGHT",
            unset=f"{DEFAULT}, usually {SamplingConfig.rescore_weight:g}",
        ),
    )

    def apply(self, defaults: SamplingConfig) -> SamplingConfig:
        """The defaults, then the preset, then single options. UsageError for what cannot work."""
        return replace(defaults.with_preset(self.preset) if self.preset else defaults, **self._changes())

    def apply_to_musicgen(self, defaults: MusicGenSampling) -> MusicGenSampling:
        """The same for MusicGen, which knows fewer of them; UsageError for those that it does not."""
        known = {one.name for one in fields(MusicGenSampling)}
        for name, declaration in declared(Overrides).items():
            if name not in known and getattr(self, name) not in (None, False):
                raise UsageError(
                    f"MusicGen has no {declaration['flag']}: it decodes frame after frame",
                    "Leave it out, or choose a MAGNeT model",
                )
        return replace(defaults, **{name: value for name, value in self._changes().items() if name in known})

    def _changes(self) -> dict[str, Any]:
        """What is given, as fields of SamplingConfig."""
        changes: dict[str, Any] = {
            one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None
        }
        changes.pop("preset", None)
        if self.steps is not None:
            changes["steps"] = parse_steps(self.steps)
        if self.no_anneal is not None:
            changes["anneal"] = not changes.pop("no_anneal")
        if self.top_p is not None or self.top_k is not None:  # one replaces the other
            changes |= {"top_p": self.top_p, "top_k": self.top_k}
        return changes


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
