"""Means with bootstrap intervals, of one set of clips and of differences between two.

The random numbers have a fixed seed, so that the same figures give the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
COVERAGE = 0.95
SEED = 0
FEWEST = 2  # values that an interval needs


@dataclass(frozen=True)
class Estimate:
    """A mean of `count` values. low, high: the bounds of its 95 % bootstrap interval; None for a single value."""

    count: int
    mean: float
    low: float | None
    high: float | None


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """The mean of the values that are there, with its interval; None if there is none.

    The interval is between the 2.5 % and 97.5 % quantiles of the means of 2000 samples of the values, drawn with
    replacement.
    """
    found = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(found):
        return None
    mean = float(found.mean())
    if len(found) < FEWEST:
        return Estimate(1, mean, None, None)
    random = np.random.default_rng(SEED)
    means = np.array([found[random.integers(0, len(found), len(found))].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Estimate(len(found), mean, float(low), float(high))
