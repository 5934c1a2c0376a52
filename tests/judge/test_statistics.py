"""Means and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from magnet_cli.judge.statistics import Estimate, estimate


def test_nothing_has_no_mean_and_one_value_no_interval() -> None:
    assert estimate([]) is None
    assert estimate([None, None]) is None
    assert estimate([None, 3.0]) == Estimate(1, 3.0, None, None)


def test_the_same_values_have_the_same_interval() -> None:
    values = [1.0, 2.0, None, 4.0, 8.0]
    assert estimate(values) == estimate(values)
    found = estimate([2.0, 2.0, 2.0])
    assert found == Estimate(3, 2.0, 2.0, 2.0)


def test_the_interval_is_that_of_the_normal_distribution_for_many_values() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    found = estimate(list(values))
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)  # 2000 resamples: a quantile of them is chance
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(2)
    found = [estimate(list(random.normal(0.0, 1.0, 40))) for _ in range(200)]
    covered = sum(one is not None and one.low is not None and one.low <= 0 <= (one.high or 0) for one in found)
    assert 178 <= covered <= 200  # 0.93 of 200 are expected with 40 values; 2.5 standard deviations
