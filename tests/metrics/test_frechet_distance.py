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
from ganvas.shelves.metrics import frechet_distance as module
from ganvas.shelves.metrics.frechet_distance import (
    FrechetDistance,
    frechet_distance,
    frechet_distance_of_features,
    frechet_distance_of_moments,
    statistics,
)
from ganvas.stats.moments import RunningMoments, moments_of
from ganvas.types import Evidence, EvidenceSet, Moments

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


def spectrum(d: int, smallest: float, seed: int) -> np.ndarray:
    """A covariance with eigenvalues from 1 down to `smallest` and random axes."""
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
    return (axes * np.geomspace(1, smallest, d)) @ axes.T


@pytest.mark.parametrize("smallest", [1, 1e-4, 1e-8, 1e-12, 1e-16])
def test_the_same_covariance_is_at_distance_0_however_nearly_singular(smallest: float) -> None:
    S = spectrum(100, smallest, 0)
    zero = np.zeros(100)
    assert 0 <= frechet_distance(zero, S, zero, S) <= 1e-8 * np.trace(S)
    assert frechet_distance(zero, S, zero, 4 * S) == pytest.approx(np.trace(S), rel=1e-8)  # (1 - 2)^2 tr S


@pytest.mark.parametrize("smallest", [1e-2, 1e-5])
def test_the_fast_way_and_singular_values_agree(smallest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    S1, S2, zero = spectrum(60, smallest, 0), spectrum(60, smallest, 1), np.zeros(60)
    fast = frechet_distance(zero, S1, zero, S2)
    monkeypatch.setattr(module, "_TOLERANCE", 0.0)  # nothing is good enough but the exact way
    assert frechet_distance(zero, S1, zero, S2) == pytest.approx(fast, abs=1e-8 * np.trace(S1 + S2))
    root = scipy.linalg.sqrtm(S1 @ S2).real
    assert fast == pytest.approx(np.trace(S1 + S2 - 2 * root), rel=1e-8)


def test_odd_and_even_dimensions_are_halved_alike() -> None:
    for d in (1, 2, 3, 10, 11):
        x, y = features(0, 40, d), features(1, 50, d)
        assert frechet_distance_of_features(x, y) == pytest.approx(by_matrix_root(x, y), rel=1e-9)


@given(seeds, st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_is_symmetric_and_a_shift_adds_its_square(seed: int, d: int) -> None:
    x, y = features(seed, 30, d), features(seed + 1, 25, d)
    t = np.random.default_rng(seed + 2).normal(size=d)
    apart = frechet_distance_of_features(x, y)
    assert frechet_distance_of_features(y, x) == pytest.approx(apart, rel=1e-9)
    assert frechet_distance_of_features(x, x + t) == pytest.approx((t**2).sum(), rel=1e-8)


@given(seeds, st.lists(st.integers(1, 199), min_size=1, max_size=5, unique=True))
@settings(max_examples=20, deadline=None)
def test_moments_in_pieces_are_the_moments(seed: int, cuts: list[int]) -> None:
    x = features(seed, 200, 7) + 1e4  # far from the origin: a sum of squares would lose digits
    running = RunningMoments()
    for piece in np.split(x, sorted(cuts)):
        running.add(torch.from_numpy(piece))
    assert running.count == 200
    for found in (running.result(), moments_of(x), moments_of(x[:3], x[3:])):
        np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-9, atol=1e-9)
        assert found.count == 200
    mean, covariance = statistics(x)
    assert np.array_equal(mean, moments_of(x).mean) and np.array_equal(covariance, moments_of(x).covariance)


def test_adding_more_does_not_change_moments_already_taken() -> None:
    running = RunningMoments()
    running.add(features(0, 9, 3))
    before = running.result()
    mean, covariance = before.mean.copy(), before.covariance.copy()
    running.add(features(1, 9, 3))
    assert np.array_equal(before.mean, mean) and np.array_equal(before.covariance, covariance)


@pytest.mark.parametrize(("n", "m"), [(5, 7), (5, 60), (60, 5), (40, 50)])
def test_moments_of_few_samples_do_as_well_as_the_samples(n: int, m: int) -> None:
    x, y = features(0, n, 20), features(1, m, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_moments = frechet_distance_of_moments(moments_of(x), moments_of(y))
        unknown = [Moments(each.mean, each.covariance, 0) for each in (moments_of(x), moments_of(y))]
        assert by_moments == pytest.approx(frechet_distance_of_features(x, y), rel=1e-7)
        assert frechet_distance_of_moments(*unknown) == pytest.approx(by_moments, rel=1e-7)


def test_warns_below_full_rank_and_only_there() -> None:
    with pytest.warns(UserWarning, match=r"7 samples cannot fill a covariance of 8 dimensions \(at least 9"):
        frechet_distance_of_features(features(0, 7, 8), features(1, 20, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance_of_features(features(0, 9, 8), features(1, 20, 8))


def test_moments_of_few_samples_warn_and_of_unknown_many_do_not() -> None:
    few, many = moments_of(features(0, 7, 8)), moments_of(features(1, 20, 8))
    with pytest.warns(UserWarning, match="7 samples cannot fill"):
        frechet_distance_of_moments(many, few)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance_of_moments(many, Moments(few.mean, few.covariance, 0))


def test_the_part_reads_moments_and_makes_do_with_features() -> None:
    x, y = (torch.from_numpy(features(seed, 30, 4)).float() for seed in (0, 1))
    expected = pytest.approx(frechet_distance_of_features(x, y), rel=1e-9)
    by_moments = Evidence(EvidenceSet(moments=moments_of(x)), EvidenceSet(moments=moments_of(y)))
    assert FrechetDistance()(by_moments)["frechet_distance"] == expected
    by_both = Evidence(EvidenceSet(moments=moments_of(x)), EvidenceSet(features=y, moments=moments_of(y)))
    assert FrechetDistance()(by_both)["frechet_distance"] == expected
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
    with pytest.raises(DataError, match=r"not \(D,\) and \(D, D\)"):
        frechet_distance(np.zeros(2), np.eye(3), np.zeros(2), np.eye(2))
    with pytest.raises(DataError, match="not symmetric"):
        frechet_distance(np.zeros(2), [[1, 0.5], [0, 1]], np.zeros(2), np.eye(2))
    with pytest.raises(DataError, match="object values, not real numbers"):
        frechet_distance(np.zeros(2), np.array([[1, None], [0, 1]]), np.zeros(2), np.eye(2))
    with pytest.raises(DataError, match="negative eigenvalue -1"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), [[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(DataError, match="negative variance -1"):
        frechet_distance(np.zeros(2), np.diag([1.0, -1.0]), np.zeros(2), np.eye(2))
    with pytest.raises(DataError, match="NaN"):
        frechet_distance(np.zeros(2), np.full((2, 2), np.inf), np.zeros(2), np.eye(2))
