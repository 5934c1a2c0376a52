"""The exact period of a loop."""

from __future__ import annotations

import numpy as np

from magnet_cli.audio.blocks import Waveform


def fit_period(waveform: Waveform, samples: int) -> Waveform:
    """One period of a sound, resampled to last `samples`. [C, L] -> [C, samples].

    The Fourier series of the period is resampled, so that the end still meets the beginning. A filter would open it.
    """
    length = waveform.shape[-1]
    if samples == length:
        return waveform
    series = np.fft.rfft(waveform.astype(np.float64), axis=-1)
    kept = (min(samples, length) - 1) // 2 + 1  # without the middle frequency, which has no phase
    return np.asarray(np.fft.irfft(series[..., :kept], n=samples, axis=-1) * (samples / length), dtype=np.float32)
