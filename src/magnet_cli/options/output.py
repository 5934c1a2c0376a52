"""What becomes of a decoded waveform: loudness, peak ceiling and sample format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from magnet_cli.errors import UsageError
from magnet_cli.options.declared import Option, Panel, short_repr

Normalize = Literal["auto", "loudness", "peak", "none"]
Subtype = Literal["pcm16", "pcm24", "float32"]


@dataclass(frozen=True, repr=False, kw_only=True)
class OutputConfig:
    """How the level of a decoded waveform is set, and the sample format of its file.

    lufs: target loudness in LUFS; true_peak: ceiling in dBTP, measured at four times the sample rate.

    Raises:
        UsageError: for a value that is not possible.
    """

    PANEL: ClassVar[Panel] = "Loudness and format"

    normalize: Normalize = field(
        default="auto",
        metadata=Option(
            help="How the level is set. loudness: apply a gain that reaches --lufs, then limit peaks to --true-peak. "
            "peak: apply a gain that reaches --true-peak. none: change nothing. auto: loudness, but none where "
            "samples of an input file are kept (--join, --blend)."
        ),
    )
    lufs: float = field(
        default=-14.0, metadata=Option(help="Target loudness, -70 to 0 LUFS (ITU-R BS.1770).", metavar="LUFS")
    )
    true_peak: float = field(
        default=-1.0,
        metadata=Option(help="Highest true peak, -60 to 0 dBTP. It takes precedence over --lufs.", metavar="DBTP"),
    )
    subtype: Subtype = field(default="pcm16", metadata=Option(help="Sample format of the audio file."))

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.normalize not in ("auto", "loudness", "peak", "none"):
            raise UsageError(f"unknown normalization {self.normalize!r}", "Give auto, loudness, peak or none")
        if not -70 <= self.lufs <= 0:
            raise UsageError(f"lufs must be between -70 and 0, not {self.lufs}", "Give e.g. --lufs -14")
        if not -60 <= self.true_peak <= 0:
            raise UsageError(f"true-peak must be between -60 and 0 dB, not {self.true_peak}", "Give e.g. -1")
        if self.subtype not in ("pcm16", "pcm24", "float32"):
            raise UsageError(f"unknown subtype {self.subtype!r}", "Give pcm16, pcm24 or float32")
