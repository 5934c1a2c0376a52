"""The tempo of a finished sound, from how its onsets repeat.

At the time of a beat, and of two, three and four beats, the onsets of rhythmic music resemble themselves: there, their
autocorrelation is large. Multiples of a tempo fit nearly as well as the tempo itself. Among them a tempo near 120 bpm
is the likeliest to be tapped, unless what lies between its beats is as strong as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio.blocks import Waveform
from magnet_cli.music.onsets import Onsets, find_onsets

SLOWEST, FASTEST = 40.0, 250.0  # bpm that are looked for
USUAL = 120.0  # bpm; people tap most music between 80 and 160
SPREAD = 0.9  # octaves: the standard deviation of tapped tempi around it (librosa takes 1.0)
MULTIPLES = 4  # beats over which onsets are compared
AS_STRONG = 0.88  # what lies between two beats: from this share of the beats' own correlation, it is beats, too
SUPPORTED = 0.6  # an octave of the tempo is as good a reading if it correlates by at least this share of the best
# Below this correlation no beat is clear. Chance repeats more in a short sound: of 120, with noise or hits, those
# of 2 s reached 0.43, of 4 s 0.22, of 8 s 0.11, of 10 s 0.08. Clips with a steady beat have 0.2 to 0.5, drums 0.8.
CLEAR = 1.0  # divided by the seconds
CLEAR_AT_LEAST = 0.08
LOCAL = 0.2  # seconds whose mean is taken from the onsets: what is left are peaks
FAINT = 0.05  # of log(1 + magnitude / floor): the ripple of held notes grows less, and is no onset
NEAR = 0.02
LONGEST = 60.0  # seconds that are measured; a tempo is steady


@dataclass(frozen=True)
class Tempo:
    """A measured tempo. clarity: how well the onsets repeat from beat to beat, 0 (not at all) to 1 (exactly)."""

    bpm: float
    clarity: float

    @property
    def rounded(self) -> dict[str, float]:
        """Both values as a record has them."""
        return {"bpm": round(self.bpm, 3), "clarity": round(self.clarity, 3)}

    def is_near(self, bpm: float) -> bool:
        """Whether it is this tempo, within 2 %: in a loop of four bars, less than a third of a beat."""
        return abs(self.bpm / bpm - 1) <= NEAR


def measure_tempo(
    waveform: Waveform, sample_rate: int, *, loop: bool = False, near: float | None = None
) -> Tempo | None:
    """The tempo of a waveform [C, L]; None where no beat is clear.

    loop: the end leads into the beginning, so that the beats in it are a whole number where the tempo is steady.
    near: of half, single and double the tempo, if the sound has them all, the nearest to this is reported.
    """
    heard = waveform if loop else waveform[:, : round(LONGEST * sample_rate)]
    return tempo_of(find_onsets(heard, sample_rate, loop=loop), near=near)


def tempo_of(onsets: Onsets, *, near: float | None = None) -> Tempo | None:
    """`measure_tempo` of onsets that were found already."""
    repetition = Repetition.of(onsets)
    if repetition is None:
        return None
    tempi = np.geomspace(SLOWEST, FASTEST, 1200)  # 0.15 % apart
    fits = np.array([repetition.at(bpm) for bpm in tempi])
    prior = np.exp(-0.5 * (np.log2(tempi / USUAL) / SPREAD) ** 2)
    best = float(tempi[np.argmax(fits * prior)])
    while best / 2 >= SLOWEST and repetition.at(best) < SUPPORTED * repetition.at(
        best / 2
    ):  # every other beat is silent
        best /= 2
    while 2 * best <= FASTEST and repetition.between(best) >= AS_STRONG:
        best *= 2
    if near is not None:
        reach = SUPPORTED * repetition.at(best)
        octaves = [factor * best for factor in (0.5, 1.0, 2.0) if repetition.at(factor * best) >= reach]
        best = min(octaves or [best], key=lambda bpm: abs(math.log2(bpm / near)))
    best = repetition.refined(best)
    clarity, seconds = repetition.at(best), len(onsets.strength) / onsets.rate
    if clarity < max(CLEAR / seconds, CLEAR_AT_LEAST):
        return None
    if onsets.loop:
        beats = best / 60 * seconds
        if abs(beats - round(beats)) < 0.15 and round(beats) > 0:  # a steady beat closes the circle
            best *= round(beats) / beats
    return Tempo(best, min(clarity, 1.0))


@dataclass(frozen=True, eq=False)
class Repetition:
    """The autocorrelation of onsets: float64 [N], 1 at a lag of 0. rate: lags in a second."""

    correlation: NDArray[np.float64]
    rate: float

    @classmethod
    def of(cls, onsets: Onsets) -> Repetition | None:
        """That of onsets; None where there are none, or not enough for two beats."""
        if onsets.strength.max(initial=0.0) < FAINT:
            return None
        strength = np.maximum(onsets.strength - local_mean(onsets), 0.0)
        # A little blurred, so that beats that are a moment early or late still match.
        blurred = 0.25 * np.roll(strength, 1) + 0.5 * strength + 0.25 * np.roll(strength, -1)
        centred = blurred - blurred.mean()
        moments = len(centred)
        series = np.fft.rfft(centred, moments if onsets.loop else 2 * moments)
        # In a loop, the lags beyond its half are those before it again.
        correlation = np.fft.irfft(np.abs(series) ** 2)[: moments // 2 if onsets.loop else moments * 3 // 4]
        if not onsets.loop:
            correlation *= moments / (moments - np.arange(len(correlation)))
        if len(correlation) < 60 / FASTEST * onsets.rate:
            return None
        return cls(correlation / correlation[0], onsets.rate)

    def at(self, bpm: float, multiples: int = MULTIPLES) -> float:
        """Mean correlation over one, two, ... beats, of as many as the sound has room for; 0 if it has none."""
        return self._mean(np.arange(1, multiples + 1) * 60 / bpm)

    def between(self, bpm: float) -> float:
        """Correlation over half a beat and one and a half, as a share of that over one and two beats."""
        beats = self._mean(np.array([1, 2]) * 60 / bpm)
        return self._mean(np.array([0.5, 1.5]) * 60 / bpm) / beats if beats > 0 else 0.0

    def refined(self, bpm: float) -> float:
        """The tempo within 1.5 % whose beats correlate best over as many of them as the sound has room for."""
        tempi = bpm * np.linspace(0.985, 1.015, 301)
        return float(tempi[np.argmax([self.at(one, 4 * MULTIPLES) for one in tempi])])

    def _mean(self, seconds: NDArray[np.float64]) -> float:
        lags = seconds * self.rate
        lags = lags[lags <= len(self.correlation) - 1]
        return float(np.interp(lags, np.arange(len(self.correlation)), self.correlation).mean()) if len(lags) else 0.0


def local_mean(onsets: Onsets) -> NDArray[np.float64]:
    """The mean strength around each moment, float64 [M]."""
    half = round(LOCAL * onsets.rate / 2)
    padded = np.pad(onsets.strength, half, mode="wrap" if onsets.loop else "reflect")
    return np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")
