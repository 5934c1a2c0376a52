"""How music without an end is generated and where it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from magnet_cli.errors import UsageError
from magnet_cli.options.declared import Option, Panel

StreamFormat = Literal["wav", "flac", "ogg", "mp3", "raw"]
MOST_MINUTES = 60.0  # of a file
MOST_AHEAD = 600.0  # seconds


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What is asked of a stream.

    Raises:
        UsageError: for a value that is not possible.
    """

    PANEL: ClassVar[Panel] = "Stream"

    duration: float | None = field(
        default=None,
        metadata=Option(
            help="Seconds, or a time such as 1:30:00, after which the stream ends.",
            metavar="SECONDS",
            time=True,
            unset="none: Ctrl-C ends it",
        ),
    )
    minutes: float = field(
        default=10.0,
        metadata=Option(help=f"Length of each file in a folder, above 0 to {MOST_MINUTES:g} minutes.", metavar="N"),
    )
    format: StreamFormat | None = field(
        default=None,
        metadata=Option(
            help="Format of the files, or on standard output wav or raw: signed 16-bit little-endian samples.",
            unset="wav",
        ),
    )
    overlap: float | None = field(
        default=None,
        metadata=Option(
            help="Seconds that each window shares with the music before it. A longer overlap keeps the style better "
            "and takes more time.",
            metavar="SECONDS",
            time=True,
            unset="half of the model's clip",
        ),
    )
    ahead: float | None = field(
        default=None,
        metadata=Option(
            help="Seconds of finished music that wait to be played. With fewer, a new prompt is heard sooner; with "
            f"more, the music is less likely to break off on a busy machine. Above 0 to {MOST_AHEAD:g}.",
            metavar="SECONDS",
            time=True,
            unset="one clip of the model",
        ),
    )

    def __post_init__(self) -> None:
        for name, value, most in (
            ("duration", self.duration, float("inf")),
            ("minutes", self.minutes, MOST_MINUTES),
            ("overlap", self.overlap, float("inf")),
            ("ahead", self.ahead, MOST_AHEAD),
        ):
            if value is not None and not 0 < value <= most:
                limit = "" if most == float("inf") else f" and at most {most:g}"
                raise UsageError(f"{name} must be above 0{limit}, not {value:g}", f"Give e.g. --{name} 5")
        if self.format not in (None, "wav", "flac", "ogg", "mp3", "raw"):
            raise UsageError(f"unknown format {self.format!r}", "Give wav, flac, ogg, mp3 or raw")

    def overlap_frames(self, window: int, frame_rate: int) -> int:
        """Frames that two windows of this many frames share. UsageError if nothing of a window would be new."""
        overlap = window // 2 if self.overlap is None else max(round(self.overlap * frame_rate), 1)
        if overlap >= window:
            raise UsageError(
                f"overlap {self.overlap:g} s leaves nothing of the {window / frame_rate:g} s of the model's clips",
                "Give a smaller --overlap",
            )
        return overlap
