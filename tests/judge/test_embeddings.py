"""Embeddings of the spectrum."""

from __future__ import annotations

import numpy as np
import pytest

from magnet_cli.errors import UsageError
from magnet_cli.judge.embeddings import spectrum_embeddings

RATE = 32_000


def noise(seconds: float, channels: int = 1) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal((channels, round(seconds * RATE))).astype(np.float32)


def test_one_for_each_whole_second_of_at_most_a_minute() -> None:
    assert spectrum_embeddings(noise(3.7), RATE).shape == (3, 44)
    assert len(spectrum_embeddings(noise(65.0), RATE)) == 60
    with pytest.raises(UsageError, match="shorter than a second"):
        spectrum_embeddings(noise(0.9), RATE)


def test_level_and_channels_make_no_difference() -> None:
    sound = noise(2.0)
    one = spectrum_embeddings(sound, RATE)
    assert np.allclose(spectrum_embeddings(0.1 * sound, RATE), one, atol=1e-4)
    assert np.allclose(spectrum_embeddings(np.concatenate([sound, sound]), RATE), one, atol=1e-4)
    assert not spectrum_embeddings(np.zeros_like(sound), RATE).any()
