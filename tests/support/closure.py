"""How well a loop closes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio.blocks import Waveform

PLACE = 0.020  # seconds from one place that is measured to the next: a frame, as the codec has a rhythm of its own
JUMP_WINDOW = 0.001  # seconds either way of a place: a click is at the seam, to a sample
FLUX_WINDOW = 0.040  # seconds


@dataclass(frozen=True, eq=False)
class Closure:
    """How abrupt a repeated sound is at each place of it, every PLACE seconds, the seam first.

    jump: float64 [P], how far a sample is from where its neighbours lead, as it is at a click;
    flux: float64 [P], how much the spectrum grows from just before the place to just after it.
    """

    jump: NDArray[np.float64]
    flux: NDArray[np.float64]

    @property
    def seam_jump(self) -> float:
        """Share of the places that are less abrupt than the seam, 0 to 1."""
        return _rank(self.jump)

    @property
    def seam_flux(self) -> float:
        """Share of the places at which the spectrum grows less than at the seam, 0 to 1."""
        return _rank(self.flux)


def closure(waveform: Waveform, sample_rate: int) -> Closure:
    """Measure a waveform [C, L] as it sounds when it is repeated.

    At a seam that is a place like any other both ranks are anything from 0 to 1, as often one as the other; where it
    clicks, they are near 1.
    """
    sound = waveform.mean(axis=0, dtype=np.float64)
    places = max(len(sound) // round(PLACE * sample_rate), 1)
    centres = np.arange(places) * len(sound) // places
    third = sound
    for _ in range(3):  # the third difference: next to nothing for a wave, as large as the step for a step
        third = third - np.roll(third, 1)
    third = np.abs(np.roll(third, -1))  # the largest differences at a step are those of the sample before and after it
    half = max(round(JUMP_WINDOW * sample_rate), 1)
    near = third[(centres[:, None] + np.arange(-half, half)) % len(sound)]
    width = round(FLUX_WINDOW * sample_rate)
    window = np.hanning(width)
    before = np.abs(np.fft.rfft(sound[(centres[:, None] + np.arange(-width, 0)) % len(sound)] * window))
    after = np.abs(np.fft.rfft(sound[(centres[:, None] + np.arange(width)) % len(sound)] * window))
    growth = np.maximum(after - before, 0.0)
    return Closure(near.max(axis=1), np.sqrt((growth**2).sum(axis=1)))


def _rank(values: NDArray[np.float64]) -> float:
    others = values[1:]
    return float((others < values[0]).mean()) if others.size else 0.0
