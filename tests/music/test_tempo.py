"""The measured tempo, on rhythms whose tempo is known."""

from __future__ import annotations

import numpy as np
import pytest

from magnet_cli.audio.loudness import normalize
from magnet_cli.music.tempo import measure_tempo
from magnet_cli.options.output import OutputConfig
from support.drums import BALLAD, CLICKS, FOUR_ON_THE_FLOOR, RATE, ROCK, Pattern, rhythm

NEARLY = 0.002  # of a tempo: a hundredth of a second in five
TEMPI = (50, 60, 75, 90, 97.3, 110, 120, 127.5, 140, 160, 174, 200, 220)


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("bpm", TEMPI)
def test_clicks_have_their_tempo(bpm: float, loop: bool) -> None:
    """Nothing but beats: no reason to take every second of them, or what is between them."""
    found = measure_tempo(rhythm(CLICKS, bpm, jitter=0.005), RATE, loop=loop)
    assert found is not None
    assert found.bpm == pytest.approx(bpm, rel=NEARLY)
    assert found.clarity > 0.8


@pytest.mark.parametrize("pattern", [FOUR_ON_THE_FLOOR, ROCK, BALLAD], ids=["disco", "rock", "ballad"])
@pytest.mark.parametrize("bpm", TEMPI)
def test_drums_have_their_tempo_or_an_octave_of_it(bpm: float, pattern: Pattern) -> None:
    sound = rhythm(pattern, bpm, jitter=0.005)
    alone, told = measure_tempo(sound, RATE, loop=True), measure_tempo(sound, RATE, loop=True, near=bpm)
    assert alone is not None
    assert told is not None
    octave = np.log2(alone.bpm / bpm)
    assert octave == pytest.approx(round(octave), abs=NEARLY)
    if 90 <= bpm <= 150:  # beyond, quavers or minims are as likely to be tapped
        assert round(octave) == 0
    assert told.bpm == pytest.approx(bpm, rel=NEARLY)


@pytest.mark.parametrize("bpm", [112.5, 127.5, 75])
def test_another_tempo_than_was_asked_for_is_told(bpm: float) -> None:
    """Fifteen, seventeen or ten beats where sixteen were wanted: no octave of 120."""
    found = measure_tempo(rhythm(FOUR_ON_THE_FLOOR, bpm), RATE, loop=True, near=120)
    assert found is not None
    assert not found.is_near(120)
    assert any(found.bpm == pytest.approx(bpm * octave, rel=NEARLY) for octave in (1, 2))


def test_an_octave_that_is_not_there_is_not_claimed() -> None:
    found = measure_tempo(rhythm(CLICKS, 60), RATE, loop=True, near=120)
    assert found is not None
    assert found.bpm == pytest.approx(60, rel=NEARLY)


def test_a_loop_has_a_whole_number_of_beats() -> None:
    sound = rhythm(ROCK, 97.3, bars=2)
    found = measure_tempo(sound, RATE, loop=True)
    assert found is not None
    assert found.bpm / 60 * sound.shape[1] / RATE == pytest.approx(8, abs=1e-9)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_level_rate_and_channels_do_not_matter(rate: int) -> None:
    sound = rhythm(ROCK, 110, rate=rate)
    for heard in (sound, 0.01 * sound, np.tile(sound, (2, 1)), normalize(sound, rate, OutputConfig()).waveform):
        found = measure_tempo(heard, rate, loop=True)
        assert found is not None
        assert found.bpm == pytest.approx(110, rel=NEARLY)


@pytest.mark.parametrize("seconds", [0.001, 0.5, 2, 4, 8])
@pytest.mark.parametrize("loop", [True, False])
def test_no_beat_is_found_where_there_is_none(seconds: float, loop: bool) -> None:
    samples = max(round(seconds * RATE), 1)
    time = np.arange(samples) / RATE
    rng = np.random.default_rng(0)
    fade = np.minimum(1, np.minimum(time, time[::-1]) / 0.5)
    sounds = [np.zeros(samples), np.sin(2 * np.pi * 220 * time) * fade, rng.standard_normal(samples) * fade]
    for sound in sounds:
        assert measure_tempo(sound[None].astype(np.float32), RATE, loop=loop) is None
