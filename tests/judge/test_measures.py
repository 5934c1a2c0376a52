"""All measures of a waveform, repetition and tempo among them."""

from __future__ import annotations

import numpy as np
import pytest

from magnet_cli.errors import UsageError
from magnet_cli.judge.measures import MEASURES, check, chosen, measure_sound
from magnet_cli.judge.repetition import repetition
from magnet_cli.music.onsets import find_onsets
from support.drums import FOUR_ON_THE_FLOOR, RATE, rhythm

NEEDS_MODEL = {"comb", "likelihood"}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, round(seconds * RATE))).astype(np.float32) * 0.1


def test_what_repeats_exactly_is_1_and_chance_is_about_0() -> None:
    second = noise(1.0)
    assert repetition(find_onsets(np.tile(second, 5), RATE, loop=True)) == pytest.approx(1.0, abs=1e-6)
    chance = repetition(find_onsets(noise(5.0), RATE, loop=False))
    assert chance is not None
    assert abs(chance) < 0.1
    half = np.concatenate([second, second, noise(1.0, 1), noise(1.0, 2)], axis=1)
    found = repetition(find_onsets(half, RATE, loop=False))
    assert found is not None
    assert 0.4 < found < 0.65  # two of four segments have a partner


def test_segments_are_bars_where_a_beat_is_clear() -> None:
    bar = np.concatenate([noise(0.4, seed) * (0.2 + seed) for seed in range(4)], axis=1)  # 150 bpm
    onsets = find_onsets(np.tile(bar, 4), RATE, loop=True)
    in_bars, in_seconds = repetition(onsets, bpm=150.0), repetition(onsets)
    assert in_bars == pytest.approx(1.0, abs=1e-6)
    assert in_seconds is not None
    assert in_seconds < 0.9


def test_what_has_no_two_segments_has_no_repetition() -> None:
    assert repetition(find_onsets(noise(1.5), RATE, loop=False)) is None
    assert repetition(find_onsets(np.zeros((1, 3 * RATE), dtype=np.float32), RATE, loop=False)) is None


def test_tempo_is_compared_with_what_was_asked_for() -> None:
    sound = rhythm(FOUR_ON_THE_FLOOR, 125.0)

    def scores(*asked: tuple[float, float]) -> dict[str, float | None]:
        return measure_sound(sound, RATE, ["tempo", "tempo_right"], asked=asked)

    assert scores()["tempo"] == pytest.approx(125.0, rel=0.002)
    assert scores()["tempo_right"] is None
    assert scores((125.0, 125.0))["tempo_right"] == 1.0
    assert scores((118.0, 123.0))["tempo_right"] == 1.0  # 2 % beyond
    assert scores((100.0, 100.0))["tempo_right"] == 0.0
    silent = measure_sound(np.zeros_like(sound), RATE, ["tempo", "tempo_right"], asked=[(125.0, 125.0)])
    assert silent == {"tempo": None, "tempo_right": 0.0}


def test_only_what_is_wanted_is_measured_in_the_order_of_the_table() -> None:
    found = measure_sound(noise(2.0), RATE, ["lufs", "silence"])
    assert list(found) == ["silence", "lufs"]
    everything = measure_sound(noise(2.0), RATE, list(MEASURES), frame_rate=50.0)
    assert list(everything) == [name for name in MEASURES if name != "likelihood"]
    stereo = measure_sound(np.concatenate([noise(2.0), noise(2.0, 1)]), RATE, ["stereo_width", "bandwidth"])
    assert stereo["stereo_width"] == pytest.approx(0.5, abs=0.02)


def test_silence_and_shortest_sounds_are_measured() -> None:
    for sound in (np.zeros((2, RATE), dtype=np.float32), noise(0.1)):
        check(sound, RATE)
        assert measure_sound(sound, RATE, list(MEASURES), frame_rate=50.0)["tempo"] is None


def test_measures_are_chosen_by_name() -> None:
    assert set(chosen(None, has_model=True)) == set(MEASURES)
    assert set(MEASURES) - set(chosen(None, has_model=False)) == NEEDS_MODEL
    assert chosen(["lufs", "silence"], has_model=False) == ("silence", "lufs")
    with pytest.raises(UsageError, match="unknown measure 'loudness'"):
        chosen(["loudness"], has_model=True)
    with pytest.raises(UsageError, match="likelihood needs a model"):
        chosen(["likelihood"], has_model=False)
    with pytest.raises(UsageError, match="no measure"):
        chosen([], has_model=False)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(UsageError, match=r"at least 0\.1 s"):
        check(noise(0.05), RATE)
    with pytest.raises(UsageError, match="6 channels"):
        check(np.zeros((6, RATE), dtype=np.float32), RATE)
