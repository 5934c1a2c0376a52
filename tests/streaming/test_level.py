"""The level of a stream: at the target, steady, below the ceiling, and without seams between its pieces."""

from __future__ import annotations

import numpy as np
import pytest

from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.loudness import measure
from magnet_cli.options.output import OutputConfig
from magnet_cli.streaming.level import FASTEST, FIRST, SteadyLevel

RATE = 16_000
RANDOM = np.random.default_rng(5)


def noise(seconds: float, level: float) -> Waveform:
    return RANDOM.normal(0, level, (1, round(seconds * RATE))).astype(np.float32)


def leveled(sound: Waveform, piece: float = 1.0, output: OutputConfig | None = None) -> Waveform:
    level = SteadyLevel(RATE, output or OutputConfig())
    size = round(piece * RATE)
    made = [one for start in range(0, sound.shape[1], size) for one in level.push(sound[:, start : start + size])]
    return np.concatenate([*made, *level.finish()], axis=1)


@pytest.mark.parametrize("level", [0.005, 0.05, 0.5])
def test_a_steady_sound_comes_to_the_target(level: float) -> None:
    sound = noise(12, level)
    made = leveled(sound)
    assert made.shape == sound.shape
    assert measure(made, RATE).lufs == pytest.approx(-14.0, abs=0.3)
    ratio = made[0, 100:-100] / np.where(sound[0, 100:-100] == 0, 1, sound[0, 100:-100])
    assert np.median(ratio[: 3 * RATE]) == pytest.approx(np.median(ratio[-3 * RATE :]), rel=0.02)


def test_the_ceiling_holds_and_what_is_below_it_is_left_alone() -> None:
    sound = noise(10, 0.02)
    sound[0, 70_000:70_050] = 1.0
    made = leveled(sound)
    peak = measure(made, RATE).true_peak
    assert peak is not None
    assert -2.0 < peak <= -1.0


def test_pieces_have_no_seams() -> None:
    """However it is cut, the limiter does the same; the gain itself is a straight line in dB over each piece."""
    sound = noise(10, 0.05) * (1 + 8 * (RANDOM.uniform(size=(1, 10 * RATE)) > 0.999))
    level = SteadyLevel(RATE, OutputConfig())
    made = [one for start in range(0, 10 * RATE, RATE) for one in level.push(sound[:, start : start + RATE])]
    made += level.finish()
    whole = np.concatenate(made, axis=1)
    gain = np.abs(whole) / np.maximum(np.abs(sound), 1e-9)
    loud = np.abs(sound[0]) > 0.01
    steps = np.abs(np.diff(20 * np.log10(gain[0][loud])))
    places = np.flatnonzero(loud)[1:]
    at_seams = np.isin(places // 4, np.arange(RATE, 10 * RATE, RATE) // 4)
    assert steps[at_seams].max(initial=0.0) <= np.quantile(steps, 0.999)


def test_the_gain_moves_slowly_after_a_change() -> None:
    level = SteadyLevel(RATE, OutputConfig())
    gains = []
    for loudness in [0.2] * 8 + [0.02] * 50:  # what was loud counts until it is forgotten, after 20 s
        level.push(noise(1, loudness))
        gains.append(level.gain)
    known = [one for one in gains if one is not None]
    assert len(known) == 58 - (FIRST - 1)
    assert np.abs(np.diff(known)).max() <= FASTEST + 1e-9
    assert known[-1] - known[4] == pytest.approx(30 * FASTEST, abs=6 * FASTEST)


def test_silence_keeps_the_gain() -> None:
    level = SteadyLevel(RATE, OutputConfig())
    for _ in range(6):
        level.push(noise(1, 0.05))
    before = level.gain
    for _ in range(40):
        level.push(np.zeros((1, RATE), np.float32))
    assert level.gain == pytest.approx(before, abs=1.0)  # what is heard of the noise before becomes quieter
    quiet = leveled(np.zeros((1, 8 * RATE), np.float32))
    assert not quiet.any()


def test_a_short_stream_comes_out_whole() -> None:
    for seconds in (0.5, 1.0, 2.5, 4.5):
        sound = noise(seconds, 0.05)
        assert leveled(sound).shape == sound.shape


def test_channels_keep_their_balance() -> None:
    sound = np.concatenate([noise(8, 0.05), noise(8, 0.01)])
    made = leveled(sound)
    assert made.shape == sound.shape
    assert np.std(made[0]) / np.std(made[1]) == pytest.approx(np.std(sound[0]) / np.std(sound[1]), rel=0.01)
