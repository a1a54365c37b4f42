"""The kernel distance: the sum by hand, unbiasedness, subsets, blocks, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas.errors import DataError, UsageError
from ganvas.shelves.metrics import arrays
from ganvas.shelves.metrics.kernel_distance import KernelDistance, Polynomial, kernel_distance, subset_kernel_distances
from ganvas.types import Evidence, EvidenceSet


def by_hand(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def evidence(real: np.ndarray, fake: np.ndarray) -> Evidence:
    return Evidence(EvidenceSet(features=torch.from_numpy(real)), EvidenceSet(features=torch.from_numpy(fake)))


@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(2, 9), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_is_the_sum_over_pairs_of_different_samples(seed: int, n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(1, 2, size=(m, d))
    assert kernel_distance(x, y) == pytest.approx(by_hand(x, y), rel=1e-9, abs=1e-9)
    assert kernel_distance(y, x) == pytest.approx(kernel_distance(x, y), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kernel", [Polynomial(1, 0.5, 0.0), Polynomial(2), Polynomial(4, 0.1, 2.0)])
def test_every_kernel_and_estimator_by_a_matrix(kernel: Polynomial) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 4)), rng.normal(1, 2, size=(9, 4))
    gamma = 1 / 4 if kernel.gamma is None else kernel.gamma
    xx, yy, xy = ((gamma * a @ b.T + kernel.coef0) ** kernel.degree for a, b in ((x, x), (y, y), (x, y)))
    others = ~np.eye(9, dtype=bool)
    expected = {
        "unbiased": xx[others].mean() + yy[others].mean() - 2 * xy.mean(),
        "biased": xx.mean() + yy.mean() - 2 * xy.mean(),
        "u-statistic": xx[others].mean() + yy[others].mean() - 2 * xy[others].mean(),
    }
    for estimator, value in expected.items():
        assert kernel_distance(x, y, kernel, estimator=estimator) == pytest.approx(value, rel=1e-10)
    part = KernelDistance(subset_size="all", degree=kernel.degree, gamma=kernel.gamma, coef0=kernel.coef0)
    assert part(evidence(x, y))["kernel_distance"] == pytest.approx(expected["unbiased"], rel=1e-10)
    with pytest.raises(UsageError, match="pairs samples"):
        kernel_distance(x, y[:5], kernel, estimator="u-statistic")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_order_changes_nothing_and_the_biased_estimate_is_not_negative(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(15, 3))
    assert kernel_distance(rng.permutation(x), rng.permutation(y)) == pytest.approx(kernel_distance(x, y), abs=1e-10)
    assert kernel_distance(x, y, estimator="biased") >= 0
    assert abs(kernel_distance(x, rng.permutation(x), estimator="biased")) < 1e-12


def test_is_unbiased_for_the_same_distribution() -> None:
    rng = np.random.default_rng(0)
    values = [kernel_distance(rng.normal(size=(20, 8)), rng.normal(size=(30, 8))) for _ in range(400)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0 < max(values)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 4)), rng.normal(size=(41, 4))
    whole = kernel_distance(x, y)
    monkeypatch.setattr(arrays, "BLOCK_ROWS", 7)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-10)


def test_small_sets_are_used_whole_and_large_ones_in_subsets() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(0.5, 1, size=(40, 4))
    assert KernelDistance()(evidence(x, y)) == {"kernel_distance": kernel_distance(x, y)}
    metric = KernelDistance(subsets=5, subset_size=10, seed=3)
    expected = subset_kernel_distances(x, y, subsets=5, subset_size=10, seed=3)
    assert expected.shape == (5,)
    assert metric(evidence(x, y)) == {"kernel_distance": expected.mean()} == metric(evidence(x, y))
    other = KernelDistance(subsets=5, subset_size=10, seed=4)(evidence(x, y))
    assert other != metric(evidence(x, y))


def test_the_mean_over_many_subsets_is_the_whole() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)), rng.normal(0.5, 1, size=(40, 4))
    values = subset_kernel_distances(x, y, subsets=1000, subset_size=20, seed=0)
    assert abs(values.mean() - kernel_distance(x, y)) < 4 * values.std() / np.sqrt(len(values))


def test_errors_name_the_fault() -> None:
    x = np.ones((5, 3))
    with pytest.raises(UsageError, match="1 real features"):
        kernel_distance(x[:1], x)
    with pytest.raises(UsageError, match="dimensions"):
        kernel_distance(x, x[:, :2])
    with pytest.raises(DataError, match="infinite"):
        kernel_distance(x * np.inf, x)
    with pytest.raises(UsageError, match="3 subsets of 6 cannot be drawn from 5 real"):
        subset_kernel_distances(x, x, subsets=3, subset_size=6, seed=0)
