"""Where loops begin."""

from __future__ import annotations

import numpy as np
import pytest

from magnet_cli.music.downbeat import downbeat
from magnet_cli.music.onsets import find_onsets
from magnet_cli.music.tempo import tempo_of
from support.drums import BALLAD, FOUR_ON_THE_FLOOR, RATE, ROCK, Pattern, rhythm


@pytest.mark.parametrize("pattern", [FOUR_ON_THE_FLOOR, ROCK, BALLAD], ids=["disco", "rock", "ballad"])
def test_a_loop_begins_with_a_bar_however_it_was_turned(pattern: Pattern) -> None:
    on_a_bar = turns = 0
    for bpm in (80, 97.3, 120, 125, 140):
        sound, beat = rhythm(pattern, bpm, seed=int(bpm)), 60 / bpm * RATE
        for by in np.random.default_rng(int(bpm)).integers(sound.shape[1], size=3):
            turned = np.roll(sound, int(by), axis=1)
            onsets = find_onsets(turned, RATE, loop=True)
            tempo = tempo_of(onsets, near=bpm)
            assert tempo is not None
            begin = downbeat(turned, RATE, onsets, tempo)
            start = (begin - int(by)) % sound.shape[1]
            nearest = round(start / beat)
            assert -0.005 <= (start - nearest * beat) / RATE <= 0.001  # on a beat, early enough for all of its attack
            assert np.abs(turned[:, begin]).max() < 0.05  # and without a click
            on_a_bar += nearest % 4 == 0
            turns += 1
    assert on_a_bar >= turns - 2  # four kicks in a bar with the same snare on two of them can be ambiguous
