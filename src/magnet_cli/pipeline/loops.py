"""The last steps of a clip in time: a loop's tempo is measured, it begins on a downbeat, and the rate is changed."""

from __future__ import annotations

import numpy as np

from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.looping import fit_period
from magnet_cli.audio.resampling import FINE, resample
from magnet_cli.audio.riff_info import LoopMarks
from magnet_cli.music.downbeat import BEATS, downbeat
from magnet_cli.music.onsets import find_onsets
from magnet_cli.music.tempo import Tempo, tempo_of
from magnet_cli.pipeline.edits import Arrangement


def in_time(
    waveform: Waveform, sample_rate: int, arrangement: Arrangement, bpm: float | None
) -> tuple[Waveform, Tempo | None]:
    """A loop [C, L] that begins on a downbeat where it may, and its tempo; None where no beat is clear.

    bpm: the tempo that was asked for.
    """
    onsets = find_onsets(waveform, sample_rate, loop=True)
    tempo = tempo_of(onsets, near=bpm)
    if tempo is None or not arrangement.turns:
        return waveform, tempo
    start = downbeat(waveform, sample_rate, onsets, tempo)
    return np.ascontiguousarray(np.roll(waveform, -start, axis=1)), tempo


def loop_marks(arrangement: Arrangement, bpm: float | None) -> LoopMarks | None:
    """What a WAV file says of a clip that is a loop; None for another clip."""
    period = arrangement.period
    if period is None:
        return None
    return LoopMarks() if period.bars is None else LoopMarks(BEATS * period.bars, bpm)


def at_rate(waveform: Waveform, sample_rate: int, target_rate: int, arrangement: Arrangement) -> Waveform:
    """A clip [C, L] at another sample rate (Hz); a loop as a circle, which stays exact to half a sample."""
    if sample_rate == target_rate:
        return waveform
    if arrangement.period is None:
        return resample(waveform, sample_rate, target_rate, FINE)
    return fit_period(waveform, round(arrangement.period.seconds * target_rate))
