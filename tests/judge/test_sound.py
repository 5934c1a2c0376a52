"""Measures of one sound, on sounds whose measure is known."""

from __future__ import annotations

import numpy as np
import pytest

from magnet_cli.audio.blocks import Waveform
from magnet_cli.judge.sound import bandwidth, clipping, comb, silence, stereo_width

RATE = 16_000


def noise(seconds: float, *, channels: int = 1, seed: int = 0) -> Waveform:
    return np.random.default_rng(seed).standard_normal((channels, round(seconds * RATE))).astype(np.float32) * 0.1


def sine(hertz: float, seconds: float = 2.0, level: float = 0.5) -> Waveform:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)[None]


def test_silence_is_the_share_of_quiet_windows() -> None:
    sound = np.concatenate([noise(1.0), np.zeros((1, 3 * RATE), dtype=np.float32)], axis=1)
    assert silence(sound, RATE) == pytest.approx(0.75)
    assert silence(np.zeros((2, RATE), dtype=np.float32), RATE) == 1.0
    assert silence(sound * 10 ** (-45 / 20), RATE) == 1.0  # noise at -20 dB, 45 dB lower
    one_side = np.stack([sound[0], noise(4.0)[0]])
    assert silence(one_side, RATE) == 0.0
    assert silence(noise(0.01), RATE) == 0.0  # shorter than a window


def test_clipping_counts_what_is_cut_off_at_any_level() -> None:
    whole = sine(440.0)
    assert clipping(whole) == 0.0
    assert clipping(noise(2.0)) == 0.0
    cut = np.clip(whole, -0.4, 0.4)
    share = 1 - 2 * np.arcsin(0.8) / np.pi
    assert clipping(cut) == pytest.approx(share, abs=0.02)  # a few samples of each row are a row of fewer than three
    assert clipping(0.5 * cut) == pytest.approx(clipping(cut), abs=1e-3)  # lowered afterwards
    assert clipping(np.clip(whole, -1.0, 0.4)) == pytest.approx(share / 2, abs=0.02)  # on one side only
    assert clipping(np.round(whole * 5) / 32768) == 0.0  # 5 steps of 16 bits: what is equal there is not cut off
    assert clipping(np.zeros((1, 100), dtype=np.float32)) == 0.0


@pytest.mark.parametrize("edge", [1000.0, 3000.0, 6000.0])
def test_bandwidth_is_where_the_sound_ends(edge: float) -> None:
    spectrum = np.fft.rfft(noise(4.0)[0])
    spectrum[np.fft.rfftfreq(4 * RATE, 1 / RATE) > edge] = 0
    sound = np.fft.irfft(spectrum).astype(np.float32)[None]
    assert bandwidth(sound, RATE) == pytest.approx(edge, abs=100)  # a band
    assert bandwidth(noise(1.0), RATE) == pytest.approx(RATE / 2, abs=100)
    assert bandwidth(np.zeros((1, RATE), dtype=np.float32), RATE) is None


def test_width_is_the_share_of_the_difference() -> None:
    left, right = noise(2.0, channels=2)
    assert stereo_width(noise(1.0)) == 0.0
    assert stereo_width(np.stack([left, left])) == 0.0
    assert stereo_width(np.stack([left, -left])) == 1.0
    assert stereo_width(np.stack([left, right])) == pytest.approx(0.5, abs=0.02)  # 32,000 samples of chance
    assert stereo_width(np.zeros((2, 10), dtype=np.float32)) is None
    assert stereo_width(noise(1.0, channels=3)) is None


def test_comb_finds_what_repeats_in_every_frame() -> None:
    plain = noise(6.0)
    found = comb(plain, RATE, 50.0)
    assert found == pytest.approx(0.0, abs=0.5)  # the median of few windows is a little below their mean
    pulses = np.zeros_like(plain)
    pulses[:, :: RATE // 50] = 1.0
    assert comb(plain + pulses, RATE, 50.0) > found + 5
    assert comb(plain + pulses, RATE, 37.0) < found + 2  # of another rate
    assert comb(np.zeros((1, 2 * RATE), dtype=np.float32), RATE, 50.0) is None
    assert comb(noise(0.5), RATE, 50.0) is None
