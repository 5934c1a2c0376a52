"""Embeddings of sounds that need no trained weights: what the spectrum of each second is like.

They are compared as a set, by the distances of `judge.distances`. A distance of these embeddings is not the published
Fréchet audio distance, whose encoder is VGGish: it shows how alike the spectra of two sets of clips are, and no more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.resampling import resample
from magnet_cli.errors import UsageError
from magnet_cli.music.onsets import find_onsets

RATE = 16_000  # Hz, to which every sound is brought, so that no file differs by its rate alone
SECONDS = 1.0  # of the sound in one embedding
LONGEST = 60.0  # seconds of a clip that are embedded


def spectrum_embeddings(waveform: Waveform, sample_rate: int) -> NDArray[np.float64]:
    """An embedding for each whole second of a waveform [C, L], float64 [N, D]; D is the same for all sounds.

    The logarithmic level of each band, a third of an octave wide and relative to the loudest moment of the sound: its
    mean over the second, and its standard deviation.

    Raises: UsageError for less than a second.
    """
    heard = waveform[:, : round(LONGEST * sample_rate)].mean(axis=0, keepdims=True, dtype=np.float64)
    sound = resample(heard.astype(np.float32), sample_rate, RATE)
    onsets = find_onsets(sound, RATE, loop=False)
    each = round(SECONDS * onsets.rate)
    count = len(onsets.spectrum) // each
    if count < 1:
        raise UsageError(f"a clip of {sound.shape[1] / RATE:.2f} s is shorter than a second", "Give a longer clip")
    seconds = onsets.spectrum[: count * each].reshape(count, each, -1)
    return np.concatenate([seconds.mean(axis=1), seconds.std(axis=1)], axis=1)
