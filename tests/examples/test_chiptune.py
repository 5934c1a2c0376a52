"""The data of the fine-tuning recipe: what a caption says is what is played, and it is the same each time."""

from __future__ import annotations

import random

import numpy as np
import pytest

import chiptune
from measures import same_tempo, tempo


@pytest.mark.parametrize("bpm", chiptune.TEMPI)
@pytest.mark.parametrize("mood", ["happy", "dark"])
def test_a_clip_is_ten_seconds_at_its_tempo(mood: str, bpm: int) -> None:
    wave = chiptune.clip(random.Random(1), mood, bpm)
    assert len(wave) == 10 * chiptune.RATE
    assert np.abs(wave).max() == pytest.approx(chiptune.PEAK)
    assert same_tempo(tempo(wave, chiptune.RATE), bpm)


def test_clips_and_captions_follow_from_the_seed() -> None:
    one, same, other = (chiptune.clip(random.Random(seed), "happy", 125) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    texts = [chiptune.caption(random.Random(seed), "dark", 100) for seed in range(40)]
    assert all("chiptune" in text for text in texts)
    assert 20 < sum("100 bpm" in text for text in texts) < 40


def test_overtones_stay_below_half_the_rate() -> None:
    sound = chiptune.note(1000.0, 1.0, duty=0.25)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    strong = np.flatnonzero(spectrum > spectrum.max() / 300)
    assert {round(one / 1000) for one in strong} <= set(range(1, 8))
    assert all(abs(one / 1000 - round(one / 1000)) < 0.02 for one in strong)
