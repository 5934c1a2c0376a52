"""Loudness and true peak of a waveform, and bringing both to where they should be.

Loudness is the integrated, gated loudness of ITU-R BS.1770-4; true peak is its annex 2, read strictly.
Waveforms are numpy arrays [C, L] of floats, full scale at 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio.blocks import Waveform
from magnet_cli.errors import NumericsError, UsageError
from magnet_cli.options.output import OutputConfig

REACHED_LU = 0.5  # a clip this close to the target counts as there; EBU R 128 allows live programmes as much as 1 LU
TOLERANCE_LU = 0.1  # where the search for a gain stops: well below the 1 LU or so that listeners notice
# Gain on top of the difference in loudness, to make up for what the limiter takes. 12 dB more into a limiter is already
# a sound of its own; a clip that is still too quiet then would gain next to nothing from more.
MAKE_UP_DB = 12.0
MAX_TRIALS = 8  # trials of a gain in one search; 3 to 5 is usual
MAX_ROUNDS = 3  # searches, each with the limiter's threshold a little lower; 1 is usual

LOOK_AHEAD = 0.005  # seconds over which the gain falls before a peak, and is then held: 200 Hz, too slow to distort
# Seconds in which the gain reduction (in dB) falls to 1/e of itself. Longer costs drums their loudness (a loop that
# gets to -10.3 LUFS with 30 ms gets to -11.5 with 100 ms), shorter lets the gain follow the waves of a bass.
RELEASE = 0.050
CONTROL = 0.00025  # seconds between two values of the limiter's gain; a straight line joins them

# Distance kept from the ceiling. `_true_peaks` holds the filters of the usual meters, so what remains is rounding to
# float32, and scipy's resample_poly, which reads a lone sample 0.006 dB high.
METER_MARGIN_DB = 0.02

# An offset below this share of the peak costs less than 0.1 dB of room; real codecs stay far below it.
OFFSET = 0.01

SILENCE_DBTP = -90.3  # one step of 16 bits: a clip that never exceeds it is not amplified to a given peak

# The first two of four phases of the interpolation filter in ITU-R BS.1770-4, annex 2; the others mirror them.
# fmt: off
ANNEX_2_TAPS = (
    (0.0017089843750, 0.0109863281250, -0.0196533203125, 0.0332031250000, -0.0594482421875, 0.1373291015625,
     0.9721679687500, -0.1022949218750, 0.0476074218750, -0.0266113281250, 0.0148925781250, -0.0083007812500),
    (-0.0291748046875, 0.0292968750000, -0.0517578125000, 0.0891113281250, -0.1665039062500, 0.4650878906250,
     0.7797851562500, -0.2003173828125, 0.1015625000000, -0.0582275390625, 0.0330810546875, -0.0189208984375),
)
# fmt: on


@dataclass(frozen=True)
class Loudness:
    """What was measured.

    lufs       integrated loudness; None: silence, nothing above the absolute gate of -70 LUFS
    true_peak  dBTP; None: digital silence
    """

    lufs: float | None
    true_peak: float | None


@dataclass(frozen=True, eq=False)
class Normalized:
    """A waveform at its new level.

    waveform  float32 [C, L]
    before    measured on what came in
    after     measured on `waveform`
    gain_db   gain applied to the whole clip, before the limiter
    limited   the limiter lowered some part of it
    reached   within 0.5 LU of the target, or for "peak" at it; False for silence
    """

    waveform: Waveform
    before: Loudness
    after: Loudness
    gain_db: float
    limited: bool
    reached: bool


def import_meters() -> None:
    """Import what the functions below use: most of a second, which a thread can spend while a clip is made."""
    with suppress(ImportError):  # told by the function that needs it
        import pyloudnorm  # noqa: F401
        import scipy.ndimage
        import scipy.signal  # noqa: F401


def measure(waveform: NDArray[Any], sample_rate: int) -> Loudness:
    """Integrated loudness and true peak.

    `waveform` is float [C, L], C from 1 to 5. A clip shorter than the gating block of 400 ms is measured as one block
    of its own length. Raises NumericsError for values that are not finite. Source: ITU-R BS.1770-4.
    """
    checked = _checked(waveform)
    return Loudness(_integrated(checked, sample_rate), _peak_db(_true_peaks(checked)))


def normalize(waveform: NDArray[Any], sample_rate: int, config: OutputConfig) -> Normalized:
    """Bring a waveform [C, L] to the loudness or the peak that `config` asks for.

    "loudness" and "auto": gain to `config.lufs`, then a limiter that keeps the true peak at or below
    `config.true_peak`, and more gain for what it takes. Where both cannot hold, the ceiling wins and `reached` is
    False. Silence (below the gate of -70 LUFS) is not amplified: it is the standard's own border between a quiet sound
    and none, and bounds the gain.
    "peak": gain alone, so that the true peak is `config.true_peak`. "none": only measured.
    Raises NumericsError for values that are not finite.
    """
    checked = _checked(waveform)
    peaks = _true_peaks(checked)
    before = Loudness(_integrated(checked, sample_rate), _peak_db(peaks))
    if config.normalize == "none":
        return Normalized(checked, before, before, 0.0, limited=False, reached=True)
    if config.normalize in ("auto", "loudness") and before.lufs is not None:
        return _to_loudness(checked, sample_rate, config, before=before, peaks=peaks)
    return _to_peak(checked, sample_rate, config, before=before)


def remove_offset(waveform: NDArray[Any], sample_rate: int) -> NDArray[Any]:
    """A waveform [C, L] less each channel's constant offset: nobody hears it, but it uses up the room below a ceiling.

    What counts is a mean of more than OFFSET of the peak that is there at both ends, too. A slow swell has a mean as
    well, and taking that away would make a click of the silence around it.
    """
    if waveform.size == 0 or not np.isfinite(waveform).all():
        return waveform
    edge = max(1, round(0.050 * sample_rate))
    offset, first, last = (
        part.mean(axis=1, keepdims=True, dtype=np.float64)
        for part in (waveform, waveform[:, :edge], waveform[:, -edge:])
    )
    constant = (np.abs(first - offset) < np.abs(first)) & (np.abs(last - offset) < np.abs(last))
    offset[~constant | (np.abs(offset) <= OFFSET * np.abs(waveform).max())] = 0.0
    return (waveform - offset).astype(waveform.dtype) if offset.any() else waveform


def trim(waveform: NDArray[Any], sample_rate: int, duration: float | None) -> NDArray[Any]:
    """The first `duration` seconds of a waveform [C, L], faded over the last 10 ms (or all of it, if that is less).

    None, or exactly the length of the clip, returns the waveform as it is. Raises UsageError when the clip is shorter.
    """
    if duration is None:
        return waveform
    length = waveform.shape[-1]
    keep = round(duration * sample_rate)
    if keep > length:
        raise UsageError(
            f"duration of {duration:g} s is longer than the clip of {length / sample_rate:g} s",
            f"Give at most --duration {length / sample_rate:g}, or leave it out",
        )
    if keep < 1:
        raise UsageError(f"duration of {duration:g} s is shorter than one sample", "Give e.g. --duration 5")
    if keep == length:
        return waveform
    kept = np.array(waveform[..., :keep])
    fade = min(round(0.010 * sample_rate), keep)
    # A raised cosine has no corner at either end; the last sample is zero, so that what follows does not click.
    kept[..., keep - fade :] *= (0.5 + 0.5 * np.cos(np.pi * np.arange(1, fade + 1) / fade)).astype(kept.dtype)
    return kept


# -- meters -----------------------------------------------------------------------------------------------------------


def _checked(waveform: NDArray[Any]) -> Waveform:
    if waveform.ndim != 2 or not 1 <= waveform.shape[0] <= 5 or not np.issubdtype(waveform.dtype, np.floating):
        raise ValueError(f"a waveform is floats [C, L] with C from 1 to 5, not {waveform.dtype} {waveform.shape}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is reported below
        checked = waveform.astype(np.float32)
    if not np.isfinite(checked).all():
        bad = int(np.count_nonzero(~np.isfinite(checked)))
        raise NumericsError(
            f"{bad} of {checked.size} samples of the waveform are not finite",
            "Try another seed; if every clip fails, fetch the model again",
        )
    return checked


def _integrated(waveform: Waveform, sample_rate: int) -> float | None:
    samples = waveform.shape[1]
    if samples == 0:
        return None
    import pyloudnorm

    # "DeMan" is pyloudnorm's name for the filters of BS.1770 itself: a 997 Hz sine at full scale reads -3.01 LUFS at
    # 48 kHz as annex 1 demands (-3.00 at 32 kHz). Its "K-weighting" is fitted by eye and reads -3.05 (-3.06).
    # A block as long as a shorter clip makes pyloudnorm measure exactly one block.
    meter = pyloudnorm.Meter(sample_rate, filter_class="DeMan", block_size=min(0.4, _seconds(samples, sample_rate)))
    lufs = float(meter.integrated_loudness(waveform.T.astype(np.float64)))
    return lufs if math.isfinite(lufs) else None


def _seconds(samples: int, sample_rate: int) -> float:
    # pyloudnorm multiplies by the rate again, and rejects a clip for one rounding error too much.
    seconds = samples / sample_rate
    return seconds if seconds * sample_rate <= samples else math.nextafter(seconds, 0.0)


def _true_peaks(waveform: Waveform) -> Waveform:
    """Largest magnitude in any channel from each sample up to the next: float32 [L].

    BS.1770-4 annex 2 asks for interpolation to 4 times the rate and leaves the filter open. Meters agree on music to
    some 0.02 dB, but not on noise or square waves: ideal interpolation, which rings longest, reads up to 0.9 dB more
    there, and the filter printed in annex 2 up to 0.3 dB more than a flat one. The highest of them all counts here, so
    that a ceiling holds whoever measures it. Ideal interpolation takes the clip for a loop, whose end meets its start.
    """
    samples = waveform.shape[1]
    top = float(np.abs(waveform).max(initial=0.0))
    peaks = np.zeros(samples, dtype=np.float32)
    if top == 0.0:
        return peaks
    from scipy.signal import oaconvolve, resample

    kernels = _kernels()  # [P, N]
    half = kernels.shape[1] // 2
    for channel in waveform / np.float32(top):  # around 1, where float32 neither overflows nor loses bits
        between = np.abs(oaconvolve(channel[None], kernels, axes=1)).max(axis=0)  # [P, L + N - 1] -> [L + N - 1]
        # Entry n + half lies between samples n and n + 1; ringing outside the clip goes to its first and last sample.
        inside = between[half : half + samples]
        inside[0] = max(inside[0], between[:half].max())
        inside[-1] = max(inside[-1], between[half + samples - 1 :].max())
        ideal = np.abs(resample(channel, 4 * samples))
        peaks = np.maximum.reduce([peaks, np.abs(channel), inside, *(ideal[phase::4] for phase in range(4))])
    return np.asarray(peaks * np.float32(top))


def _kernels() -> Waveform:
    """Filters of the meters in use, one row for each point that one of them reads between two samples: [10, 20]."""
    half = 10
    position = np.arange(1, 4)[:, None] / 4 + np.arange(2 * half) - half  # [3, 20]
    sinc = np.sinc(position)
    kaiser = sinc * np.i0(5.0 * np.sqrt(1.0 - (position / half) ** 2))  # the window of scipy's resample_poly
    hann = sinc * np.where(np.abs(position) < 6, 1.0 + np.cos(np.pi * position / 6), 0.0)  # libebur128: 49 taps in all
    flat = np.concatenate([kaiser, hann])
    flat /= flat.sum(axis=1, keepdims=True)
    annex = np.array(ANNEX_2_TAPS)
    annex = np.concatenate([annex, annex[::-1, ::-1]])  # [4, 12]; the filter is symmetric
    return np.concatenate([flat, np.pad(annex, ((0, 0), (4, 4)))]).astype(np.float32)


def _peak_db(peaks: Waveform) -> float | None:
    top = float(peaks.max(initial=0.0))
    return 20.0 * math.log10(top) if top > 0.0 else None


def _ratio(decibels: float) -> float:
    return float(10.0 ** (decibels / 20.0))


# -- to a peak --------------------------------------------------------------------------------------------------------


def _to_peak(waveform: Waveform, sample_rate: int, config: OutputConfig, *, before: Loudness) -> Normalized:
    peak = -math.inf if before.true_peak is None else before.true_peak
    gain_db = config.true_peak - peak
    audible = config.normalize == "peak" and peak > SILENCE_DBTP
    if not audible:
        # Nothing to hear, yet it may peak: a sine of 1 Hz is silence to the gate at any level.
        gain_db = min(gain_db - METER_MARGIN_DB, 0.0)
    if gain_db == 0.0:
        return Normalized(waveform, before, before, 0.0, limited=False, reached=audible)
    scaled = (waveform * _ratio(gain_db)).astype(np.float32)
    return Normalized(scaled, before, measure(scaled, sample_rate), gain_db, limited=False, reached=audible)


# -- to a loudness ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    """What came of one gain; `lufs` is -inf where nothing passed the gate."""

    gain_db: float
    waveform: Waveform
    limited: bool
    lufs: float


def _to_loudness(
    waveform: Waveform, sample_rate: int, config: OutputConfig, *, before: Loudness, peaks: Waveform
) -> Normalized:
    hop = max(1, round(CONTROL * sample_rate))
    blocks = _block_peaks(peaks, hop)

    def trial(gain_db: float, threshold: float) -> _Trial:
        reduction = _reduction(blocks + (gain_db - threshold), sample_rate / hop)
        gain = _between(10.0 ** ((gain_db - reduction) / 20.0), hop, waveform.shape[1])
        result = (waveform * gain).astype(np.float32)
        lufs = _integrated(result, sample_rate)
        return _Trial(gain_db, result, bool(reduction.any()), -math.inf if lufs is None else lufs)

    ceiling = config.true_peak - METER_MARGIN_DB
    threshold, start = ceiling, config.lufs - (before.lufs or 0.0)
    most = start + MAKE_UP_DB
    for _ in range(MAX_ROUNDS):
        best = _search(partial(trial, threshold=threshold), start, most, config.lufs)
        after = Loudness(best.lufs, _peak_db(_true_peaks(best.waveform)))
        excess = (after.true_peak or 0.0) - ceiling
        if excess <= 0.0:
            break
        # The gain moves from sample to sample, so what lies between them can end a trace higher than the limiter meant.
        threshold, start = threshold - excess - 0.01, best.gain_db
    result, gain_db = best.waveform, best.gain_db
    if excess > 0.0:  # the ceiling holds, whatever the clip
        gain_db -= excess
        result = (result * _ratio(-excess)).astype(np.float32)
        after = measure(result, sample_rate)
    elif best.lufs == -math.inf:
        after = Loudness(None, after.true_peak)
    reached = after.lufs is not None and abs(after.lufs - config.lufs) <= REACHED_LU
    return Normalized(result, before, after, gain_db, limited=best.limited, reached=reached)


def _search(trial: Callable[[float], _Trial], start: float, most: float, target: float) -> _Trial:
    """The gain, from `start` to at most `most`, that gives `target` LUFS; where none does, the least that comes close.

    Regula falsi with the Illinois rule: loudness rises with gain, ever less so as the limiter works.
    """
    near = trial(start)
    if abs(near.lufs - target) <= TOLERANCE_LU:
        return near
    sign = 1.0 if near.lufs < target else -1.0  # less gain is right where it lets quiet parts fall below the gate
    far = trial(most if sign > 0.0 else start - MAKE_UP_DB)
    goal = target
    if (target - far.lufs) * sign > 0.0:  # out of reach: do not drive the limiter harder than what still helps
        goal = far.lufs - sign * TOLERANCE_LU
    if (goal - near.lufs) * sign <= 0.0:
        return near
    best, wanted_near, wanted_far = far, goal - near.lufs, goal - far.lufs
    for _ in range(MAX_TRIALS):
        span = wanted_near - wanted_far
        share = wanted_near / span if math.isfinite(span) and span != 0.0 else 0.5
        middle = trial(near.gain_db + min(max(share, 0.05), 0.95) * (far.gain_db - near.gain_db))
        wanted = goal - middle.lufs
        best = min(best, middle, key=lambda one: abs(goal - one.lufs))
        if abs(wanted) <= TOLERANCE_LU:
            break
        if wanted * sign > 0.0:
            near, wanted_near, wanted_far = middle, wanted, wanted_far / 2.0
        else:
            far, wanted_far, wanted_near = middle, wanted, wanted_near / 2.0
    return best


def _block_peaks(peaks: Waveform, hop: int) -> NDArray[np.float64]:
    """Peaks [L] in dB, the largest of each block of `hop` samples: [M]."""
    padded = np.pad(peaks, (0, -len(peaks) % hop))
    # 1e-30 stands for zero: -600 dB, and no warning from log10
    return np.asarray(20.0 * np.log10(np.maximum(padded.reshape(-1, hop).max(axis=1), 1e-30), dtype=np.float64))


def _reduction(over: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Gain reduction in dB [M] of a look-ahead limiter, for peaks in dB over its threshold [M], `rate` times a second.

    Held around each peak, falling exponentially after it, then smoothed within the hold, so that the reduction at a
    peak is never less than the peak needs. One gain for all channels, so that the stereo image stays.
    """
    needed = np.maximum(over, 0.0)
    if not needed.any():
        return needed
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    width = max(1, round(LOOK_AHEAD * rate / 6))  # three boxes of 2 * width + 1, nearly a Gaussian, reach 3 * width
    held = maximum_filter1d(needed, 2 * (3 * width + 1) + 1)  # + 1: `_between` reaches into the next block
    # y[m] = max(x[m], decay * y[m - 1]) has no recursion as a logarithm: a running maximum of log x[m] + m / release.
    slope = np.arange(len(held)) / (RELEASE * rate)
    with np.errstate(divide="ignore"):
        held = np.exp(np.maximum.accumulate(np.log(held) + slope) - slope)
    for _ in range(3):
        held = uniform_filter1d(held, 2 * width + 1, mode="nearest")
    return np.asarray(held)


def _between(gain: NDArray[np.float64], hop: int, samples: int) -> NDArray[np.float64]:
    """A gain for each block [M] -> for each sample [L], on straight lines between the middles of the blocks."""
    middles = np.arange(len(gain)) * hop + (hop - 1) / 2
    return np.interp(np.arange(samples), middles, gain)
