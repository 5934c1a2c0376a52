"""Measures of one sound that need nothing but its samples: silence, clipping, bandwidth, stereo width, comb.

Waveforms are float32 [C, L], full scale at 1, rates in Hz. A measure is None where the sound has no such property.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio.blocks import Waveform

SILENT = -60.0  # dB relative to full scale: the level of a window, as a root mean square, below which it is silent
WINDOW = 0.050  # seconds of that window: shorter than a pause that is noticed
FLAT = 3  # samples in a row at the peak: where a wave is cut off. A whole wave has one or two there
STEP = 2.0**-15  # two samples that differ by less are equal in 16 bits
LOUD = 0.1  # of full scale: below this peak, neighbouring samples of any wave are equal in 16 bits
SPECTRUM = 4096  # samples of a window of the mean spectrum
BELOW = 60.0  # dB below the strongest band, where the bandwidth ends
BAND = 100.0  # Hz, the width of a band
COMB_SECONDS = 1.0  # of a window of the comb's spectrum, so that its bins are 1 Hz apart
LOWEST_COMB = 200.0  # Hz, where bass lines end, whose tones are few and strong


def silence(waveform: Waveform, sample_rate: int) -> float:
    """Share of the time that is silent in all channels, 0 to 1."""
    width = max(round(WINDOW * sample_rate), 1)
    whole = max(waveform.shape[1] // width, 1) * width
    windows = np.pad(waveform, ((0, 0), (0, max(whole - waveform.shape[1], 0))))[:, :whole].reshape(
        waveform.shape[0], -1, min(width, whole)
    )
    levels = np.sqrt(np.square(windows, dtype=np.float64).mean(axis=2)).max(axis=0)
    return float((levels < 10 ** (SILENT / 20)).mean())


def clipping(waveform: Waveform) -> float:
    """Share of the samples that stand in a row of three or more at the peak of their channel, 0 to 1.

    That also finds a wave that was cut off before its level was lowered. A channel below LOUD counts as not clipped.
    """
    clipped = 0
    for channel in waveform:
        for sign in (1.0, -1.0):
            wave = sign * channel
            peak = float(wave.max(initial=0.0))
            if peak >= LOUD:
                clipped += _in_rows(wave >= peak - STEP)
    return clipped / max(waveform.size, 1)


def _in_rows(high: NDArray[np.bool_]) -> int:
    """How many of these stand in a row of at least FLAT."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], high, [False]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= FLAT].sum())


def bandwidth(waveform: Waveform, sample_rate: int) -> float | None:
    """The frequency (Hz) up to which bands of 100 Hz are within 60 dB of the strongest; None for silence."""
    power, spacing = mean_spectrum(waveform, sample_rate, SPECTRUM)
    bins = max(round(BAND / spacing), 1)
    bands = power[: len(power) // bins * bins].reshape(-1, bins).mean(axis=1)
    if not bands.any():
        return None
    last = int(np.flatnonzero(bands >= bands.max() * 10 ** (-BELOW / 10))[-1])
    return float(min((last + 1) * bins * spacing, sample_rate / 2))


def stereo_width(waveform: Waveform) -> float | None:
    """The share of the energy that is in the difference of two channels: 0 is mono, 0.5 two unrelated channels.

    0 for one channel; None for silence, and for more than two channels.
    """
    if waveform.shape[0] != 2:
        return 0.0 if waveform.shape[0] == 1 else None
    left, right = waveform.astype(np.float64)
    middle, side = float(np.square(left + right).sum()), float(np.square(left - right).sum())
    return side / (middle + side) if middle + side > 0 else None


def comb(waveform: Waveform, sample_rate: int, frame_rate: float) -> float | None:
    """How far the multiples of a codec's frame rate stand out of the spectrum, in dB; about 0 where they do not.

    A decoder that repeats something in each frame adds tones at the multiples of its frame rate. Each multiple is
    compared with the median between it and the next, and the median over all of them is taken, so that a few notes do
    not count. None for silence, and for a sound of less than a second.
    """
    size = round(COMB_SECONDS * sample_rate)
    if waveform.shape[1] < size:
        return None
    power, spacing = mean_spectrum(waveform, sample_rate, size)
    highest = bandwidth(waveform, sample_rate)
    if highest is None:
        return None
    excess = []
    for number in range(math.ceil(LOWEST_COMB / frame_rate), int(highest / frame_rate)):
        place = round(number * frame_rate / spacing)
        around = power[place + 3 : round((number + 1) * frame_rate / spacing) - 2]
        if len(around) and (middle := float(np.median(around))) > 0:
            tone = max(float(power[place - 1 : place + 2].mean()), 1e-30)
            excess.append(10 * math.log10(tone / middle))
    return float(np.median(excess)) if excess else None


def mean_spectrum(waveform: Waveform, sample_rate: int, size: int) -> tuple[NDArray[np.float64], float]:
    """The mean power of each frequency over windows of `size` samples and all channels, and the Hz between them."""
    length = waveform.shape[1]
    size = min(size, length)
    window, total, count = np.hanning(size + 2)[1:-1], np.zeros(size // 2 + 1), 0
    for start in range(0, length - size + 1, max(size // 2, 1)):
        part = waveform[:, start : start + size].astype(np.float64)
        total += np.square(np.abs(np.fft.rfft(part * window, axis=1))).sum(axis=0)
        count += part.shape[0]
    return total / max(count, 1), sample_rate / size
