from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import pyloudnorm
import pytest
from scipy import signal

from magnet_cli.audio import loudness
from magnet_cli.audio.loudness import measure, normalize, remove_offset, trim
from magnet_cli.errors import NumericsError, UsageError
from magnet_cli.options.output import OutputConfig

RATE = 32_000


# -- meters of our own, for comparison --------------------------------------------------------------------------------


def lufs(waveform: np.ndarray, rate: int = RATE) -> float:
    """pyloudnorm with the filters of BS.1770; for clips of at least 400 ms."""
    return float(pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(waveform.T.astype(np.float64)))


def annex_2_peak(waveform: np.ndarray) -> float:
    """The 48 taps printed in BS.1770-4, annex 2, as one filter on the signal with three zeros after each sample."""
    half = [
        [0.0017089843750, -0.0291748046875, -0.0189208984375, -0.0083007812500],
        [0.0109863281250, 0.0292968750000, 0.0330810546875, 0.0148925781250],
        [-0.0196533203125, -0.0517578125000, -0.0582275390625, -0.0266113281250],
        [0.0332031250000, 0.0891113281250, 0.1015625000000, 0.0476074218750],
        [-0.0594482421875, -0.1665039062500, -0.2003173828125, -0.1022949218750],
        [0.1373291015625, 0.4650878906250, 0.7797851562500, 0.9721679687500],
    ]
    taps = np.array(half).ravel()
    taps = np.concatenate([taps, taps[::-1]])
    return float(np.abs(signal.upfirdn(taps, waveform.astype(np.float64), 4, axis=-1)).max())


def libebur128_peak(waveform: np.ndarray) -> float:
    """49-tap Hann-windowed sinc at 4 times the rate, which libebur128 uses."""
    taps = np.sinc((np.arange(49) - 24) / 4) * np.hanning(49)
    return float(np.abs(signal.upfirdn(taps, waveform.astype(np.float64), 4, axis=-1)).max())


def polyphase_peak(waveform: np.ndarray) -> float:
    return float(np.abs(signal.resample_poly(waveform.astype(np.float64), 4, 1, axis=-1)).max())


def fourier_peak(waveform: np.ndarray) -> float:
    return float(np.abs(signal.resample(waveform.astype(np.float64), 4 * waveform.shape[-1], axis=-1)).max())


METERS = {
    "sample": lambda waveform: float(np.abs(waveform).max()),
    "annex 2": annex_2_peak,
    "libebur128": libebur128_peak,
    "resample_poly": polyphase_peak,
    "resample": fourier_peak,
}


def decibels(ratio: float) -> float:
    return 20.0 * math.log10(ratio)


# -- material ---------------------------------------------------------------------------------------------------------


def hit(rng: np.random.Generator, kind: str) -> np.ndarray:
    t = np.arange(int(0.4 * RATE)) / RATE
    noise = rng.standard_normal(len(t))
    if kind == "kick":
        return np.sin(2 * np.pi * (50 * t + 4 * (1 - np.exp(-30 * t)))) * np.exp(-t / 0.12)
    if kind == "snare":
        return 0.5 * noise * np.exp(-t / 0.06) + 0.4 * np.sin(2 * np.pi * 190 * t) * np.exp(-t / 0.05)
    return 0.25 * np.diff(noise, prepend=0.0) * np.exp(-t / 0.015)


def drums(seed: int, seconds: float = 4.0) -> np.ndarray:
    """A beat with a crest (peak over loudness) of some 20 dB."""
    rng = np.random.default_rng(seed)
    beat = np.zeros(int(RATE * seconds))
    for step, start in enumerate(range(0, len(beat) - RATE // 2, RATE // 8)):
        sound = hit(rng, ["kick", "hat", "hat", "hat", "snare", "hat", "kick", "hat"][step % 8]) * rng.uniform(0.7, 1)
        beat[start : start + len(sound)] += 0.3 * sound
    return beat[None]


def tones(seed: int, seconds: float = 4.0) -> np.ndarray:
    """Stereo chords that swell and fade, over a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(RATE * seconds)) / RATE
    channels = 0.01 * rng.standard_normal((2, len(t)))
    for _ in range(12):
        swell = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.2, 3) * t)
        tone = np.sin(2 * np.pi * rng.uniform(50, 5000) * t + rng.uniform(0, 6)) * swell
        channels += 0.05 * rng.uniform(0.2, 1, (2, 1)) * tone
    return channels


def normal(seconds: float = 4.0) -> Iterator[tuple[str, np.ndarray]]:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        yield f"drums {seed}", drums(seed, seconds)
        yield f"tones {seed}", tones(seed, seconds)
        white = rng.standard_normal((1, int(RATE * seconds)))
        yield f"white {seed}", 0.1 * white
        yield f"pink {seed}", signal.lfilter(*signal.butter(1, 200, fs=RATE), white)


def hostile(samples: int = RATE) -> Iterator[tuple[str, np.ndarray]]:
    """What hides or raises peaks between samples, and what a limiter can stumble over."""
    n = np.arange(samples)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        yield f"signs {seed}", np.sign(rng.standard_normal((1, samples)))
        yield f"uniform {seed}", rng.uniform(-1, 1, (2, samples))
        clicks = np.zeros((1, samples))
        clicks[0, rng.integers(0, samples, 8)] = rng.choice([-1.0, 1.0], 8)
        yield f"clicks {seed}", clicks
        bursts = np.where((n // 3200) % 2, 1.0, 1e-3) * rng.standard_normal(samples)
        yield f"bursts {seed}", bursts[None]
        yield f"square {seed}", np.sign(np.sin(2 * np.pi * rng.uniform(0.001, 0.1) * n + 0.1))[None]
        yield f"high sine {seed}", np.sin(2 * np.pi * rng.uniform(0.2, 0.49) * n + rng.uniform(0, 6))[None]
    yield "fs/4", np.sin(2 * np.pi * n / 4 + np.pi / 4)[None]  # every sample 3 dB below the peak
    yield "fs/6", np.sin(2 * np.pi * n / 6 + np.pi / 6)[None]
    yield "near Nyquist", np.sin(2 * np.pi * 0.499 * n)[None]
    yield "alternating", ((-1.0) ** n)[None]
    yield "chirp", signal.chirp(n / RATE, 20, samples / RATE, RATE / 2)[None]
    yield "dc", np.full((1, samples), 0.5)
    yield "click", np.eye(1, samples, samples // 2)
    yield "click at the start", np.eye(1, samples, 0)
    yield "click at the end", np.eye(1, samples, samples - 1)
    yield "full square", np.where((n // 50) % 2, 1.0, -1.0)[None]


# -- measuring --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "tolerance"), [(48_000, 0.005), (32_000, 0.02), (16_000, 0.05)])
def test_a_full_scale_sine_reads_what_the_standard_says(rate: int, tolerance: float) -> None:
    # BS.1770-4, annex 1: -3.01 LUFS. Its filters are defined at 48 kHz; at lower rates their shelf is bent a little.
    sine = np.sin(2 * np.pi * 997 * np.arange(5 * rate) / rate)[None]
    measured = measure(sine, rate)
    assert measured.lufs == pytest.approx(-3.01, abs=tolerance)
    # 0.2 dB: its cut-off ends ring
    assert measured.true_peak == pytest.approx(0.0, abs=0.2)


def test_two_channels_are_3_db_louder_than_one() -> None:
    one = tones(0)[:1]
    both = np.concatenate([one, one])
    # the sum of two equal powers: 10 log10(2) = 3.0103
    assert measure(both, RATE).lufs == pytest.approx((measure(one, RATE).lufs or 0) + 3.0103, abs=1e-4)


def test_loudness_is_that_of_pyloudnorm() -> None:
    for name, waveform in normal():
        # 1e-4: rounding to float32
        assert measure(waveform, RATE).lufs == pytest.approx(lufs(waveform), abs=1e-4), name


@pytest.mark.parametrize("samples", [200, 3_200, 12_799])
def test_a_clip_below_400_ms_is_one_block_of_its_length(samples: int) -> None:
    waveform = 0.1 * np.random.default_rng(0).standard_normal((1, samples))
    meter = pyloudnorm.Meter(RATE, filter_class="DeMan")
    weighted = waveform[0]
    for stage in meter._filters.values():
        weighted = stage.apply_filter(weighted)
    expected = -0.691 + 10 * np.log10(np.mean(weighted**2))
    # pyloudnorm may lose the last sample to rounding: up to 1 in 200 of the energy, here 0.02 dB
    assert measure(waveform, RATE).lufs == pytest.approx(expected, abs=0.03)


def test_true_peak_between_samples() -> None:
    # A sine at a quarter of the rate, sampled 45 degrees off its crests, and faded so that its ends do not ring.
    n = np.arange(RATE)
    sine = np.sin(2 * np.pi * n / 4 + np.pi / 4) * np.hanning(RATE)
    assert decibels(np.abs(sine).max()) == pytest.approx(-3.01, abs=0.001)
    # 0.05 dB: the ripple of the filters at a quarter of the rate, 0.045 dB for the one in annex 2
    assert measure(sine[None], RATE).true_peak == pytest.approx(0.0, abs=0.05)
    assert decibels(annex_2_peak(sine[None])) == pytest.approx(0.045, abs=0.001)


def test_true_peak_on_music_is_what_usual_meters_say() -> None:
    for seed in range(3):
        for waveform in (tones(seed), drums(seed)):
            measured = measure(waveform, RATE).true_peak
            assert measured is not None
            for name, meter in METERS.items():
                gap = measured - decibels(meter(waveform))
                # Never below another meter, but for resample_poly's 0.006 dB on a lone sample. Above by what noise (a
                # snare) hides between samples, and the printed filter's ripple.
                assert -0.007 <= gap <= 0.7, (seed, name)


@pytest.mark.parametrize("shape", [(1, 0), (1, 1), (1, 100), (2, RATE)])
def test_silence_is_not_measurable(shape: tuple[int, int]) -> None:
    measured = measure(np.zeros(shape, dtype=np.float32), RATE)
    assert measured.lufs is None
    assert measured.true_peak is None


def test_near_silence_has_a_peak_but_no_loudness() -> None:
    measured = measure(1e-6 * np.random.default_rng(0).standard_normal((1, RATE)), RATE)
    assert measured.lufs is None
    assert measured.true_peak == pytest.approx(-108, abs=3)  # noise peaks at 4 to 4.5 times its 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])  # float32 holds up to 3.4e38
@pytest.mark.parametrize("call", [measure, lambda waveform, rate: normalize(waveform, rate, OutputConfig())])
def test_what_is_not_finite_is_an_error_with_a_hint(bad: float, call: object) -> None:
    waveform = np.zeros((1, RATE))
    waveform[0, 7] = bad
    with pytest.raises(NumericsError, match="1 of 32000 samples") as caught:
        call(waveform, RATE)  # type: ignore[operator]
    assert caught.value.hint


@pytest.mark.parametrize("waveform", [np.zeros(10), np.zeros((6, 10)), np.zeros((1, 10), dtype=np.int16)])
def test_a_waveform_of_another_kind_is_refused(waveform: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\[C, L\]"):
        measure(waveform, RATE)


# -- to a loudness ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [-23.0, -14.0])
def test_a_normal_clip_reaches_loudness_and_ceiling(target: float) -> None:
    limited = 0
    for name, waveform in normal():
        result = normalize(waveform, RATE, OutputConfig(lufs=target))
        limited += result.limited
        assert result.reached, name
        assert result.waveform.dtype == np.float32
        assert result.waveform.shape == waveform.shape
        # 0.1 LU: where the search stops; 1e-3: pyloudnorm on float64
        assert lufs(result.waveform) == pytest.approx(target, abs=0.101), name
        assert result.after.lufs == pytest.approx(lufs(result.waveform), abs=1e-3), name
        for meter in METERS.values():
            assert decibels(meter(result.waveform)) <= -1.0, name
    assert limited or target < -14  # the drums need the limiter, or this tests nothing


def test_short_clips_reach_their_loudness() -> None:
    for samples in (1_000, 5_000, 12_900, 14_500):
        waveform = tones(0)[:, 40_000 : 40_000 + samples]
        result = normalize(waveform, RATE, OutputConfig(lufs=-18))
        assert result.reached, samples
        assert annex_2_peak(result.waveform) <= 10 ** (-1 / 20), samples


@pytest.mark.parametrize(("target", "ceiling"), [(-14.0, -1.0), (-5.0, -10.0), (-9.0, 0.0)])
def test_the_ceiling_holds_on_every_meter(target: float, ceiling: float) -> None:
    for name, waveform in (*hostile(), *normal(1.0)):
        result = normalize(waveform, RATE, OutputConfig(lufs=target, true_peak=ceiling))
        assert np.isfinite(result.waveform).all(), name
        assert result.after.true_peak is not None
        assert result.after.true_peak <= ceiling, name
        for meter, peak in METERS.items():
            assert decibels(peak(result.waveform)) <= ceiling, (name, meter)
        # the clip is reported as it is, reached or not
        assert result.after.lufs == pytest.approx(lufs(result.waveform), abs=1e-3), name
        assert result.reached == (abs(lufs(result.waveform) - target) <= 0.5), name
        # never more gain than the difference and the bound on top of it
        assert result.gain_db <= target - (result.before.lufs or 0) + loudness.MAKE_UP_DB + 1e-6, name


def test_the_ceiling_wins_where_both_cannot_hold() -> None:
    sine = 0.5 * np.sin(2 * np.pi * 997 * np.arange(2 * RATE) / RATE)[None]
    result = normalize(sine, RATE, OutputConfig(lufs=-5, true_peak=-10))
    assert not result.reached
    assert result.limited
    # A sine reads 3 LU below its peak; 0.3: its ends ring above that peak, and the margin.
    assert result.after.lufs == pytest.approx(-13.0, abs=0.3)
    assert decibels(annex_2_peak(result.waveform)) <= -10


def test_without_need_of_a_limiter_it_is_gain_alone() -> None:
    waveform = tones(1)
    result = normalize(waveform, RATE, OutputConfig(lufs=-30))
    assert not result.limited
    ratio = 10 ** (result.gain_db / 20)
    np.testing.assert_allclose(result.waveform, waveform * ratio, rtol=1e-6, atol=1e-9)  # rounding to float32
    assert result.gain_db == pytest.approx(-30 - lufs(waveform), abs=0.1)  # 0.1: where the search stops


def test_the_limiter_acts_around_a_peak_and_nowhere_else() -> None:
    t = np.arange(2 * RATE) / RATE
    waveform = 0.25 * np.sin(2 * np.pi * 440 * t)
    waveform[RATE : RATE + 32] *= 4.0
    result = normalize(waveform[None], RATE, OutputConfig(lufs=-15.05, true_peak=-6.0))
    assert result.limited
    gain = result.waveform[0] / np.where(np.abs(waveform) > 1e-3, waveform, np.nan)
    ratio = 10 ** (result.gain_db / 20)
    before = gain[: RATE - int(0.006 * RATE)]  # 5 ms of look-ahead, and one of slack
    assert np.nanmax(np.abs(before / ratio - 1)) < 1e-5  # rounding to float32
    # nothing is clipped: within the 1 ms burst the gain is all but constant (hold), at most 0.5 % from its mean
    burst = gain[RATE + 2 : RATE + 30]
    assert np.nanmax(burst) / np.nanmin(burst) < 1.01
    # half a second is ten times the release: exp(-10) of 6 dB is 0.0003 dB, a ratio of 1 + 3.5e-5
    assert np.nanmax(np.abs(gain[RATE + RATE // 2 :] / ratio - 1)) < 1e-4
    # the gain never jumps: 6 dB over 5 ms is less than 0.15 dB a sample even where it falls fastest
    steps = np.diff(20 * np.log10(gain))
    assert np.nanmax(np.abs(steps)) < 0.15


def test_one_gain_for_all_channels() -> None:
    waveform = np.concatenate([drums(0), 0.5 * drums(0)])
    result = normalize(waveform, RATE, OutputConfig(lufs=-12))
    assert result.limited
    np.testing.assert_allclose(result.waveform[1], 0.5 * result.waveform[0], rtol=1e-6)  # rounding to float32


def test_the_same_clip_gives_the_same_result() -> None:
    first, second = (normalize(drums(0), RATE, OutputConfig()) for _ in range(2))
    assert np.array_equal(first.waveform, second.waveform)


@pytest.mark.parametrize("mode", ["loudness", "peak", "none"])
@pytest.mark.parametrize("level", [0.0, 1e-30, 1e-6])
def test_silence_stays_silence(mode: str, level: float) -> None:
    waveform = (level * np.random.default_rng(0).standard_normal((2, RATE))).astype(np.float32)
    result = normalize(waveform, RATE, OutputConfig(normalize=mode))  # type: ignore[arg-type]
    assert np.array_equal(result.waveform, waveform)
    assert result.gain_db == 0.0
    assert not result.limited
    assert result.reached == (mode == "none")


def test_just_above_the_gate_is_a_sound() -> None:
    rng = np.random.default_rng(0)
    waveform = 10 ** (-66 / 20) * rng.standard_normal((1, 2 * RATE))
    assert -70 < (measure(waveform, RATE).lufs or 0) < -60
    assert normalize(waveform, RATE, OutputConfig(lufs=-20)).reached


@pytest.mark.parametrize("channels", [1, 2])
def test_a_constant_offset_is_removed_as_it_would_use_up_the_room(channels: int) -> None:
    sound = 0.03 * np.repeat(tones(0)[:1], channels, axis=0)
    shifted = sound + 0.3 * (-1.0) ** np.arange(channels)[:, None]
    assert not normalize(shifted, RATE, OutputConfig()).reached
    found = remove_offset(shifted, RATE)
    np.testing.assert_allclose(found, sound - sound.mean(axis=1, keepdims=True), atol=1e-12)  # float64
    assert normalize(found, RATE, OutputConfig()).reached


def test_a_small_offset_a_slow_swell_and_nothing_are_left_alone() -> None:
    sound = 0.5 * tones(0) / np.abs(tones(0)).max()
    swell = np.hanning(sound.shape[1])[None] * (0.2 + 0.3 * sound)
    for waveform in (sound - sound.mean() + 0.001, swell, np.zeros((1, 100)), np.zeros((1, 0))):
        assert np.array_equal(remove_offset(waveform, RATE), waveform)


def test_inaudible_but_too_high_still_keeps_the_ceiling() -> None:
    slow = (0.99 * np.hanning(30 * RATE))[None]  # half a wave in 30 s: nothing that the weighting filter lets through
    result = normalize(slow, RATE, OutputConfig())
    assert result.before.lufs is None
    assert decibels(annex_2_peak(result.waveform)) <= -1.0


# -- to a peak, or not at all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ceiling", [-1.0, -12.5, 0.0])
def test_peak_is_gain_alone_up_to_the_ceiling(ceiling: float) -> None:
    for name, waveform in (*normal(1.0), *hostile(8_000)):
        result = normalize(waveform, RATE, OutputConfig(normalize="peak", true_peak=ceiling))
        assert result.after.true_peak == pytest.approx(ceiling, abs=1e-4), name  # rounding to float32
        assert result.reached
        assert not result.limited
        ratio = 10 ** (result.gain_db / 20)
        np.testing.assert_allclose(result.waveform, waveform * ratio, rtol=1e-5, atol=1e-7)  # float32
        for meter, peak in METERS.items():  # resample_poly reads a lone sample 0.006 dB high
            assert decibels(peak(result.waveform)) <= ceiling + 0.007, (name, meter)


def test_none_changes_nothing() -> None:
    waveform = (3.0 * drums(0)).astype(np.float32)
    result = normalize(waveform, RATE, OutputConfig(normalize="none"))
    assert np.array_equal(result.waveform, waveform)
    assert result.before == result.after == measure(waveform, RATE)
    assert result.reached


# -- speed, and trimming ----------------------------------------------------------------------------------------------


def test_thirty_seconds_take_no_time() -> None:
    waveform = drums(0, seconds=30.0)
    started = time.process_time()
    result = normalize(waveform, RATE, OutputConfig())
    assert result.limited
    assert result.reached
    # 0.7 s on two slow cores; the bound leaves room for a busy machine
    assert time.process_time() - started < 4.0


def test_trim_keeps_the_start_and_fades_the_end() -> None:
    waveform = np.ones((2, RATE), dtype=np.float32)
    kept = trim(waveform, RATE, 0.5)
    assert kept.shape == (2, RATE // 2)
    assert kept.dtype == np.float32
    fade = RATE // 100
    assert np.array_equal(kept[:, :-fade], waveform[:, : RATE // 2 - fade])
    assert np.all(kept[:, -1] == 0)
    # raised cosine: half-way down in the middle, half a sample's step aside
    assert kept[0, -fade // 2 - 1] == pytest.approx(0.5, abs=0.01)
    assert np.all(np.diff(kept[0, -fade - 1 :]) < 0)
    assert np.all(waveform == 1)  # the caller's own is untouched


def test_trim_to_less_than_the_fade() -> None:
    kept = trim(np.ones((1, RATE), dtype=np.float32), RATE, 0.002)
    assert kept.shape == (1, 64)
    assert kept[0, 0] > 0.99
    assert kept[0, -1] == 0


@pytest.mark.parametrize("duration", [None, 1.0, 1.0 + 1e-6])
def test_trim_to_the_whole_clip_changes_nothing(duration: float | None) -> None:
    waveform = np.ones((1, RATE), dtype=np.float32)
    assert trim(waveform, RATE, duration) is waveform


def test_trim_beyond_the_clip_names_both_lengths() -> None:
    with pytest.raises(UsageError, match=r"12 s is longer than the clip of 1\.5 s") as caught:
        trim(np.ones((1, 48_000), dtype=np.float32), RATE, 12.0)
    assert "1.5" in caught.value.hint


def test_trim_to_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="shorter than one sample"):
        trim(np.ones((1, RATE), dtype=np.float32), RATE, 1e-6)
