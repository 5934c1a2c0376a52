"""What becomes of a decoded waveform: loudness, peak ceiling and sample format."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from magnet_cli.errors import UsageError
from magnet_cli.options.declared import Option, Panel, short_repr

Normalize = Literal["auto", "loudness", "peak", "none"]
Subtype = Literal["pcm16", "pcm24", "float32"]
RATES = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000)  # Hz; those that players and DAWs take


@dataclass(frozen=True, repr=False, kw_only=True)
class OutputConfig:
    """What becomes of a decoded waveform. The true peak is that of the waveform at four times its sample rate."""

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
    subtype: Subtype | None = field(
        default=None,
        metadata=Option(
            help="Sample format of a WAV file, or of a FLAC file except float32.",
            unset="that of the input file (--inpaint, --continue), otherwise pcm16",
        ),
    )
    sample_rate: int | None = field(
        default=None,
        metadata=Option(
            help=f"Sample rate of the audio file in Hz: {', '.join(map(str, RATES))}.",
            metavar="HZ",
            unset="the model's own, or that of the input file whose samples are kept (--join, --blend)",
        ),
    )

    @property
    def samples(self) -> Subtype:
        """The sample format without an input."""
        return self.subtype or "pcm16"

    def as_input(self, subtype: Subtype | None, *, suffix: str) -> OutputConfig:
        """This with the sample format of the input, unless another is asked for. FLAC keeps of float32 what it can."""
        kept = "pcm24" if subtype == "float32" and suffix.lower() == ".flac" else subtype
        return replace(self, subtype=self.subtype or kept or "pcm16")

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.normalize not in ("auto", "loudness", "peak", "none"):
            raise UsageError(f"unknown normalization {self.normalize!r}", "Give auto, loudness, peak or none")
        if not -70 <= self.lufs <= 0:
            raise UsageError(f"lufs must be between -70 and 0, not {self.lufs}", "Give e.g. --lufs -14")
        if not -60 <= self.true_peak <= 0:
            raise UsageError(f"true-peak must be between -60 and 0 dB, not {self.true_peak}", "Give e.g. -1")
        if self.sample_rate not in (None, *RATES):
            raise UsageError(
                f"sample-rate must be one of {', '.join(map(str, RATES))} Hz, not {self.sample_rate}",
                "Give e.g. --sample-rate 44100, or leave it out for the model's own",
            )
        if self.subtype not in (None, "pcm16", "pcm24", "float32"):
            raise UsageError(f"unknown subtype {self.subtype!r}", "Give pcm16, pcm24 or float32")
