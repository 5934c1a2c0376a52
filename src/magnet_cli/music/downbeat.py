"""Where a loop begins: on the first beat of a bar.

A decoded loop is a circle that may begin anywhere, so it can be turned without any loss. The beats are where the onsets
lie at the measured tempo. The first of a bar is where kick drum and bass play, and where the harmony changes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio.blocks import Waveform
from magnet_cli.music.onsets import Onsets
from magnet_cli.music.tempo import Tempo

BEATS = 4  # in a bar
EARLY, LATE = 0.030, 0.030  # seconds around a beat within which its attack lies
RISE = 0.002  # seconds over which the power is averaged to find the attack
BEFORE = 0.002  # seconds before the attack with which the loop begins, so that a player's start does not cut it


def downbeat(waveform: Waveform, sample_rate: int, onsets: Onsets, tempo: Tempo) -> int:
    """The sample of a loop [C, L] at which its first bar begins. onsets, tempo: those of the loop."""
    moments = len(onsets.strength)
    count = max(round(tempo.bpm / 60 * moments / onsets.rate), 1)
    beats = beat_moments(onsets.strength, count)
    first = beats[first_beat(onsets, beats)]
    return attack(waveform, sample_rate, round(first * waveform.shape[1] / moments))


def beat_moments(strength: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """`count` evenly spaced beats on the circle of onsets [M], where these are strongest. int64 [count]."""
    moments = len(strength)
    offsets = np.round(np.arange(count) * moments / count).astype(np.int64)
    blurred = 0.25 * np.roll(strength, 1) + 0.5 * strength + 0.25 * np.roll(strength, -1)
    phases = np.arange(-(-moments // count))
    fits = blurred[(phases[:, None] + offsets) % moments].mean(axis=1)
    return np.asarray((int(np.argmax(fits)) + offsets) % moments)


def first_beat(onsets: Onsets, beats: NDArray[np.int64]) -> int:
    """Which of the beats begins a bar: the one of four with the most bass and change, in the bar with the most."""
    moments, count = len(onsets.strength), len(beats)
    near = (beats[:, None] + np.arange(-2, 3)) % moments
    length = max(moments // count, 1)
    levels = onsets.spectrum[(beats[:, None] + np.arange(length)) % moments].mean(axis=1)  # [beats, N]
    # Between whole bars, drums that repeat cancel out, and what is left is the change of harmony.
    after = np.mean([np.roll(levels, -beat, axis=0) for beat in range(min(BEATS, count))], axis=0)
    change = np.abs(after - np.roll(after, BEATS, axis=0)).mean(axis=1)
    weight = _share(onsets.bass[near].max(axis=1)) + 0.25 * _share(onsets.strength[near].max(axis=1)) + _share(change)
    if count % BEATS == 0:
        place = int(np.argmax(weight.reshape(-1, BEATS).mean(axis=0)))
        bar = int(np.argmax(weight[place::BEATS]))
        return place + BEATS * bar
    return int(np.argmax(weight))


def attack(waveform: Waveform, sample_rate: int, near: int) -> int:
    """The sample just before the attack around `near`: a quiet one, so that a player's start does not click."""
    length = waveform.shape[1]
    span = max(round(RISE * sample_rate), 1)
    start = near - round(EARLY * sample_rate)
    places = (start + np.arange(-span, round((EARLY + LATE) * sample_rate) + span)) % length
    power = (waveform[:, places].astype(np.float64) ** 2).mean(axis=0)
    total = np.concatenate([[0.0], np.cumsum(power)])
    mean = (total[span:] - total[:-span]) / span
    grows = np.log((mean[span:] + 1e-9) / (mean[:-span] + 1e-9)) * np.sqrt(mean[span:])
    begin = start + int(np.argmax(grows)) - round(BEFORE * sample_rate)
    quiet = (begin + np.arange(-span, 1)) % length
    return int(quiet[np.argmin(np.abs(waveform[:, quiet]).sum(axis=0))])


def _share(values: NDArray[np.float64]) -> NDArray[np.float64]:
    top = values.max(initial=0.0)
    return values / top if top > 0 else values
