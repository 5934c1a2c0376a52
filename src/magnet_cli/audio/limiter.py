"""A look-ahead limiter: the gain that keeps peaks below a threshold, block after block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio.blocks import Waveform, empty, spans
from magnet_cli.audio.meters import true_peaks

LOOK_AHEAD = 0.005  # seconds over which the gain falls before a peak, and is then held: 200 Hz, too slow to distort
# Seconds in which the gain reduction (in dB) falls to 1/e of itself. Longer costs drums their loudness (a loop that
# gets to -10.3 LUFS with 30 ms gets to -11.5 with 100 ms), shorter lets the gain follow the waves of a bass.
RELEASE = 0.050
CONTROL = 0.00025  # seconds between two values of the limiter's gain; a straight line joins them

Gain = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Limiter:
    """What a limiter knows of a waveform: its largest true peak in each of its steps, float32 [M], `hop` samples each.

    samples: L. rate: steps in a second.
    """

    peaks: NDArray[np.float32]
    hop: int
    samples: int
    rate: float

    @classmethod
    def of(cls, waveform: Waveform, sample_rate: int) -> Limiter:
        """The limiter of a waveform [C, L]."""
        samples, hop = waveform.shape[1], max(1, round(CONTROL * sample_rate))
        (largest,) = empty((1, -(-samples // hop)))
        for part, peaks in true_peaks(waveform, multiple=hop):
            padded = np.pad(peaks, (0, -len(peaks) % hop))
            largest[part.start // hop :][: len(padded) // hop] = padded.reshape(-1, hop).max(axis=1)
        return cls(largest, hop, samples, sample_rate / hop)

    @property
    def _width(self) -> int:
        """Of each of the three boxes of 2 * width + 1 steps that smooth the gain: nearly a Gaussian, 3 * width wide."""
        return max(1, round(LOOK_AHEAD * self.rate / 6))

    @property
    def top(self) -> float:
        """The largest of all peaks."""
        return float(self.peaks.max(initial=0.0))

    def gains(self, gain_db: float, threshold: float) -> Iterator[tuple[slice, Gain, bool]]:
        """The gain for each sample, block after block: `gain_db`, and less where peaks would exceed `threshold` (dB).

        With each block [n]: its samples, and whether the limiter lowers something there. One gain for all channels, so
        that the stereo image stays. The gain of a block depends on a little of what follows it, and on all before it.
        """
        steps, reach = len(self.peaks), 3 * self._width
        released = 0.0  # the reduction, in dB, in the step before those that a block looks at
        for part in spans(self.samples, multiple=self.hop):
            first, last = part.start // self.hop, -(-part.stop // self.hop)
            # Straight lines reach into the next step to either side, and smoothing further.
            around = slice(max(first - 1 - reach, 0), min(last + 1 + reach, steps))
            held = self._released(self._held(around, gain_db - threshold), released)
            reduction = self._smoothed(held)
            following = last - 1 - reach - 1  # the last step before those that the next block looks at
            released = float(held[following - around.start]) if following >= around.start else 0.0
            used = slice(max(first - 1, 0), min(last + 1, steps))
            lowered = reduction[used.start - around.start : used.stop - around.start]
            yield part, self._between(10.0 ** ((gain_db - lowered) / 20.0), used.start, part), bool(lowered.any())

    def _held(self, around: slice, amplify: float) -> Gain:
        """What each step needs to be lowered by, in dB, held so long before and after it that smoothing keeps it."""
        hold = 3 * self._width + 1  # + 1: `_between` reaches into the next step
        wide = slice(max(around.start - hold, 0), min(around.stop + hold, len(self.peaks)))
        # 1e-30 stands for zero: -600 dB, and no warning from log10
        decibels = 20.0 * np.log10(np.maximum(self.peaks[wide], 1e-30), dtype=np.float64)
        needed = np.maximum(decibels + amplify, 0.0)
        if needed.any():
            from scipy.ndimage import maximum_filter1d

            needed = maximum_filter1d(needed, 2 * hold + 1)
        return np.asarray(needed[around.start - wide.start : around.stop - wide.start])

    def _released(self, held: Gain, before: float) -> Gain:
        """With an exponential fall after each peak, and after what was `before` them."""
        if before == 0.0 and not held.any():
            return held
        # y[m] = max(x[m], decay * y[m - 1]) has no recursion as a logarithm: a running maximum of log x + m / release.
        values = np.concatenate([[before], held]) if before else held
        slope = np.arange(len(values)) / (RELEASE * self.rate)
        with np.errstate(divide="ignore"):
            falling = np.exp(np.maximum.accumulate(np.log(values) + slope) - slope)
        return np.asarray(falling[len(values) - len(held) :])

    def _smoothed(self, reduction: Gain) -> Gain:
        """Smoothed within the hold, so that the reduction at a peak is never less than the peak needs."""
        if not reduction.any():
            return reduction
        from scipy.ndimage import uniform_filter1d

        for _ in range(3):
            reduction = uniform_filter1d(reduction, 2 * self._width + 1, mode="nearest")
        return np.asarray(reduction)

    def _between(self, gain: Gain, first: int, part: slice) -> Gain:
        """A gain for each step from `first` on -> for each sample of a part, on lines between the middles of steps."""
        middles = np.arange(first, first + len(gain)) * self.hop + (self.hop - 1) / 2
        return np.interp(np.arange(part.start, part.stop), middles, gain)
