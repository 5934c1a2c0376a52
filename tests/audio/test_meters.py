"""The filters of true peak against plain convolution, and what measuring costs."""

from __future__ import annotations

import numpy as np
import pytest

from magnet_cli.audio import limiter, loudness, meters
from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.loudness import measure, normalize
from magnet_cli.options.output import OutputConfig

RATE = 32_000


def noise(samples: int, channels: int = 1) -> Waveform:
    return np.random.default_rng(samples).standard_normal((channels, samples)).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 2, 9, 20, 21, meters.PRODUCT - 19, meters.PRODUCT, 3 * meters.PRODUCT + 7])
def test_the_filters_are_plain_convolutions(samples: int) -> None:
    (channel,) = noise(samples)
    kernels = meters._kernels()
    wanted = np.max([np.abs(np.convolve(channel.astype(np.float64), kernel)) for kernel in kernels], axis=0)
    found = meters._largest_between(channel, kernels)
    # 20 products in float32, each rounded by up to 2^-24 of at most 1 in 5 of the result
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 2e-6 * wanted.max()


def test_a_product_is_too_small_for_threads_of_the_library() -> None:
    """OpenBLAS computes on the calling thread up to 2^18 multiplications."""
    assert meters._kernels().size * meters.PRODUCT <= 1 << 18


def test_a_loud_clip_is_searched_once_and_its_peaks_found_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what the limiter knows already nor the rounding of a peak at its threshold costs another search."""
    found: list[int] = []
    true_peaks = meters.true_peaks

    def count(waveform: Waveform, *, multiple: int = 1) -> object:
        found.append(waveform.shape[1])
        return true_peaks(waveform, multiple=multiple)

    for module in (meters, limiter):
        monkeypatch.setattr(module, "true_peaks", count)
    # A tone that swells ten times: its peaks need the limiter, and it moves too slowly for anything between samples.
    seconds = np.arange(2 * RATE) / RATE
    swelling = np.sin(2 * np.pi * 440 * seconds) * np.sin(2 * np.pi * 2.5 * seconds) ** 8
    for level in np.geomspace(0.1, 0.3, 9):
        found.clear()
        result = normalize((level * swelling)[None].astype(np.float32), RATE, OutputConfig(lufs=-8))
        assert result.limited
        assert found == [2 * RATE] * 2, level
        assert result.after.true_peak == pytest.approx(-1.0 - loudness.METER_MARGIN_DB, abs=2e-4)


@pytest.mark.parametrize("kind", ["loudness", "peak", "none"])
def test_what_comes_in_is_measured_as_by_the_meter(kind: str) -> None:
    waveform = 0.1 * noise(RATE, channels=2)
    before = normalize(waveform, RATE, OutputConfig(normalize=kind)).before  # type: ignore[arg-type]
    assert before == measure(waveform, RATE)
