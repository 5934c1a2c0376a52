"""Distances between sets, in cases whose distance is known."""

from __future__ import annotations

import numpy as np
import pytest

from magnet_cli.errors import UsageError
from magnet_cli.judge.distances import (
    Gaussian,
    frechet_distance,
    frechet_of_infinite,
    kernel_distance,
    median_distance,
)


def normal(count: int, dimensions: int = 4, *, mean: float = 0.0, spread: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, (count, dimensions))


def gaussian(mean: list[float], covariance: list[list[float]]) -> Gaussian:
    return Gaussian(np.array(mean), np.array(covariance), 1000)


def test_gaussians_along_the_axes_have_a_closed_form() -> None:
    first = gaussian([0.0, 1.0], [[4.0, 0.0], [0.0, 9.0]])
    second = gaussian([3.0, 1.0], [[1.0, 0.0], [0.0, 25.0]])
    # The means' distance squared, and the squared differences of the standard deviations.
    assert frechet_distance(first, second) == pytest.approx(3**2 + (2 - 1) ** 2 + (3 - 5) ** 2)
    assert frechet_distance(second, first) == pytest.approx(14)
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-12)


def test_rotations_change_nothing_and_any_covariances_agree_with_scipy() -> None:
    from scipy.linalg import sqrtm

    random = np.random.default_rng(3)
    rotation = np.linalg.qr(random.standard_normal((5, 5)))[0]
    first, second = (Gaussian.of(random.standard_normal((50, 5)) @ random.standard_normal((5, 5))) for _ in range(2))
    found = frechet_distance(first, second)
    apart = first.mean - second.mean
    root = sqrtm(first.covariance @ second.covariance)
    expected = apart @ apart + np.trace(first.covariance + second.covariance - 2 * root.real)
    assert found == pytest.approx(expected, rel=1e-9)

    def turned(one: Gaussian) -> Gaussian:
        return Gaussian(rotation @ one.mean, rotation @ one.covariance @ rotation.T, one.count)

    assert frechet_distance(turned(first), turned(second)) == pytest.approx(found, rel=1e-9)


def test_fewer_embeddings_than_dimensions_are_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"in 4 dimensions needs more than 4 embeddings, and there are 4: .*singular"):
        Gaussian.of(normal(4))
    assert Gaussian.of(normal(5)).count == 5
    assert Gaussian.of(normal(5, 1)).covariance.shape == (1, 1)
    with pytest.raises(UsageError, match="4 and 3 dimensions"):
        frechet_distance(Gaussian.of(normal(9)), Gaussian.of(normal(9, 3)))
    with pytest.raises(UsageError, match="needs 40 embeddings"):
        frechet_of_infinite(normal(39), Gaussian.of(normal(100)))


def test_the_extrapolation_takes_away_the_bias_of_few_samples() -> None:
    exact = gaussian([0.0] * 16, np.eye(16).tolist())
    errors, plain = [], []
    for seed in range(8):
        sample = normal(300, 16, seed=seed)
        plain.append(frechet_distance(Gaussian.of(sample), exact))
        errors.append(frechet_of_infinite(sample, exact))
    assert np.mean(plain) > 0.2  # the true distance is 0
    assert abs(np.mean(errors)) < 0.06
    apart = normal(300, 16, mean=0.5)
    assert frechet_of_infinite(apart, exact) == pytest.approx(16 * 0.25, rel=0.1)


def test_kernel_distance_is_its_definition() -> None:
    mine, theirs = normal(7, 2), normal(6, 2, mean=1.0, seed=1)
    pairs = [(i, j) for i in range(6) for j in range(i)]
    width = np.median([np.linalg.norm(theirs[i] - theirs[j]) for i, j in pairs])
    assert median_distance(theirs) == pytest.approx(width)

    def kernel(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.exp(-np.square(one - other).sum() / (2 * width**2)))

    first = np.mean([kernel(mine[i], mine[j]) for i in range(7) for j in range(7) if i != j])
    second = np.mean([kernel(theirs[i], theirs[j]) for i in range(6) for j in range(6) if i != j])
    third = np.mean([kernel(one, other) for one in mine for other in theirs])
    assert kernel_distance(mine, theirs) == pytest.approx(first + second - 2 * third)


def test_kernel_distance_is_unbiased_and_grows_with_the_difference() -> None:
    same = [kernel_distance(normal(40, seed=2 * k), normal(40, seed=2 * k + 1)) for k in range(100)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 10  # three standard errors of 100 trials
    assert min(same) < 0  # as an unbiased estimate of 0 must be
    reference = normal(200, seed=99)
    shifted = [kernel_distance(normal(200, mean=mean), reference) for mean in (0.0, 0.5, 1.0, 2.0)]
    assert shifted == sorted(shifted)


def test_what_has_no_kernel_distance_is_refused() -> None:
    with pytest.raises(UsageError, match="at least two"):
        kernel_distance(normal(1), normal(5))
    with pytest.raises(UsageError, match="are equal"):
        kernel_distance(normal(5), np.ones((5, 4)))
    with pytest.raises(UsageError, match="4 and 3 dimensions"):
        kernel_distance(normal(5), normal(5, 3))
