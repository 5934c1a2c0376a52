"""What becomes of a decoded waveform: loudness, peak ceiling and sample format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from magnet_cli.errors import UsageError

Normalize = Literal["auto", "loudness", "peak", "none"]
Subtype = Literal["pcm16", "pcm24", "float32"]


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """What becomes of a decoded waveform.

    normalize   "loudness": gain to `lufs`, then a limiter at `true_peak`; "peak": gain to `true_peak`; "none": as is;
                "auto": loudness, but none where samples of an input stay as they are
    lufs        target loudness, LUFS (ITU-R BS.1770)
    true_peak   ceiling for the 4x oversampled peak, dBTP
    subtype     sample format of the file
    """

    normalize: Normalize = "auto"
    lufs: float = -14.0
    true_peak: float = -1.0
    subtype: Subtype = "pcm16"

    def __post_init__(self) -> None:
        if self.normalize not in ("auto", "loudness", "peak", "none"):
            raise UsageError(f"unknown normalization {self.normalize!r}", "Give auto, loudness, peak or none")
        if not -70 <= self.lufs <= 0:
            raise UsageError(f"lufs must be between -70 and 0, not {self.lufs}", "Give e.g. --lufs -14")
        if not -60 <= self.true_peak <= 0:
            raise UsageError(f"true-peak must be between -60 and 0 dB, not {self.true_peak}", "Give e.g. -1")
        if self.subtype not in ("pcm16", "pcm24", "float32"):
            raise UsageError(f"unknown subtype {self.subtype!r}", "Give pcm16, pcm24 or float32")
