"""Meters of loudness and true peak, which read a waveform block after block.

Loudness is the integrated, gated loudness of ITU-R BS.1770-4; true peak is its annex 2, read strictly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio.blocks import Waveform, spans

GATING_BLOCK, OVERLAP = 0.400, 0.75  # seconds of a gating block, and the share of it that the next one begins before
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0  # LUFS; LU below what passes the first
# The filters of BS.1770 itself, as B. De Man has them for any rate: gain (dB), Q, frequency (Hz). A 997 Hz sine at full
# scale reads -3.01 LUFS at 48 kHz as annex 1 demands (-3.00 at 32 kHz). What pyloudnorm takes unless asked, its
# "K-weighting", is fitted by eye and reads -3.05 (-3.06).
WEIGHTING = {
    "high_shelf": (3.99984385397, 0.7071752369554193, 1681.9744509555319),
    "high_pass": (0.0, 0.5003270373253953, 38.13547087613982),
}
CHANNEL_GAINS = (1.0, 1.0, 1.0, 1.41, 1.41)  # left, right, centre, the two at the back

# Samples that ideal interpolation looks at beyond either side of a block: it rings longest, as 1 over the distance.
SURROUNDINGS = 1 << 14

HALF = 10  # taps to either side of the filters of the meters in use
# Samples that are filtered by one matrix product: few enough for the processor's cache, and for OpenBLAS to compute it
# on the calling thread. It uses others from 2^18 multiplications on, and those would take cores from the decoder.
PRODUCT = 1 << 10
# The first two of four phases of the interpolation filter in ITU-R BS.1770-4, annex 2; the others mirror them.
# fmt: off
ANNEX_2_TAPS = (
    (0.0017089843750, 0.0109863281250, -0.0196533203125, 0.0332031250000, -0.0594482421875, 0.1373291015625,
     0.9721679687500, -0.1022949218750, 0.0476074218750, -0.0266113281250, 0.0148925781250, -0.0083007812500),
    (-0.0291748046875, 0.0292968750000, -0.0517578125000, 0.0891113281250, -0.1665039062500, 0.4650878906250,
     0.7797851562500, -0.2003173828125, 0.1015625000000, -0.0582275390625, 0.0330810546875, -0.0189208984375),
)
# fmt: on


class LoudnessMeter:
    """Integrated loudness of a waveform of this shape [C, L], of which one block after the other is added.

    A clip shorter than a gating block is measured as one block of its own length.
    """

    def __init__(self, shape: tuple[int, ...], sample_rate: int) -> None:
        from pyloudnorm import IIRfilter

        (channels, samples), self._rate = shape, sample_rate
        self._samples = samples
        self._seconds = min(GATING_BLOCK, _seconds(samples, sample_rate))
        filters = [IIRfilter(*values, sample_rate, f"{kind}_DeMan") for kind, values in WEIGHTING.items()]
        stages = [(one.passband_gain, one.b, one.a) for one in filters]
        self._channels = [_Weighting(stages) for _ in range(channels)]
        self._weighted = [np.empty(0) for _ in range(channels)]  # from sample `_first` on
        self._powers: list[list[float]] = []  # of each gating block: [M, C]
        self._first = self._added = 0

    def add(self, block: Waveform) -> None:
        """The next samples, [C, n]."""
        self._added += block.shape[1]
        for number, weighting in enumerate(self._channels):
            new = weighting(block[number].astype(np.float64))
            self._weighted[number] = np.concatenate([self._weighted[number], new])
        while len(self._powers) < self._count and self._bounds(len(self._powers))[1] <= self._added:
            self._measure()
        begun = min(self._bounds(len(self._powers))[0], self._added)
        self._weighted = [one[begun - self._first :].copy() for one in self._weighted]
        self._first = begun

    def lufs(self) -> float | None:
        """Integrated loudness of all of it, once it has been added; None: nothing passes the absolute gate."""
        while len(self._powers) < self._count:  # the last block may end a little after the clip
            self._measure()
        if not self._powers:
            return None
        powers = np.array(self._powers).T.copy()  # [C, M]
        gains = np.array(CHANNEL_GAINS[: len(powers)])
        with np.errstate(divide="ignore"):
            loudness = _lufs(gains @ powers)
            loud = loudness >= ABSOLUTE_GATE
            if not loud.any():
                return None
            gate = _lufs(gains @ powers[:, loud].mean(axis=1)) + RELATIVE_GATE
            louder = (loudness > gate) & (loudness > ABSOLUTE_GATE)
        return float(_lufs(gains @ powers[:, louder].mean(axis=1))) if louder.any() else None

    @property
    def _count(self) -> int:
        """Gating blocks in the clip: as many as fit, to the nearest."""
        if self._samples == 0:
            return 0
        step = self._seconds * (1.0 - OVERLAP)
        return round((self._samples / self._rate - self._seconds) / step) + 1

    def _bounds(self, number: int) -> tuple[int, int]:
        start = number * (1.0 - OVERLAP)
        return int(self._seconds * start * self._rate), int(self._seconds * (start + 1) * self._rate)

    def _measure(self) -> None:
        """The mean square of the next gating block."""
        first, last = (place - self._first for place in self._bounds(len(self._powers)))
        share = 1.0 / (self._seconds * self._rate)
        self._powers.append([share * float(np.square(one[first:last]).sum()) for one in self._weighted])


class _Weighting:
    """The weighting filters of BS.1770 for one channel, with their state."""

    def __init__(self, stages: list[tuple[float, NDArray[np.float64], NDArray[np.float64]]]) -> None:
        self._stages = stages
        self._states = [np.zeros(max(len(numerator), len(denominator)) - 1) for _, numerator, denominator in stages]

    def __call__(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy.signal import lfilter

        for number, (gain, numerator, denominator) in enumerate(self._stages):
            samples, self._states[number] = lfilter(numerator, denominator, samples, zi=self._states[number])
            samples = gain * samples
        return samples


def integrated(waveform: Waveform, sample_rate: int) -> float | None:
    """Integrated loudness of a waveform [C, L], LUFS; None: nothing passes the absolute gate."""
    meter = LoudnessMeter(waveform.shape, sample_rate)
    for part in spans(waveform.shape[1]):
        meter.add(waveform[:, part])
    return meter.lufs()


def _lufs(power: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-0.691 + 10.0 * np.log10(power))


def _seconds(samples: int, sample_rate: int) -> float:
    # Multiplied by the rate again, this must not be one rounding error more than there are samples.
    seconds = samples / sample_rate
    return seconds if seconds * sample_rate <= samples else math.nextafter(seconds, 0.0)


# -- true peak --------------------------------------------------------------------------------------------------------


def true_peak(waveform: Waveform) -> float | None:
    """True peak of a waveform [C, L], dBTP; None: digital silence."""
    return dbtp(max((float(peaks.max(initial=0.0)) for _, peaks in true_peaks(waveform)), default=0.0))


def dbtp(peak: float) -> float | None:
    """A true peak, full scale at 1, in dBTP; None: digital silence."""
    return 20.0 * math.log10(peak) if peak > 0.0 else None


def true_peaks(waveform: Waveform, *, multiple: int = 1) -> Iterator[tuple[slice, Waveform]]:
    """Largest magnitude in any channel from each sample up to the next: blocks of them, float32 [n], one by one.

    BS.1770-4 annex 2 asks for interpolation to 4 times the rate and leaves the filter open. Meters agree on music to
    some 0.02 dB, but not on noise or square waves: ideal interpolation, which rings longest, reads up to 0.9 dB more
    there, and the filter printed in annex 2 up to 0.3 dB more than a flat one. The highest of them all counts here, so
    that a ceiling holds whoever measures it. Ideal interpolation takes the clip for a loop, whose end meets its start;
    in a long one, it sees a block and its SURROUNDINGS.
    multiple: of samples that a block has.
    """
    samples = waveform.shape[1]
    for part in spans(samples, multiple=multiple):
        around = slice(max(part.start - HALF, 0), min(part.stop + HALF, samples))
        margin = 0 if part == slice(0, samples) else SURROUNDINGS
        places = np.arange(part.start - margin, part.stop + margin) % samples
        filtered = _filtered_peaks(waveform[:, around])[part.start - around.start :]
        ideal = _ideal_peaks(waveform[:, places] if margin else waveform)[margin:]
        length = part.stop - part.start
        yield part, np.maximum(filtered[:length], ideal[:length])


def _filtered_peaks(waveform: Waveform) -> Waveform:
    """Magnitude up to the next sample as the filters of the meters in use read it: float32 [L]."""
    scaled, top = _scaled(waveform)
    samples, kernels = waveform.shape[1], _kernels()  # [P, N]
    peaks = np.zeros(samples, dtype=np.float32)
    for channel in scaled if top else ():
        between = _largest_between(channel, kernels)
        # Entry n + HALF lies between samples n and n + 1; ringing outside the clip goes to its first and last sample.
        inside = between[HALF : HALF + samples]
        inside[0] = max(inside[0], between[:HALF].max())
        inside[-1] = max(inside[-1], between[HALF + samples - 1 :].max())
        peaks = np.maximum.reduce([peaks, np.abs(channel), inside])
    return np.asarray(peaks * top)


def _largest_between(channel: Waveform, kernels: Waveform) -> Waveform:
    """The largest magnitude of a channel [L] convolved with each of the kernels [P, N]: float32 [L + N - 1].

    By matrix products, in a third of the time that FFTs take for so few taps.
    """
    taps, samples = kernels.shape[1], len(channel)
    chunks = -(-(samples + taps - 1) // PRODUCT)
    padded = np.zeros(chunks * PRODUCT + taps - 1, dtype=np.float32)
    padded[taps - 1 :][:samples] = channel
    windows = np.lib.stride_tricks.sliding_window_view(padded, PRODUCT)
    flipped, largest = np.ascontiguousarray(kernels[:, ::-1]), np.empty((chunks, PRODUCT), dtype=np.float32)
    shifted, filtered = (np.empty((rows, PRODUCT), dtype=np.float32) for rows in (taps, len(kernels)))
    for number in range(chunks):
        np.copyto(shifted, windows[number * PRODUCT :][:taps])
        np.matmul(flipped, shifted, out=filtered)
        np.abs(filtered, out=filtered)
        np.max(filtered, axis=0, out=largest[number])
    return largest.reshape(-1)[: samples + taps - 1]


def _ideal_peaks(waveform: Waveform) -> Waveform:
    """Magnitude up to the next sample by ideal interpolation of a period: float32 [L]."""
    from scipy.signal import resample

    scaled, top = _scaled(waveform)
    peaks = np.zeros(waveform.shape[1], dtype=np.float32)
    for channel in scaled if top else ():
        ideal = np.abs(resample(channel, 4 * len(channel)))
        peaks = np.maximum.reduce([peaks, *(ideal[phase::4] for phase in range(4))])
    return np.asarray(peaks * top)


def _scaled(waveform: Waveform) -> tuple[Waveform, np.float32]:
    """A waveform around 1, where float32 neither overflows nor loses bits, and what it was divided by; 0: silence."""
    top = np.float32(np.abs(waveform).max(initial=0.0))
    return (waveform / top if top else waveform), top


def _kernels() -> Waveform:
    """Filters of the meters in use, one row for each point that one of them reads between two samples: [10, 20]."""
    position = np.arange(1, 4)[:, None] / 4 + np.arange(2 * HALF) - HALF  # [3, 20]
    sinc = np.sinc(position)
    kaiser = sinc * np.i0(5.0 * np.sqrt(1.0 - (position / HALF) ** 2))  # the window of scipy's resample_poly
    hann = sinc * np.where(np.abs(position) < 6, 1.0 + np.cos(np.pi * position / 6), 0.0)  # libebur128: 49 taps in all
    flat = np.concatenate([kaiser, hann])
    flat /= flat.sum(axis=1, keepdims=True)
    annex = np.array(ANNEX_2_TAPS)
    annex = np.concatenate([annex, annex[::-1, ::-1]])  # [4, 12]; the filter is symmetric
    return np.concatenate([flat, np.pad(annex, ((0, 0), (4, 4)))]).astype(np.float32)
