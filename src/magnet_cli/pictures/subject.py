"""What a picture says of a clip."""

from __future__ import annotations

from dataclasses import dataclass

from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.loudness import Loudness
from magnet_cli.errors import UsageError
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job
from magnet_cli.options.regions import Region, check_regions, parse_region


@dataclass(frozen=True, eq=False)
class Subject:
    """A clip as a picture shows it.

    waveform: float [C, L]; sample_rate: Hz; title: its prompt; facts: short texts; regions: what was edited;
    loop: its end leads into its beginning.
    """

    waveform: Waveform
    sample_rate: int
    title: str
    facts: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    loop: bool = False

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.waveform.shape[1] / self.sample_rate

    @classmethod
    def of(
        cls,
        job: Job,
        waveform: Waveform,
        sample_rate: int,
        *,
        loudness: Loudness,
        model: str | None,
        bpm: float | None = None,
    ) -> Subject:
        """A finished clip. model: its name; bpm: its measured tempo."""
        facts = [f"{waveform.shape[1] / sample_rate:.2f} s", f"seed {job.seed}", *([] if model is None else [model])]
        facts.append("silence" if loudness.lufs is None else f"{loudness.lufs:.1f} LUFS")
        if loudness.true_peak is not None:
            facts.append(f"{loudness.true_peak:.1f} dBTP")
        if bpm is not None:
            facts.append(f"{bpm:.1f} bpm")
        facts += _words(job.edit)
        regions = _regions(job.edit, waveform.shape[1] / sample_rate)
        return cls(waveform, sample_rate, job.prompt, tuple(facts), regions, job.edit.loop)


def _words(edit: EditConfig) -> list[str]:
    """What was edited."""
    words = ["loop"] if edit.loop else []
    if edit.continue_from is not None:
        words.append("continuation")
    if edit.vary is not None:
        words.append(f"{edit.vary:.0%} varied")
    return words


def _regions(edit: EditConfig, seconds: float) -> tuple[Region, ...]:
    """The regions that were regenerated; none where those of a record do not fit its audio."""
    if not edit.regions:
        return ()
    try:
        return tuple(check_regions([parse_region(one) for one in edit.regions], seconds))
    except UsageError:
        return ()
