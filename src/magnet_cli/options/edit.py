"""What a clip is made of beside its prompt, and how long it is, as a user asks for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import ClassVar

from magnet_cli.errors import UsageError
from magnet_cli.options.declared import Option, Panel, declared, short_repr

SHORTEST = 0.05  # seconds
KEPT_SHARE = 1 / 3  # of a clip: how much of the input a continuation keeps by default
OVERLAP_SHARE = 1 / 2  # of a clip, for windows
MOST_SECONDS = 3600
_ONLY_WITH = {
    **{"overlap": "duration", "keep": "continue_from", "join": "continue_from", "regions": "inpaint"},
    **{"vary": "inpaint", "blend": "inpaint", "bpm": "loop", "bars": "bpm"},
}
_NEVER_WITH = (
    *(("inpaint", other) for other in ("continue_from", "duration", "hybrid")),
    *(("loop", other) for other in ("continue_from", "hybrid")),
    *(("bpm", "duration"), ("hybrid", "continue_from"), ("negative", "unconditional")),
)


@dataclass(frozen=True)
class Length:
    """Frames to decode, how many at once, and how many of those each window shares with what is there already."""

    frames: int
    window: int
    overlap: int


@dataclass(frozen=True, repr=False, kw_only=True)
class EditConfig:
    """What a clip is made of beside its prompt, and how long it is. By default: the prompt alone, one whole clip.

    A value of None, False or () means: not asked for.
    """

    PANEL: ClassVar[Panel] = "Editing"

    duration: float | None = field(
        default=None,
        metadata=Option(
            help=f"Length of the clip in seconds or as 1:30, {SHORTEST} to {MOST_SECONDS} s. Below the length of the "
            "model's clips, the clip is cut and fades out over 10 ms. Above it, the clip is decoded in "
            "overlapping windows.",
            panel="Length and loops",
            metavar="SECONDS",
            time=True,
            unset="one clip of the model: 10 or 30 s",
        ),
    )
    overlap: float | None = field(
        default=None,
        metadata=Option(
            help="Seconds that each window shares with the audio before it, where --duration exceeds the length of "
            "the model's clips.",
            panel="Length and loops",
            metavar="SECONDS",
            time=True,
            unset="half of the model's clip",
        ),
    )
    continue_from: str | None = field(
        default=None,
        metadata=Option(
            help="Audio file to continue: the clip begins with the end of this file.", metavar="FILE", flag="--continue"
        ),
    )
    keep: float | None = field(
        default=None,
        metadata=Option(
            help=f"Seconds of the --continue file that the clip begins with, from {SHORTEST}.",
            metavar="SECONDS",
            time=True,
            unset="a third of the clip, or of one clip of the model if that is shorter",
        ),
    )
    join: bool = field(
        default=False,
        metadata=Option(
            help="Write the whole --continue file and the new audio as one sound, cross-faded over 30 ms. Otherwise, "
            "only the clip is written."
        ),
    )
    inpaint: str | None = field(
        default=None,
        metadata=Option(
            help="Audio file of which parts are regenerated: those of --region, a share chosen by --vary, or both.",
            metavar="FILE",
        ),
    )
    regions: tuple[str, ...] = field(
        default=(),
        metadata=Option(
            help="Part of the --inpaint file to regenerate, in seconds, e.g. 2.5:5, or with minutes, e.g. 1:10-1:30. "
            "An omitted side is the start or the end of the file. Repeat the option for more parts.",
            metavar="FROM:TO",
            flag="--region",
        ),
    )
    vary: float | None = field(
        default=None,
        metadata=Option(
            help="Share of the --inpaint file, outside of every --region, to regenerate in spans chosen by the seed; "
            "above 0 and at most 1.",
            metavar="SHARE",
        ),
    )
    blend: bool = field(
        default=False,
        metadata=Option(
            help="Keep the samples of the --inpaint file outside of the regenerated parts, cross-faded over 30 ms. "
            "Otherwise, the whole file passes through the codec."
        ),
    )
    loop: bool = field(
        default=False,
        metadata=Option(
            help="Generate a seamless loop: the end of the clip leads into its beginning. With --inpaint, the file is "
            "the loop.",
            panel="Length and loops",
        ),
    )
    bpm: float | None = field(
        default=None,
        metadata=Option(
            help="Tempo of the --loop in beats per minute. The loop then lasts a whole number of 4/4 bars, and the "
            "prompt that the model gets ends with the tempo unless it names that.",
            panel="Length and loops",
            metavar="BPM",
            unset="none: the loop lasts one clip",
        ),
    )
    bars: int | None = field(
        default=None,
        metadata=Option(
            help="Number of bars in the --loop, with --bpm.",
            panel="Length and loops",
            unset="the largest of 1, 2, 4, 8, ... that fits into one clip",
        ),
    )
    hybrid: float | None = field(
        default=None,
        metadata=Option(
            help=f"Seconds at the beginning of the clip, from {SHORTEST}, that a MusicGen model generates; MAGNeT "
            "generates the rest.",
            panel="Other models",
            metavar="SECONDS",
            time=True,
        ),
    )
    negative: str | None = field(
        default=None,
        metadata=Option(
            help="Text that the clip should not sound like; guidance steers away from it. Experimental: MAGNeT was "
            "not trained for this.",
            panel="Sampling",
            metavar="TEXT",
        ),
    )
    unconditional: bool = field(
        default=False,
        metadata=Option(help="Generate without a text. A prompt, if given, only names the file.", panel="Sampling"),
    )

    __repr__ = short_repr

    def __post_init__(self) -> None:
        for name, value in (("duration", self.duration), ("keep", self.keep), ("hybrid", self.hybrid)):
            if value is not None and not SHORTEST <= value <= MOST_SECONDS:
                raise UsageError(
                    f"{name} must be from {SHORTEST} to {MOST_SECONDS:,} seconds, not {value:g}",
                    f"Give e.g. --{name} 5",
                )
        if self.overlap is not None and not 0 < self.overlap < math.inf:
            raise UsageError(f"overlap must be above 0 s, not {self.overlap:g}", "Give e.g. --overlap 5")
        if self.vary is not None and not 0 < self.vary <= 1:
            raise UsageError(f"vary must be above 0 and at most 1, not {self.vary:g}", "Give e.g. --vary 0.3")
        if self.inpaint is not None and not self.regions and self.vary is None:
            raise UsageError("--inpaint does not say what to regenerate", "Give --region 2.5:5, or --vary 0.3")
        if self.keep is not None and self.duration is not None and self.keep >= self.duration:
            raise UsageError(
                f"keep {self.keep:g} s leaves nothing of a duration of {self.duration:g} s",
                "The duration includes what is kept: give a longer duration, or a smaller --keep",
            )
        given = {one.name for one in fields(self) if getattr(self, one.name) not in (None, False, ())}
        for name, partner in _ONLY_WITH.items():
            if name in given and partner not in given:
                raise UsageError(
                    f"{_option(name)} needs {_option(partner)}", f"Give both, or leave {_option(name)} out"
                )
        for one, other in _NEVER_WITH:
            if one in given and other in given:
                raise UsageError(f"{_option(one)} cannot be combined with {_option(other)}", "Give one of the two")

    def check_autoregressive(self) -> None:
        """Raise UsageError for what a model cannot do that decodes frame after frame."""
        for name in ("overlap", "inpaint", "loop", "hybrid", "negative"):
            if getattr(self, name) not in (None, False):
                raise UsageError(
                    f"MusicGen cannot do {_option(name)}: it decodes frame after frame", "Choose a MAGNeT model"
                )

    def length(self, clip_seconds: float, frame_rate: int, *, default_seconds: float | None = None) -> Length:
        """How much to decode; UsageError for what does not fit a model with clips of `clip_seconds`.

        default_seconds: for a model that makes clips of any length up to that, the length of its clips by default.
        """
        overlap = OVERLAP_SHARE * clip_seconds if self.overlap is None else self.overlap
        for name, value in (("overlap", overlap), ("keep", self.keep), ("hybrid", self.hybrid)):
            if value is not None and value * frame_rate > clip_seconds * frame_rate - 1:
                raise UsageError(
                    f"{name} {value:g} s leaves nothing of the {clip_seconds:g} s of the model's clips",
                    f"Give a smaller --{name}",
                )
        clip, seconds = int(clip_seconds * frame_rate), clip_seconds
        if self.duration is not None and self.duration > clip_seconds:
            if default_seconds is not None:
                raise UsageError(
                    f"{self.duration:g} s exceed the {clip_seconds:g} s that the model can generate",
                    "Ask for less, or choose a MAGNeT model, which decodes long clips in windows",
                )
            seconds = self.duration
        elif default_seconds is not None:
            seconds = min(self.duration or default_seconds, clip_seconds)
        frames = clip if seconds == clip_seconds else math.ceil(seconds * frame_rate)
        return Length(frames, clip, max(round(overlap * frame_rate), 1))

    @property
    def input(self) -> str | None:
        """The audio file it starts from."""
        return self.inpaint if self.continue_from is None else self.continue_from

    @property
    def keeps_samples(self) -> bool:
        """Whether samples of the input stay as they are."""
        return self.join or self.blend


def _option(name: str) -> str:
    return declared(EditConfig)[name]["flag"]
