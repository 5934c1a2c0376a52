"""What a mixing desk adds: room, sidechain, compression, loudness."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

Floats = NDArray[np.float64]
BLOCK = 0.01  # seconds between values of a level


@lru_cache(maxsize=16)
def _room(seconds: float, rate: int) -> Floats:
    """An impulse response whose sound falls by 60 dB in `seconds`, high frequencies sooner."""
    length = int(seconds * rate)
    time = np.arange(length) / rate
    noise = np.random.default_rng(round(1000 * seconds)).normal(size=length)
    low = np.convolve(noise, np.ones(4) / 4, "same")
    wave = low * np.exp(-6.9 * time / seconds) + 0.5 * (noise - low) * np.exp(-14 * time / seconds)
    wave[: int(0.012 * rate)] = 0  # the first reflection is late enough not to colour the sound
    return wave / np.sqrt((wave**2).sum())


def reverberate(wave: Floats, seconds: float, amount: float, rate: int) -> Floats:
    """The sound in a room."""
    if amount <= 0:
        return wave
    return wave + amount * fftconvolve(wave, _room(seconds, rate))[: len(wave)]


def amplify(wave: Floats, drive: float, rate: int) -> Floats:
    """An electric guitar's amplifier: all strings distorted together, through a loudspeaker of 90 to 4200 Hz."""
    loud = wave * (drive / (np.sqrt((wave**2).mean()) + 1e-9))
    return np.asarray(sosfilt(_speaker(rate), np.tanh(loud)))


@lru_cache(maxsize=2)
def _speaker(rate: int) -> Floats:
    return np.asarray(butter(2, (90, 4200), "bandpass", fs=rate, output="sos"))


def duck(wave: Floats, kicks: list[float], depth: float, rate: int) -> Floats:
    """Everything makes way for the bass drum: the sidechain of dance music."""
    gain = np.ones(len(wave))
    dip = 1 - depth * np.exp(-np.arange(int(0.35 * rate)) / (0.09 * rate))
    for kick in kicks:
        part = gain[round(kick * rate) :][: len(dip)]
        np.minimum(part, dip[: len(part)], out=part)
    return wave * gain


def compress(wave: Floats, ratio: float, rate: int) -> Floats:
    """Levels more than 6 dB above the average come nearer to it."""
    block = int(BLOCK * rate)
    count = len(wave) // block
    level = np.sqrt((wave[: count * block].reshape(count, block) ** 2).mean(axis=1) + 1e-9)
    smooth = np.convolve(np.pad(level, 2, "edge"), np.ones(5) / 5, "valid")
    threshold = 1.4 * np.sqrt((wave**2).mean() + 1e-9)
    gain = np.minimum(1, (smooth / threshold) ** (1 / ratio - 1))
    return wave * np.interp(np.arange(len(wave)), (np.arange(count) + 0.5) * block, gain)


def finish(wave: Floats, level: float, peak: float) -> Floats:
    """At this level, with single peaks rounded off at `peak`.

    The level is the RMS behind a filter that takes away up to 12 dB of bass, which ears count for less.
    """
    heard = lfilter([1, -0.9], [1, -0.6], wave)
    loud = wave * (level / (np.sqrt((heard**2).mean()) + 1e-9))
    highest = np.abs(loud).max() + 1e-9
    if highest > 1.6 * peak:
        loud = loud * (1.6 * peak / highest)
    knee = 0.6 * peak
    over = np.abs(loud) > knee
    loud[over] = np.sign(loud[over]) * (knee + (peak - knee) * np.tanh((np.abs(loud[over]) - knee) / (peak - knee)))
    return loud
