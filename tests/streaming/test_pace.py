"""Fewer steps rather than a break, and no fewer than that."""

from __future__ import annotations

import time

import pytest

from magnet_cli.streaming.ahead import HearingClock
from magnet_cli.streaming.pace import LEVELS, RESERVE, Pace, lowered

STEPS = (20, 10, 10, 10)


def test_every_codebook_keeps_a_step() -> None:
    assert lowered(STEPS, 0.5) == (10, 5, 5, 5)
    assert lowered((1, 1, 1, 1), 0.25) == (1, 1, 1, 1)


def test_all_steps_where_there_is_time_or_nobody_waits() -> None:
    pace = Pace()
    assert pace.choose(STEPS, 0.0) == STEPS  # nothing is known yet
    pace.observe(STEPS, 5.0)  # 0.1 s a step
    assert pace.choose(STEPS, None) == STEPS
    assert pace.choose(STEPS, 5.0 + RESERVE) == STEPS
    assert pace.choose(STEPS, 5.0 + RESERVE - 0.1) == lowered(STEPS, LEVELS[1])
    assert pace.choose(STEPS, 0.0) == lowered(STEPS, LEVELS[-1])


def test_a_busy_machine_counts_at_once_and_is_forgotten() -> None:
    pace = Pace()
    pace.observe(STEPS, 5.0)
    pace.observe(STEPS, 15.0)
    assert pace.seconds_per_step == pytest.approx(0.2)
    for _ in range(10):
        pace.observe(STEPS, 5.0)
    assert pace.choose(STEPS, 5.1 + RESERVE) == STEPS


@pytest.mark.parametrize(("speed", "fewest"), [(0.5, 1.0), (1.3, 0.5), (3.0, 0.25)])
def test_it_never_breaks_off_while_a_quarter_of_the_steps_is_fast_enough(speed: float, fewest: float) -> None:
    """A player of 5 s of new music a window, on a machine that needs `speed` times as long for all steps."""
    pace, ahead, least, chosen = Pace(), 10.0, 10.0, []
    for _ in range(200):
        steps = pace.choose(STEPS, ahead)
        took = speed * 5.0 * sum(steps) / sum(STEPS)
        pace.observe(steps, took)
        least = min(least, ahead - took)
        ahead = min(ahead - took + 5.0, 12.0)
        chosen.append(sum(steps) / sum(STEPS))
    assert least > 0 or speed > 2  # the first window at that speed is a surprise
    assert min(chosen) >= fewest - 0.05


def test_the_clock_runs_from_the_first_piece_and_waits_for_music_that_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = HearingClock()
    clock.add(5.0)
    clock.late()
    assert (clock.ahead(), clock.breaks) == (None, 0)
    now = 200.0
    clock.heard(1.0)
    clock.heard(1.0)
    assert clock.ahead() == pytest.approx(5.0)
    now = 201.5
    clock.late()
    assert (clock.ahead(), clock.breaks) == (pytest.approx(3.5), 0)
    now = 210.0  # the 2 s that were given are over
    clock.late()
    clock.late()
    assert (clock.ahead(), clock.breaks) == (pytest.approx(3.0), 1)
    clock.heard(3.0)
    assert clock.ahead() == pytest.approx(3.0)
    now = 211.0
    assert clock.ahead() == pytest.approx(2.0)


def test_a_player_that_pauses_is_no_break(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = HearingClock()
    clock.add(10.0)
    clock.heard(2.0)
    now = 60.0  # it took nothing for a minute, though there was music
    clock.heard(1.0)
    assert (clock.ahead(), clock.breaks) == (pytest.approx(8.0), 0)
