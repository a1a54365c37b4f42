"""The Fréchet distance: closed forms, invariances, few samples, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas.errors import DataError, UsageError
from ganvas.metrics.frechet_distance import (
    FrechetDistance,
    Moments,
    frechet_distance,
    frechet_distance_of_features,
    statistics,
)
from ganvas.types import Evidence, EvidenceSet

seeds = st.integers(0, 2**32 - 1)


def features(seed: int, n: int, d: int) -> np.ndarray:
    """Correlated features off the origin: (n, d)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def by_matrix_root(x: np.ndarray, y: np.ndarray) -> float:
    S1, S2 = (np.atleast_2d(np.cov(each, rowvar=False)) for each in (x, y))
    root = scipy.linalg.sqrtm(S1 @ S2).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(S1 + S2 - 2 * root))


@given(seeds, st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_diagonal_gaussians_have_a_closed_form(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    m1, m2, s1, s2 = rng.normal(size=d), rng.normal(size=d), rng.uniform(0, 3, d), rng.uniform(0, 3, d)
    expected = ((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum()
    assert frechet_distance(m1, np.diag(s1**2), m2, np.diag(s2**2)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(seeds, st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_agrees_with_the_matrix_square_root(seed: int, d: int) -> None:
    x, y = features(seed, 5 * d + 5, d), features(seed + 1, 4 * d + 6, d)
    assert frechet_distance_of_features(x, y) == pytest.approx(by_matrix_root(x, y), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(5, 7), (5, 60), (60, 5), (20, 20), (21, 21), (2, 2)])
def test_few_samples_give_the_same_number_by_either_way(n: int, m: int) -> None:
    x, y = features(0, n, 20), features(1, m, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        direct = frechet_distance_of_features(x, y)
    assert direct == pytest.approx(frechet_distance(*statistics(x), *statistics(y)), rel=1e-7)
    assert direct == pytest.approx(by_matrix_root(x, y), rel=1e-4)  # the matrix root of a singular product is inexact


@given(seeds, st.integers(2, 10), st.integers(2, 40))
@settings(max_examples=30, deadline=None)
def test_is_zero_for_the_same_samples_in_any_order_and_never_negative(seed: int, d: int, n: int) -> None:
    x = features(seed, n, d)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distance = frechet_distance_of_features(x, x[np.random.default_rng(seed).permutation(n)])
    assert 0 <= distance <= 1e-8 * np.trace(np.cov(x, rowvar=False))


def test_a_common_rotation_and_shift_change_nothing() -> None:
    x, y = features(0, 60, 6), features(1, 50, 6)
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    turned = frechet_distance_of_features(x @ rotation + 3, y @ rotation + 3)
    assert turned == pytest.approx(frechet_distance_of_features(x, y), rel=1e-9)


def test_singular_and_zero_covariances() -> None:
    zero, one = np.zeros((2, 2)), np.diag([4.0, 0.0])
    assert frechet_distance([0, 0], zero, [3, 4], zero) == 25
    assert frechet_distance([0, 0], zero, [0, 0], one) == pytest.approx(4)


def test_moments_in_pieces_are_the_moments() -> None:
    x = features(0, 1000, 7) + 1e4  # far from the origin: a sum of squares would lose digits
    moments = Moments()
    for piece in np.split(x, [1, 10, 400, 401]):
        moments.add(torch.from_numpy(piece))
    for mean, cov in (moments.result(), statistics(x), statistics(x[:300], x[300:])):
        np.testing.assert_allclose(mean, x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(cov, np.cov(x, rowvar=False), rtol=1e-9, atol=1e-9)


def test_warns_below_full_rank_and_only_there() -> None:
    with pytest.warns(UserWarning, match=r"7 samples cannot fill a covariance of 8 dimensions \(at least 9"):
        frechet_distance_of_features(features(0, 7, 8), features(1, 20, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance_of_features(features(0, 9, 8), features(1, 20, 8))


def test_the_part_reads_evidence() -> None:
    x, y = (torch.from_numpy(features(seed, 30, 4)).float() for seed in (0, 1))
    score = FrechetDistance()(Evidence(EvidenceSet(features=x), EvidenceSet(features=y)))
    assert score == {"frechet_distance": frechet_distance_of_features(x, y)}
    with pytest.raises(UsageError, match="no features"):
        FrechetDistance()(Evidence(EvidenceSet(), EvidenceSet(features=y)))


def test_errors_name_the_fault() -> None:
    x = features(0, 9, 3)
    bad = x.copy()
    bad[4, 1] = np.nan
    with pytest.raises(DataError, match="1 of 9 fake features hold NaN"):
        frechet_distance_of_features(x, bad)
    with pytest.raises(UsageError, match="1 real features, and at least 2"):
        frechet_distance_of_features(x[:1], x)
    with pytest.raises(UsageError, match="0 fake features"):
        frechet_distance_of_features(x, x[:0])
    with pytest.raises(UsageError, match="3 dimensions and fake ones 2"):
        frechet_distance_of_features(x, x[:, :2])
    with pytest.raises(UsageError, match=r"must be \(N, D\)"):
        frechet_distance_of_features(x[0], x)
    with pytest.raises(UsageError, match="have no covariance"):
        statistics(x[:1])
    with pytest.raises(UsageError, match="after ones of 3"):
        statistics(x, x[:, :2])
    with pytest.raises(UsageError, match="do not fit together"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(DataError, match="negative eigenvalue"):
        frechet_distance(np.zeros(2), np.diag([1.0, -1.0]), np.zeros(2), np.eye(2))
    with pytest.raises(DataError, match="NaN"):
        frechet_distance(np.zeros(2), np.full((2, 2), np.inf), np.zeros(2), np.eye(2))
