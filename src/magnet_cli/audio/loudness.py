"""Measure the loudness and true peak of a waveform, and bring both to a target.

Loudness is the integrated, gated loudness of ITU-R BS.1770-4; true peak is its annex 2, read strictly.
Waveforms are numpy arrays [C, L] of floats, full scale at 1.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio import blocks
from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.limiter import Limiter
from magnet_cli.audio.meters import LoudnessMeter, dbtp, integrated, true_peak
from magnet_cli.errors import NumericsError, UsageError
from magnet_cli.options.output import OutputConfig

REACHED_LU = 0.5  # a clip this close to the target counts as there; EBU R 128 allows live programmes as much as 1 LU
TOLERANCE_LU = 0.1  # the search for a gain stops here, well below the 1 LU or so that listeners notice
# Gain beyond the difference in loudness, to compensate for the limiter. 12 dB more into a limiter already change the
# sound; a clip that is still too quiet then would hardly become louder with more.
MAKE_UP_DB = 12.0
MAX_TRIALS = 8  # trials of a gain in one search; 3 to 5 is usual
MAX_ROUNDS = 3  # searches, each with the limiter's threshold a little lower; 1 is usual

# Distance from the ceiling. `meters` has the filters of the usual meters, so the remaining differences are rounding to
# float32, and scipy's resample_poly, which reads a single sample 0.006 dB high.
METER_MARGIN_DB = 0.02
# A peak that the limiter lowers ends at its threshold but for rounding to float32, half of the time above it. Without
# this tolerance, rounding would decide whether the search is repeated.
ROUNDING_DB = 1e-4

# An offset below this share of the peak costs less than 0.1 dB of room; real codecs stay far below it.
OFFSET = 0.01

SILENCE_DBTP = -90.3  # one step of 16 bits: a clip that never exceeds it is not amplified to a given peak


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


@contextmanager
def importing_meters() -> Iterator[None]:
    """Import what the functions below use, which takes most of a second, in a thread beside the block.

    The thread has ended when the block has: a process that forked while it ran could not import anything.
    """
    if "pyloudnorm" in sys.modules:
        yield
        return
    thread = threading.Thread(target=_import_meters)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _import_meters() -> None:
    with suppress(ImportError):  # reported by the function that needs it
        import pyloudnorm  # noqa: F401
        import scipy.ndimage
        import scipy.signal  # noqa: F401


def measure(waveform: NDArray[Any], sample_rate: int) -> Loudness:
    """Integrated loudness and true peak.

    `waveform` is float [C, L], C from 1 to 5. A clip shorter than the gating block of 400 ms is measured as one block
    of its own length. Source: ITU-R BS.1770-4.
    Raises: NumericsError for values that are not finite.
    """
    checked = _checked(waveform)
    return Loudness(integrated(checked, sample_rate), true_peak(checked))


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
    if config.normalize in ("auto", "loudness"):
        lufs, limiter = integrated(checked, sample_rate), Limiter.of(checked, sample_rate)
        before = Loudness(lufs, dbtp(limiter.top))  # the limiter has found the true peak, which takes long
        if lufs is not None:
            return _to_loudness(checked, sample_rate, config, before=before, limiter=limiter)
        return _to_peak(checked, sample_rate, config, before=before)
    before = measure(checked, sample_rate)
    if config.normalize == "none":
        return Normalized(checked, before, before, 0.0, limited=False, reached=True)
    return _to_peak(checked, sample_rate, config, before=before)


def remove_offset(waveform: NDArray[Any], sample_rate: int) -> NDArray[Any]:
    """A waveform [C, L] without each channel's constant offset, which is inaudible but uses the room below a ceiling.

    What counts is a mean of more than OFFSET of the peak that is there at both ends, too. A slow swell has a mean as
    well, and taking that away would make a click of the silence around it.
    """
    if waveform.size == 0 or not blocks.is_finite(waveform):
        return waveform
    edge = max(1, round(0.050 * sample_rate))
    offset, first, last = (
        part.mean(axis=1, keepdims=True, dtype=np.float64)
        for part in (waveform, waveform[:, :edge], waveform[:, -edge:])
    )
    constant = (np.abs(first - offset) < np.abs(first)) & (np.abs(last - offset) < np.abs(last))
    offset[~constant | (np.abs(offset) <= OFFSET * blocks.peak(waveform))] = 0.0
    if not offset.any():
        return waveform
    result = blocks.empty(waveform.shape, waveform.dtype)
    for part in blocks.spans(waveform.shape[1]):
        result[:, part] = waveform[:, part] - offset
    return result


def trim(waveform: NDArray[Any], sample_rate: int, duration: float | None) -> NDArray[Any]:
    """The first `duration` seconds of a waveform [C, L], faded over the last 10 ms (or all of it, if that is less).

    None, or exactly the length of the clip, returns the waveform as it is.
    Raises: UsageError when the clip is shorter.
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
    kept = blocks.copy(waveform[:, :keep])
    fade = min(round(0.010 * sample_rate), keep)
    # A raised cosine has no corner at either end; the last sample is zero, so that what follows does not click.
    kept[..., keep - fade :] *= (0.5 + 0.5 * np.cos(np.pi * np.arange(1, fade + 1) / fade)).astype(kept.dtype)
    return kept


# -- parts ------------------------------------------------------------------------------------------------------------


def _checked(waveform: NDArray[Any]) -> Waveform:
    if waveform.ndim != 2 or not 1 <= waveform.shape[0] <= 5 or not np.issubdtype(waveform.dtype, np.floating):
        raise ValueError(f"a waveform is floats [C, L] with C from 1 to 5, not {waveform.dtype} {waveform.shape}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is reported below
        checked = waveform.astype(np.float32, copy=False)
    if not blocks.is_finite(checked):
        bad = sum(int(np.count_nonzero(~np.isfinite(checked[:, part]))) for part in blocks.spans(checked.shape[1]))
        raise NumericsError(
            f"{bad} of {checked.size} samples of the waveform are not finite",
            "Try another seed; if every clip fails, fetch the model again",
        )
    return checked


def _scaled(waveform: Waveform, decibels: float) -> Waveform:
    result, ratio = blocks.empty(waveform.shape), _ratio(decibels)
    for part in blocks.spans(waveform.shape[1]):
        result[:, part] = waveform[:, part] * ratio
    return result


def _ratio(decibels: float) -> float:
    return float(10.0 ** (decibels / 20.0))


# -- to a peak --------------------------------------------------------------------------------------------------------


def _to_peak(waveform: Waveform, sample_rate: int, config: OutputConfig, *, before: Loudness) -> Normalized:
    peak = -math.inf if before.true_peak is None else before.true_peak
    gain_db = config.true_peak - peak
    audible = config.normalize == "peak" and peak > SILENCE_DBTP
    if not audible:
        # Inaudible, yet it may have peaks: a sine of 1 Hz is silence to the gate at any level.
        gain_db = min(gain_db - METER_MARGIN_DB, 0.0)
    if gain_db == 0.0:
        return Normalized(waveform, before, before, 0.0, limited=False, reached=audible)
    scaled = _scaled(waveform, gain_db)
    return Normalized(scaled, before, measure(scaled, sample_rate), gain_db, limited=False, reached=audible)


# -- to a loudness ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    """The result of one gain; `lufs` is -inf if nothing passed the gate."""

    gain_db: float
    limited: bool
    lufs: float


def _to_loudness(
    waveform: Waveform, sample_rate: int, config: OutputConfig, *, before: Loudness, limiter: Limiter
) -> Normalized:
    def trial(gain_db: float, threshold: float) -> _Trial:
        meter, limited = LoudnessMeter(waveform.shape, sample_rate), False
        for _, block, lowered in _limited(waveform, limiter, gain_db, threshold):
            meter.add(block)
            limited |= lowered
        lufs = meter.lufs()
        return _Trial(gain_db, limited, -math.inf if lufs is None else lufs)

    ceiling = config.true_peak - METER_MARGIN_DB
    threshold, start = ceiling, config.lufs - (before.lufs or 0.0)
    most = start + MAKE_UP_DB
    result = blocks.empty(waveform.shape)
    for _ in range(MAX_ROUNDS):
        best = _search(partial(trial, threshold=threshold), start, most, config.lufs)
        for part, block, _ in _limited(waveform, limiter, best.gain_db, threshold):
            result[:, part] = block
        after = Loudness(best.lufs, true_peak(result))
        excess = (after.true_peak or 0.0) - ceiling
        if excess <= ROUNDING_DB:
            break
        # The gain moves from sample to sample, so what lies between them can end a trace higher than the limiter meant.
        threshold, start = threshold - excess - 0.01, best.gain_db
    gain_db = best.gain_db
    if excess > ROUNDING_DB:  # the ceiling holds, whatever the clip
        gain_db -= excess
        result = _scaled(result, -excess)
        after = measure(result, sample_rate)
    elif best.lufs == -math.inf:
        after = Loudness(None, after.true_peak)
    reached = after.lufs is not None and abs(after.lufs - config.lufs) <= REACHED_LU
    return Normalized(result, before, after, gain_db, limited=best.limited, reached=reached)


def _limited(
    waveform: Waveform, limiter: Limiter, gain_db: float, threshold: float
) -> Iterator[tuple[slice, Waveform, bool]]:
    """A waveform amplified by `gain_db`, its true peaks at `threshold` (dB): block after block, see `Limiter.gains`."""
    for part, gain, lowered in limiter.gains(gain_db, threshold):
        yield part, (waveform[:, part] * gain).astype(np.float32), lowered


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
    if (target - far.lufs) * sign > 0.0:  # out of reach: do not drive the limiter harder than helps
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
