"""Any sample rate to any other: in bounded memory, and without hearing it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio

from magnet_cli.audio.resampling import FINE, check_rate, resample
from magnet_cli.audio.splicing import prepare
from magnet_cli.errors import UsageError
from magnet_cli.model.config import RELEASED_CODEC
from support.memory import run_within

ODD = [(44_101, 32_000), (47_999, 16_000), (96_001, 32_000), (11_127, 32_000), (31_999, 32_000), (32_000, 44_101)]


def sweep(rate: int, seconds: float, top: float) -> np.ndarray:
    """A sine that rises from 20 Hz to `top`, at half of full scale: float64 [L]."""
    t = np.arange(int(rate * seconds)) / rate
    return 0.5 * np.sin(2 * np.pi * (20 * t + (top - 20) * t**2 / (2 * seconds)))


@pytest.mark.parametrize(("before", "after"), ODD)
def test_a_sweep_at_an_odd_rate_is_the_same_sweep_at_another(before: int, after: int) -> None:
    top = 0.9 * min(before, after) / 2
    found = resample(sweep(before, 1.0, top).astype(np.float32)[None], before, after)
    wanted = sweep(after, 1.0, top)
    assert found.dtype == np.float32
    assert found.shape == (1, after)
    inner = slice(after // 20, -after // 20)  # a filter knows nothing of what comes before the beginning
    noise = found[0][inner] - wanted[inner]
    assert 10 * np.log10((wanted[inner] ** 2).mean() / (noise**2).mean()) > 90


@pytest.mark.parametrize(("before", "after"), [(44_101, 32_000), (96_001, 16_000)])
def test_what_is_too_high_for_the_new_rate_does_not_fold_back(before: int, after: int) -> None:
    t = np.arange(before) / before
    high = np.sin(2 * np.pi * 0.56 * after * t).astype(np.float32)  # 1.12 of the new Nyquist frequency
    found = resample(high[None], before, after)[0]
    assert np.abs(found[after // 20 : -after // 20]).max() < 1e-4  # -80 dB: the window's side lobes, at their highest


@pytest.mark.parametrize("before", [8_000, 11_025, 22_050, 44_100, 48_000, 88_200, 96_000, 192_000, 768_000])
@pytest.mark.parametrize("after", [16_000, 32_000])
def test_the_usual_rates_keep_what_torchaudio_makes_of_them(before: int, after: int) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 4_001)).astype(np.float32)
    wanted = torchaudio.functional.resample(torch.from_numpy(noise), before, after).numpy()
    assert np.array_equal(resample(noise, before, after), wanted)


def test_channels_and_constants_stay_what_they_are() -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 30_000).astype(np.float32)
    found = resample(np.stack([noise, np.ones_like(noise), -noise]), 44_101, 32_000)
    assert np.array_equal(found[0], -found[2])
    assert np.abs(found[1, 100:-100] - 1).max() < 1e-6  # float32: each row of the filter adds up to 1


@pytest.mark.parametrize("samples", [0, 1, 2, 63])
def test_a_few_samples_have_the_length_that_they_should(samples: int) -> None:
    assert resample(np.ones((1, samples), dtype=np.float32), 44_101, 32_000).shape == (
        1,
        -(-samples * 32_000 // 44_101),
    )


@pytest.mark.parametrize("rate", [-1, 0, 1, 999, 768_001, 1 << 31])
def test_a_rate_that_no_audio_has_is_refused(rate: int) -> None:
    for call in (
        lambda: check_rate(rate),
        lambda: resample(np.zeros((1, 4_000), dtype=np.float32), rate, 32_000),
        lambda: prepare(np.ones((1, 4_000), dtype=np.float32), rate, RELEASED_CODEC),
    ):
        with pytest.raises(UsageError, match=rf"a sample rate of {rate} Hz is not possible"):
            call()


@pytest.mark.parametrize("rate", [44_101, 47_999, 96_001, 11_127, 767_999])
def test_an_odd_rate_takes_no_more_memory_than_another(rate: int) -> None:
    done = run_within(
        250,
        "import numpy as np; from magnet_cli.audio.resampling import resample",
        f"print(resample(np.ones((1, {rate} // 2), dtype=np.float32), {rate}, 32_000).shape)",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"(1, {-(-(rate // 2) * 32_000 // rate)})"


# -- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [44_100, 48_000])
@pytest.mark.parametrize("hertz", [100, 1_000, 10_000, 13_500])
def test_the_fine_filter_keeps_a_sine_and_adds_no_image(target: int, hertz: int) -> None:
    """Images lie at 32,000 Hz minus the sine's own frequency: 18.5 kHz is well within 44,100 Hz."""
    before = np.sin(2 * np.pi * hertz * np.arange(32_000) / 32_000)[None].astype(np.float32)
    found = resample(before, 32_000, target, FINE)
    exact = np.sin(2 * np.pi * hertz * np.arange(target) / target)[None]
    inside = slice(2_000, -2_000)
    error = 20 * np.log10(np.abs(found - exact)[:, inside].max())
    assert error < -85  # measured: -90 dB or less; torchaudio's default has -14 dB at 13.5 kHz, -62 dB at 100 Hz


def test_the_usual_filter_stays_as_it_is() -> None:
    import torch
    import torchaudio

    noise = np.random.default_rng(0).standard_normal((2, 4_410)).astype(np.float32)
    plain = torchaudio.functional.resample(torch.from_numpy(noise), 44_100, 32_000).numpy()
    assert np.array_equal(resample(noise, 44_100, 32_000), plain)
