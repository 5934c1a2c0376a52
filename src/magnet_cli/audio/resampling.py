"""A waveform at another sample rate, in bounded memory for every pair of rates.

torchaudio's filter has a coefficient for every pair of positions that the two rates can have to each other: with
44,100 and 32,000 Hz those are 441 and 320, with 44,101 and 32,000 Hz as many as the rates themselves, a filter of
gigabytes. Where it would be that large, the filter is tabulated at `PHASES` positions and read between them.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray

from magnet_cli.errors import UsageError

Samples = NDArray[np.float32]

# Hz. Slower is no sound: half of it would be the highest frequency. 768 kHz is the fastest that converters have.
SLOWEST_RATE, FASTEST_RATE = 1_000, 768_000

LARGEST_FILTER = 1 << 22  # coefficients of torchaudio's filter: 16 MB, and a few times as much to compute them
# Of its design: `torchaudio.functional.resample` keeps 6 zero crossings of the sinc to either side.
WIDTH, ROLLOFF = 6, 0.99

# The tabulated filter passes up to 0.9 of the lower Nyquist frequency, and images begin to fold back at 1.1 of it. A
# Kaiser window of this width and shape attenuates them by 100 dB (Kaiser's formulas: 64 taps, beta 0.11 * (100 - 8.7)).
HALF_TAPS = 32
KAISER_BETA = 10.06
PHASES = 512  # a straight line between neighbours is off by (pi / PHASES) ** 2 / 24 at most: 115 dB below full scale
GATHERED = 1 << 22  # samples looked at in one step, 16 MB


def check_rate(sample_rate: int) -> None:
    """Raise UsageError for a sample rate (Hz) that no audio has."""
    if not SLOWEST_RATE <= sample_rate <= FASTEST_RATE:
        raise UsageError(
            f"a sample rate of {sample_rate} Hz is not possible",
            f"Give audio of {SLOWEST_RATE:,} to {FASTEST_RATE:,} Hz, e.g. 44100",
        )


def resample(waveform: Samples, sample_rate: int, target_rate: int) -> Samples:
    """A waveform [C, L] at another rate (Hz): float32 [C, ceil(L * target_rate / sample_rate)].

    The rates that audio usually has take torchaudio's own function, those without a common factor a better filter.
    Raises UsageError for rates that no audio has.
    """
    check_rate(sample_rate)
    check_rate(target_rate)
    if sample_rate == target_rate:
        return np.ascontiguousarray(waveform, dtype=np.float32)
    common = math.gcd(sample_rate, target_rate)
    before, after = sample_rate // common, target_rate // common
    width = math.ceil(WIDTH * before / (min(before, after) * ROLLOFF))
    if after * (2 * width + before) <= LARGEST_FILTER:
        sound = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
        return np.asarray(torchaudio.functional.resample(sound, sample_rate, target_rate).numpy())
    return _interpolate(np.ascontiguousarray(waveform, dtype=np.float32), before, after)


def _interpolate(waveform: Samples, before: int, after: int) -> Samples:
    """`resample` by before : after, without a common factor, through the tabulated filter."""
    channels, length = waveform.shape
    samples = -(-length * after // before)
    table = _table(before, after)  # [PHASES + 1, N]
    slopes = np.diff(table, axis=0)
    taps = table.shape[1]
    first = taps // 2 - 1  # taps before the position that is read
    padded = np.pad(waveform, ((0, 0), (first, taps)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps, axis=1)  # [C, L + first + 1, N]
    result = np.empty((channels, samples), dtype=np.float32)
    step = max(1, GATHERED // taps)
    for start in range(0, samples, step):
        # Positions in the original are whole multiples of 1 / after: exact, however long the sound.
        whole, part = np.divmod(np.arange(start, min(start + step, samples), dtype=np.int64) * before, after)
        phase, rest = np.divmod(part * PHASES, after)
        share = (rest / after).astype(np.float32)[:, None]
        filters = table[phase] + share * slopes[phase]  # [S, N]
        for channel in range(channels):
            result[channel, start : start + step] = np.einsum("sn,sn->s", windows[channel, whole], filters)
    return result


@lru_cache(maxsize=8)
def _table(before: int, after: int) -> Samples:
    """The filter at each phase between two samples of the original: [PHASES + 1, N], each row of sum 1."""
    scale = min(1.0, after / before)  # of the cutoff: half the lower of the two rates
    half = math.ceil(HALF_TAPS / scale)
    offset = np.arange(-half + 1, half + 1) - np.arange(PHASES + 1)[:, None] / PHASES  # of each tap from the position
    inside = np.clip(1.0 - (offset * scale / HALF_TAPS) ** 2, 0.0, None)
    table = np.sinc(offset * scale) * np.i0(KAISER_BETA * np.sqrt(inside)) * (inside > 0.0)
    return np.asarray(table / table.sum(axis=1, keepdims=True), dtype=np.float32)
