"""What a picture shows of a waveform is what is in it."""

from __future__ import annotations

import numpy as np
import pytest

from magnet_cli.pictures import mel as module
from magnet_cli.pictures.mel import BANDS, hertz, mel, mel_spectrogram, outline


def sine(frequency: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate).astype(np.float32)[None]


@pytest.mark.parametrize("rate", [16_000, 32_000, 44_100])
@pytest.mark.parametrize("frequency", [60.0, 440.0, 1_000.0, 5_000.0])
def test_a_sine_at_full_scale_is_loudest_in_its_own_band(rate: int, frequency: float) -> None:
    found = mel_spectrogram(sine(frequency, rate), rate, columns=100)
    middle = found.levels[:, 5:-5].mean(axis=1)
    band = int(middle.argmax())
    assert found.edges[band - 1] <= frequency <= found.edges[band + 2]
    # A band takes the power of the bins around the sine: of a window of Hann, 1.5 times that of the middle one.
    assert middle[band] == pytest.approx(0.0, abs=2.5)


def test_silence_is_at_the_floor_and_has_no_warning() -> None:
    found = mel_spectrogram(np.zeros((2, 100), np.float32), 32_000, columns=1000)
    assert found.levels.shape == (BANDS, 1)
    assert (found.levels == -120.0).all()


def test_time_runs_to_the_right_and_channels_count_alike() -> None:
    sound = np.zeros((2, 32_000), np.float32)
    sound[1, 24_000:] = 0.5 * sine(440, 32_000)[0, :8_000]
    loud = mel_spectrogram(sound, 32_000, columns=40).levels.max(axis=0)
    assert loud[:27].max() < -100
    assert loud[32:38].min() > -12


def test_columns_of_a_long_waveform_are_means_however_many_windows_are_computed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (1, 200_000)).astype(np.float32)
    whole = mel_spectrogram(noise, 32_000, columns=50)
    monkeypatch.setattr(module, "AT_ONCE", 7)
    again = mel_spectrogram(noise, 32_000, columns=50)
    assert whole.levels.shape == (BANDS, 50)
    np.testing.assert_allclose(again.levels, whole.levels, atol=1e-3)  # sums in another order


def test_no_band_is_empty() -> None:
    noise = np.random.default_rng(2).normal(0, 0.1, (1, 48_000)).astype(np.float32)
    for rate in (16_000, 48_000, 96_000):
        assert mel_spectrogram(noise, rate, columns=10).levels.min() > -80


def test_the_mel_scale_is_that_of_its_definition() -> None:
    assert float(mel(1_000.0)) == pytest.approx(1_000.0, abs=0.1)  # by which it is defined
    np.testing.assert_allclose(hertz(mel(np.array([30.0, 440.0, 16_000.0]))), [30.0, 440.0, 16_000.0])


def test_the_outline_has_every_peak() -> None:
    sound = np.zeros((2, 1_003), np.float32)
    sound[0, 500], sound[1, 1_002] = 0.9, -0.7
    lowest, highest = outline(sound, columns=100)
    assert len(lowest) == 100
    assert highest.max() == np.float32(0.9)
    assert lowest[-1] == np.float32(-0.7)
    assert len(outline(sound[:, :3], columns=100)[0]) == 3
