"""What a clip is made of beside its prompt, and how long it is, as a user asks for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from magnet_cli.errors import UsageError

SHORTEST = 0.05  # seconds
KEPT_SHARE = 1 / 3  # of a clip, where it is not said how much of the input a continuation begins with
OVERLAP_SHARE = 1 / 2  # of a clip, for windows
MOST_SECONDS = 3600
_EDITS = (
    *("duration", "overlap", "continue_from", "keep", "join", "inpaint", "regions", "vary", "blend"),
    *("loop", "bpm", "bars", "hybrid", "negative", "unconditional"),
)
_ONLY_WITH = {
    **{"overlap": "duration", "keep": "continue_from", "join": "continue_from", "regions": "inpaint"},
    **{"vary": "inpaint", "blend": "inpaint", "bpm": "loop", "bars": "bpm"},
}
_NEVER_WITH = (
    *(("inpaint", other) for other in ("continue_from", "duration", "loop", "hybrid")),
    *(("loop", other) for other in ("continue_from", "hybrid")),
    *(("bpm", "duration"), ("hybrid", "continue_from"), ("negative", "unconditional")),
)
_OPTIONS = {"continue_from": "--continue", "regions": "--region"}


@dataclass(frozen=True)
class Length:
    """Frames to decode, how many at once, and how many of those each window shares with what is there already."""

    frames: int
    window: int
    overlap: int


@dataclass(frozen=True, kw_only=True)
class EditConfig:
    """What a clip is made of beside its prompt, and how long it is. By default: the prompt alone, one whole clip.

    duration        seconds. Less than the model's clip: cut, with a short fade. More: decoded in windows
    overlap         seconds that a window shares with what is there already; None: half of the model's clip
    continue_from   audio file whose end the clip begins with
    keep            seconds of it that the clip begins with; None: a third of the clip, of the model's if that is less
    join            put the clip behind the file it continues, as one sound
    inpaint         audio file of which parts are decoded anew
    regions         those parts: seconds from and to, `2.5:5`; a side left out is the file's own
    vary            share of the rest that is decoded anew, in spans drawn by the seed
    blend           keep the file's own samples outside what is decoded anew
    loop            the clip's end meets its beginning
    bpm, bars       length of a loop; see `decoding.circle.loop_length`
    hybrid          seconds at the beginning that another, autoregressive model makes
    negative        text to steer away from, in place of no text
    unconditional   without any text; the prompt only names the clip
    """

    duration: float | None = None
    overlap: float | None = None
    continue_from: str | None = None
    keep: float | None = None
    join: bool = False
    inpaint: str | None = None
    regions: tuple[str, ...] = ()
    vary: float | None = None
    blend: bool = False
    loop: bool = False
    bpm: float | None = None
    bars: int | None = None
    hybrid: float | None = None
    negative: str | None = None
    unconditional: bool = False

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
            raise UsageError("nothing is said to be decoded anew", "Give --region 2.5:5, or --vary 0.3")
        if self.keep is not None and self.duration is not None and self.keep >= self.duration:
            raise UsageError(
                f"keep {self.keep:g} s leaves nothing of a duration of {self.duration:g} s",
                "The duration counts from where what is kept begins: give a longer one, or a smaller --keep",
            )
        given = {name for name in _EDITS if getattr(self, name) not in (None, False, ())}
        for name, partner in _ONLY_WITH.items():
            if name in given and partner not in given:
                raise UsageError(
                    f"{_option(name)} needs {_option(partner)}",
                    f"Give both, or leave {_option(name)} out",
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

        default_seconds: for a model that makes clips of any length up to that, what it makes if nothing is said.
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
                    f"{self.duration:g} s are more than the {clip_seconds:g} s the model can make",
                    "Ask for less, or choose a MAGNeT model, which goes on in windows",
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
    return _OPTIONS.get(name, f"--{name}")
