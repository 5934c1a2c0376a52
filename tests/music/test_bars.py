"""The length of loops: whole bars at a tempo."""

from __future__ import annotations

import numpy as np
import pytest

from magnet_cli.errors import UsageError
from magnet_cli.music.bars import loop_length

RATE, HOP, CLIP = 32_000, 640, 500


@pytest.mark.parametrize("bpm", [60, 90, 97.3, 120, 128, 174, 400])
@pytest.mark.parametrize("bars", [None, 1, 2])
def test_a_loop_lasts_whole_bars(bpm: float, bars: int | None) -> None:
    length = loop_length(bpm, bars, sample_rate=RATE, hop=HOP, clip_frames=CLIP)
    assert length.bars is not None
    exact = length.bars * 4 * 60 / bpm * RATE
    assert abs(length.samples - exact) <= 0.5
    assert length.seconds == pytest.approx(exact / RATE)
    assert abs(length.frames * HOP - exact) <= HOP / 2 + 0.5
    assert length.frames <= CLIP
    assert length.stretch == length.samples / (length.frames * HOP)
    assert abs(length.cents) < 1200 * np.log2(1 + 0.5 / (length.frames - 0.5)) + 0.1
    if bars is None:
        assert exact <= CLIP * HOP + HOP / 2 < 2 * exact
        assert length.bars & (length.bars - 1) == 0


def test_the_length_that_fits_exactly_is_the_clip() -> None:
    assert loop_length(96, 4, sample_rate=RATE, hop=HOP, clip_frames=CLIP).frames == CLIP  # 10 s
    assert loop_length(96, None, sample_rate=RATE, hop=HOP, clip_frames=CLIP).bars == 4
    assert loop_length(90, 2, sample_rate=RATE, hop=HOP, clip_frames=CLIP, beats_per_bar=3).samples == 128_000
    whole = loop_length(None, None, sample_rate=RATE, hop=HOP, clip_frames=CLIP)
    assert (whole.bars, whole.samples, whole.frames, whole.cents) == (None, CLIP * HOP, CLIP, 0)


@pytest.mark.parametrize(
    ("bpm", "bars", "beats", "message"),
    [
        (120, 6, 4, "room for 1 to 5 bars at 120 bpm, not 6. Give bars=4, or choose"),
        (120, 8, 4, "Give bars=4, or choose"),  # 5 bars would fit, but no phrase has 5
        (60, 3, 4, "Give bars=2, or choose"),
        (120, 0, 4, "room for 1 to 5 bars"),
        (20, 1, 4, "a bar at 20 bpm lasts 12 s"),
        (10, 1, 4, "between 20 and 400"),
        (float("nan"), 1, 4, "between 20 and 400"),
        (400, 1, 2, "a loop needs 0.5 s"),
        (120, 1, 0, "1 to 32 beats"),
        (None, 2, 4, "needs a tempo"),
    ],
)
def test_lengths_that_cannot_be_are_refused(bpm: float | None, bars: int, beats: int, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        loop_length(bpm, bars, sample_rate=RATE, hop=HOP, clip_frames=CLIP, beats_per_bar=beats)
    assert message in str(refused.value)
