"""The learning rate: what follows from the number of steps, and what added steps do to it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from magnet_cli.errors import UsageError
from magnet_cli.train.loop.run import check_same, recorded
from magnet_cli.train.loop.schedule import Schedule, new_schedule, schedule_of, settings_with
from magnet_cli.train.options import CODEC_OPTIMIZATION, Optimization, Places, RunOptions

OPTIONS = Optimization(learning_rate=1e-2)


@pytest.mark.parametrize(
    ("steps", "warmup"), [(6, 0), (100, 5), (5_000, 250), (80_000, 4_000), (100_000, 4_000), (1_000_000, 4_000)]
)
def test_the_warmup_follows_from_the_steps(steps: int, warmup: int) -> None:
    assert new_schedule(steps, OPTIONS).present.warmup == warmup


def test_a_short_training_trains() -> None:
    # With the fixed warm-up of 4000 steps the highest rate of 120 steps was 3 % of the one asked for.
    schedule = new_schedule(120, OPTIONS)
    assert max(schedule.rate(step) for step in range(120)) == pytest.approx(1e-2)
    assert schedule.rate(119) < 1e-5
    assert schedule.warning is None


def test_the_reference_warmup_can_be_given() -> None:
    schedule = new_schedule(5000, Optimization(learning_rate=1e-2, warmup=4000))
    assert schedule.rate(1999) == pytest.approx(5e-3)
    assert schedule.warning is not None
    assert "4000 of 5000 steps are warm-up" in schedule.warning


def test_a_warmup_that_never_ends_is_said_with_the_rate_it_reaches() -> None:
    schedule = new_schedule(400, Optimization(learning_rate=1e-2, warmup=4000))
    assert schedule.rate(399) == pytest.approx(1e-3)
    assert schedule.warning is not None
    assert "400 of 400 steps are warm-up" in schedule.warning
    assert "only 0.001" in schedule.warning


def test_the_schedule_is_said() -> None:
    assert new_schedule(5000, OPTIONS).words == (
        "the learning rate rises from 0 to 0.01 over 250 steps, then falls along a cosine from 0.01 to 0 at step 5000"
    )
    assert new_schedule(50, CODEC_OPTIMIZATION).words == "the learning rate stays at 0.0003 until step 50"


def settings_of(schedule: Schedule) -> dict[str, Any]:
    return settings_with({"kind": "decoder", "optimization": {"learning_rate": 1e-2}}, schedule)


def test_added_steps_rise_from_the_present_rate_and_fall_again() -> None:
    options = Optimization(learning_rate=1e-2, last_rate=0.1)
    before = new_schedule(100, options)
    after = schedule_of(settings_of(before), 100, 300, options)
    assert [after.rate(step) for step in range(100)] == [before.rate(step) for step in range(100)]
    present = before.rate(99)
    assert after.present.warmup == 10  # a twentieth of the 200 that are added
    assert after.rate(100) == pytest.approx(present + (1e-2 - present) / 10)
    assert after.rate(109) == pytest.approx(1e-2)
    assert after.rate(299) == pytest.approx(1e-3, rel=0.01)


def test_steps_are_added_to_a_training_that_was_stopped() -> None:
    before = new_schedule(100, OPTIONS)
    after = schedule_of(settings_of(before), 50, 200, OPTIONS)
    assert after.rate(49) == before.rate(49)
    assert before.rate(49) < after.rate(50) < 1e-2  # the rise starts at the rate of step 49, not at 0
    assert after.rate(199) < 1e-5


def test_a_schedule_comes_back_as_it_was_recorded() -> None:
    extended = schedule_of(settings_of(new_schedule(100, OPTIONS)), 100, 300, OPTIONS)
    again = schedule_of(settings_of(extended), 140, 300, OPTIONS)
    assert again == extended
    twice = schedule_of(settings_of(again), 300, 400, OPTIONS)
    assert [phase.first for phase in twice.phases] == [0, 100, 300]
    assert [twice.rate(step) for step in range(300)] == [extended.rate(step) for step in range(300)]


def test_settings_of_earlier_versions_have_one_phase() -> None:
    old = {"kind": "decoder", "steps": 5000, "optimization": {"warmup": 4000}}
    assert schedule_of(old, 10, 5000, OPTIONS).rate(1999) == pytest.approx(5e-3)


def test_a_training_of_an_earlier_version_resumes_with_its_old_default() -> None:
    options = json.loads(json.dumps(asdict(Optimization(warmup=4000))))
    before = {"kind": "decoder", "clips": 3, "steps": 5000, "batch_size": 4, "seed": 0, "optimization": options}
    run = RunOptions(steps=5000, batch_size=4)
    now = recorded({"kind": "decoder", "clips": 3}, run, Optimization())
    check_same(Places(Path("m")), before, now)
    with pytest.raises(UsageError, match=r"optimization\.warmup 4000, not 250"):
        check_same(Places(Path("m")), before, recorded(now, run, Optimization(warmup=250)))
    with pytest.raises(UsageError, match="clips 3, not 4"):
        check_same(Places(Path("m")), before, {**now, "clips": 4})
    with pytest.raises(UsageError, match=r"held_out None, not '0\.1'"):
        check_same(Places(Path("m")), before, {**now, "held_out": "0.1"})


def test_fewer_steps_than_before_are_refused() -> None:
    with pytest.raises(UsageError, match="this training has 100 steps, not 60"):
        schedule_of(settings_of(new_schedule(100, OPTIONS)), 20, 60, OPTIONS)


@pytest.mark.parametrize(
    "rows", [[], [[0, 100]], [[0, "x", 1]], [[0, 90, 1]], [[5, 100, 1]], [[0, 50, 1], [-1, 100, 0]], {"a": 1}, "x", 3]
)
def test_damaged_schedules_are_refused(rows: object) -> None:
    with pytest.raises(ValueError, match="its schedule is"):
        schedule_of({"steps": 100, "schedule": rows}, 20, 100, OPTIONS)
