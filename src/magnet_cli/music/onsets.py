"""Where notes and drums begin: how much the spectrum of a sound grows, moment by moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio.blocks import Waveform

STEP = 0.010  # seconds from one moment to the next
WINDOW = 0.040  # seconds of sound at each moment: a period of 25 Hz, and less than a sixteenth note at 240 bpm
LOWEST, HIGHEST, BANDS = 40.0, 11_000.0, 24  # Hz; the width of a band is that of hearing, a third of an octave
BASS = 150.0  # Hz; kick drums and basses are below
# Growth is measured on log(1 + magnitude / floor), the floor as a share of the loudest moment: 40 dB below it, what the
# window makes of held notes ripples.
FLOOR = 1e-2


@dataclass(frozen=True, eq=False)
class Onsets:
    """Growth of the spectrum, moment by moment. M moments.

    strength: float64 [M], of the levels of all bands; bass: float64 [M], of the magnitudes below BASS, whose logarithm
    would count the rumble of a snare as much as a kick; spectrum: float64 [M, N], the
    logarithmic level of each band; rate: moments in a second; loop: the last moment leads to the first.
    """

    strength: NDArray[np.float64]
    bass: NDArray[np.float64]
    spectrum: NDArray[np.float64]
    rate: float
    loop: bool


def find_onsets(waveform: Waveform, sample_rate: int, *, loop: bool) -> Onsets:
    """Measure a waveform [C, L]; a `loop` as it sounds when it is repeated."""
    sound = waveform.mean(axis=0, dtype=np.float64)
    moments = max(round(len(sound) / (STEP * sample_rate)), 1)
    width = round(WINDOW * sample_rate)
    centres = np.round(np.arange(moments) * len(sound) / moments).astype(np.int64)
    places = centres[:, None] + np.arange(-(width // 2), width - width // 2)
    padded = sound if loop else np.concatenate([sound, np.zeros(width)])  # places before 0 are in the silence, too
    magnitudes = np.abs(np.fft.rfft(padded[places % len(padded)] * np.hanning(width), axis=1))
    frequencies = np.fft.rfftfreq(width, 1 / sample_rate)
    edges = np.geomspace(LOWEST, min(HIGHEST, sample_rate / 2), BANDS + 1)
    first = np.unique(np.searchsorted(frequencies, edges))  # low bands are narrower than a bin
    bands = np.add.reduceat(magnitudes, first[:-1], axis=1)
    top = bands.max(initial=0.0)
    spectrum = np.log1p(bands / (FLOOR * top)) if top > 0 else bands
    bass = bands[:, frequencies[first[:-1]] < BASS]
    rate = moments * sample_rate / len(sound)
    return Onsets(_growth(spectrum, loop).mean(axis=1), _growth(bass, loop).sum(axis=1), spectrum, rate, loop)


def _growth(levels: NDArray[np.float64], loop: bool) -> NDArray[np.float64]:
    """By how much each level [M, N] exceeds that of the moment before; 0 where it falls."""
    before = np.roll(levels, 1, axis=0)
    if not loop:
        before[0] = levels[0]
    return np.maximum(levels - before, 0.0)
