"""A waveform at another sample rate, in bounded memory for every pair of rates.

torchaudio's filter has coefficients for every position of the samples of one rate between those of the other. With
44,100 and 32,000 Hz there are 441 and 320 of them; with 44,101 and 32,000 Hz as many as the rates themselves, a filter
of gigabytes. In place of such a filter, one is tabulated at `PHASES` positions and interpolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from magnet_cli.audio.blocks import Waveform, empty, spans
from magnet_cli.errors import UsageError

# Hz. A lower rate carries no usable sound: its highest frequency is half of it. Converters reach 768 kHz.
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
    """Raise UsageError for a sample rate (Hz) that audio does not have."""
    if not SLOWEST_RATE <= sample_rate <= FASTEST_RATE:
        raise UsageError(
            f"a sample rate of {sample_rate} Hz is not possible",
            f"Give audio of {SLOWEST_RATE:,} to {FASTEST_RATE:,} Hz, e.g. 44100",
        )


@dataclass(frozen=True)
class Filter:
    """The filter of `torchaudio.functional.resample`: zero crossings to either side, cutoff and window."""

    width: int
    rolloff: float
    method: str
    beta: float | None = None


# torchaudio's default, for inputs of the codec: a sine of 1 kHz has an error of -70 dB, one of 13.5 kHz -14 dB.
USUAL = Filter(WIDTH, ROLLOFF, "sinc_interp_hann")
# For what is written: resampy's kaiser_best, which passes 0.9 of the band with an error of -90 dB or less.
FINE = Filter(64, 0.9475937167399596, "sinc_interp_kaiser", 14.769656459379492)


def resample(waveform: Waveform, sample_rate: int, target_rate: int, design: Filter = USUAL) -> Waveform:
    """A waveform [C, L] at another rate (Hz): float32 [C, ceil(L * target_rate / sample_rate)].

    Pairs of usual rates go through torchaudio's function, pairs without a large common factor through a longer filter.
    Raises: UsageError for rates that audio does not have.
    """
    check_rate(sample_rate)
    check_rate(target_rate)
    waveform = np.ascontiguousarray(waveform, dtype=np.float32)
    if sample_rate == target_rate:
        return waveform
    common = math.gcd(sample_rate, target_rate)
    before, after = sample_rate // common, target_rate // common
    channels, length = waveform.shape
    width = math.ceil(design.width * before / (min(before, after) * design.rolloff))
    usual = after * (2 * width + before) <= LARGEST_FILTER
    margin = width if usual else math.ceil(HALF_TAPS * max(1.0, before / after))
    rounds = -(-margin // before)  # of the rates' common period, as many as a filter reaches
    result = empty((channels, -(-length * after // before)))
    for part in spans(length, multiple=before):
        # Blocks begin where samples of both rates coincide, so that they join exactly.
        start, end = max(part.start - rounds * before, 0), min(part.stop + rounds * before, length)
        around = waveform[:, start:end]
        made = _torchaudio(around, before, after, design) if usual else _interpolate(around, before, after)
        first, last = part.start // before * after, -(-part.stop * after // before)
        offset = start // before * after
        result[:, first:last] = made[:, first - offset : last - offset]
    return result


def _torchaudio(waveform: Waveform, before: int, after: int, design: Filter) -> Waveform:
    import torch  # only here: inputs are measured before anything heavy is loaded
    import torchaudio

    made = torchaudio.functional.resample(
        torch.from_numpy(waveform.copy()),
        before,
        after,
        lowpass_filter_width=design.width,
        rolloff=design.rolloff,
        resampling_method=design.method,
        beta=design.beta,
    )
    return np.asarray(made.numpy())


def _interpolate(waveform: Waveform, before: int, after: int) -> Waveform:
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
def _table(before: int, after: int) -> Waveform:
    """The filter at each phase between two samples of the original: [PHASES + 1, N], each row of sum 1."""
    scale = min(1.0, after / before)  # of the cutoff: half the lower of the two rates
    half = math.ceil(HALF_TAPS / scale)
    offset = np.arange(-half + 1, half + 1) - np.arange(PHASES + 1)[:, None] / PHASES  # of each tap from the position
    inside = np.clip(1.0 - (offset * scale / HALF_TAPS) ** 2, 0.0, None)
    table = np.sinc(offset * scale) * np.i0(KAISER_BETA * np.sqrt(inside)) * (inside > 0.0)
    return np.asarray(table / table.sum(axis=1, keepdims=True), dtype=np.float32)
