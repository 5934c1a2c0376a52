"""The audio of an edit: convert any file for the codec, and join decoded audio to the original.

Waveforms are numpy arrays [C, L] of floats, full scale at 1. Samples away from the seams never change: the decoded
audio is converted to the rate and channels of the original, and not the other way round.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from magnet_cli.audio import blocks
from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.reading import MOST_CHANNELS
from magnet_cli.audio.resampling import check_rate, resample
from magnet_cli.errors import MagnetWarning, UsageError
from magnet_cli.model.config import CodecConfig
from magnet_cli.options.regions import Region

SILENCE = 2.0**-16  # half a step of 16 bits
FADE = 0.030  # seconds of a cross-fade: longer than a period of the lowest notes, shorter than a beat of any music
RUN_IN = 1.0  # seconds encoded before what is wanted, so that the codec does not take its beginning for a sound's


def check_waveform(waveform: NDArray[Any], sample_rate: int, config: CodecConfig) -> Waveform:
    """The waveform as float32 [C, L]. Warns of silence.

    Raises: UsageError for an array that is no waveform, or is shorter than a frame.
    """
    audio = np.atleast_2d(np.asarray(waveform))
    if audio.ndim != 2 or not np.issubdtype(audio.dtype, np.floating) or not 1 <= audio.shape[0] <= MOST_CHANNELS:
        raise UsageError(
            f"a waveform is floats [C, L], not {audio.dtype} {list(audio.shape)}",
            f"Give floats with 1 to {MOST_CHANNELS} rows, one for each channel",
        )
    check_rate(sample_rate)
    if audio.shape[1] * config.sample_rate < config.hop * sample_rate:
        raise UsageError(f"{audio.shape[1]} samples at {sample_rate} Hz are less than one frame", "Give more audio")
    if not blocks.is_finite(audio):
        raise UsageError("the waveform has samples that are not finite", "Export it again")
    if blocks.peak(audio) < SILENCE:
        warnings.warn("the audio is silent, so it gives the model nothing to follow", MagnetWarning, stacklevel=2)
    return audio.astype(np.float32, copy=False)


def prepare(waveform: NDArray[Any], sample_rate: int, config: CodecConfig) -> torch.Tensor:
    """A waveform as the codec takes it: [C, L] or [L] at any rate -> [1, C, L] at the codec's rate and channels.

    Unless there are as many channels as the codec has, they are mixed to one, which becomes all of the codec's.
    Raises: UsageError as `check_waveform` does.
    """
    sound = check_waveform(waveform, sample_rate, config)
    return torch.from_numpy(conform(sound, sample_rate, config.sample_rate, channels=config.channels)).unsqueeze(0)


def prepare_ending(
    waveform: NDArray[Any], sample_rate: int, config: CodecConfig, *, keep: float
) -> tuple[torch.Tensor, int]:
    """What to encode for the last `keep` seconds: these and a little before them, prepared, and the frames to keep.

    The frames end where the input does, and a continuation begins with the codes of the last of them. `keep` is rounded
    down to whole frames; a shorter input is kept whole.
    Raises: UsageError for a `keep` or an input that is too short.
    """
    if not 0 < keep < math.inf:
        raise UsageError(f"the seconds to keep must be above 0, not {keep:g}", "Give e.g. --keep 3")
    sound = check_waveform(waveform, sample_rate, config)
    samples = int(sound.shape[1] * config.sample_rate / sample_rate)
    frames = min(int(keep * config.sample_rate / config.hop + 1e-6), samples // config.hop)
    if frames < 1:
        raise UsageError(f"{keep:g} s are less than one frame", "Keep more of the audio, e.g. --keep 3")
    wanted = min(frames + int(RUN_IN * config.frame_rate), samples // config.hop) * config.hop
    margin = sample_rate  # one second more, so that the beginning of the resampler's output is not used
    tail = sound[:, -(math.ceil(wanted * sample_rate / config.sample_rate) + margin) :]
    ready = conform(tail, sample_rate, config.sample_rate, channels=config.channels)
    return torch.from_numpy(np.ascontiguousarray(ready[:, -wanted:])).unsqueeze(0), frames


def conform(
    waveform: Waveform, sample_rate: int, target_rate: int, *, channels: int, samples: int | None = None
) -> Waveform:
    """A waveform [C, L] at another rate and with `channels`; cut or padded with silence to `samples`."""
    if waveform.shape[0] != channels:
        mixed = blocks.empty((channels, waveform.shape[1]))
        for part in blocks.spans(waveform.shape[1]):
            mixed[:, part] = waveform[:, part].mean(axis=0, keepdims=True)
        waveform = mixed
    waveform = resample(waveform, sample_rate, target_rate)
    if samples is not None:
        waveform = np.pad(waveform[:, :samples], ((0, 0), (0, max(samples - waveform.shape[1], 0))))
    return np.ascontiguousarray(waveform, dtype=np.float32)


# -- seams ------------------------------------------------------------------------------------------------------------


def cross_fade(before: Waveform, after: Waveform) -> Waveform:
    """From one sound into another of the same shape [C, L], at equal power throughout.

    Sine and cosine gains do that for sounds that are not correlated, but two versions of one sound would swell by up to
    3 dB in the middle. So the gains depend on the correlation of the two, and add up to 1 where they are the same.
    """
    length = before.shape[-1]
    angle = (np.arange(length) + 0.5) / max(length, 1) * np.pi / 2
    fall, rise = np.cos(angle), np.sin(angle)
    first, second = before.astype(np.float64), after.astype(np.float64)
    power = math.sqrt(float((first**2).sum()) * float((second**2).sum()))
    alike = min(max(float((first * second).sum()) / power, 0.0), 1.0) if power > 0 else 0.0
    level = np.sqrt(1 + 2 * alike * fall * rise)
    return np.asarray((first * fall + second * rise) / level, dtype=np.float32)


def join(before: Waveform, after: Waveform, *, kept: int, fade: int) -> Waveform:
    """Join `before` and `after`, which begins with another version of the last `kept` samples of `before`.

    [C, L] each, of the same rate and channels. `before` stays as it is up to the last `fade` samples, over which it
    fades into `after`. Returns [C, L_before + L_after - kept].
    Raises: UsageError for other channels, or fewer samples than `kept`.
    """
    if before.shape[0] != after.shape[0]:
        raise UsageError(
            f"{before.shape[0]} and {after.shape[0]} channels cannot be joined", "Conform one to the other"
        )
    if not 0 < kept <= min(before.shape[1], after.shape[1]):
        raise UsageError(
            f"sounds of {before.shape[1]} and {after.shape[1]} samples do not share {kept}", "Keep less of the first"
        )
    fade = min(fade, kept)
    end = before.shape[1] - fade
    joined = blocks.empty((before.shape[0], before.shape[1] + after.shape[1] - kept))
    joined[:, :end] = before[:, :end]
    joined[:, end : end + fade] = cross_fade(before[:, end:], after[:, kept - fade : kept])
    joined[:, end + fade :] = after[:, kept:]
    return joined


def blend(original: Waveform, new: Waveform, regions: Sequence[Region], *, sample_rate: int, fade: float) -> Waveform:
    """`new` within the regions, `original` outside of them, with cross-fades of `fade` seconds just outside each.

    [C, L] each, of the same rate and channels. `new` may be shorter or longer; it is used as far as both go. Outside
    the regions and the fades the result is `original`, sample for sample. There, `new` is another version of the same
    sound, so the two are alike in the fades. Regions closer than two fades share the time between them.
    """
    if original.shape[0] != new.shape[0]:
        raise UsageError(f"{original.shape[0]} and {new.shape[0]} channels cannot be mixed", "Conform one to the other")
    result, length = blocks.copy(original), min(original.shape[1], new.shape[1])
    spans = [region.samples(sample_rate) for region in regions]
    spans = [(min(first, length), min(end, length)) for first, end in spans]
    for number, (first, end) in enumerate(spans):
        result[:, first:end] = new[:, first:end]
        left = 0 if number == 0 else (spans[number - 1][1] + first) // 2
        right = length if number == len(spans) - 1 else (end + spans[number + 1][0]) // 2
        enter = slice(max(first - round(fade * sample_rate), left), first)
        leave = slice(end, min(end + round(fade * sample_rate), right))
        result[:, enter] = cross_fade(original[:, enter], new[:, enter])
        result[:, leave] = cross_fade(new[:, leave], original[:, leave])
    return result


def blend_loop(
    original: Waveform, new: Waveform, regions: Sequence[Region], *, sample_rate: int, fade: float
) -> Waveform:
    """`blend` of loops of the same length [C, L]: fades go across the seam."""
    length = original.shape[1]
    rounds = [
        Region(one.start + turn * length / sample_rate, one.end + turn * length / sample_rate)
        for turn in range(3)
        for one in regions
    ]
    three = [np.tile(sound, (1, 3)) for sound in (original, new)]
    mixed = blend(three[0], three[1], rounds, sample_rate=sample_rate, fade=fade)
    return np.ascontiguousarray(mixed[:, length : 2 * length])
