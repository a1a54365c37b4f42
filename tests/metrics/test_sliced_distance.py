"""The sliced Wasserstein distance: closed forms on a line, shifts, sets of different sizes, order, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas.errors import DataError, UsageError
from ganvas.shelves.metrics.sliced_distance import SlicedDistance, sliced_distances
from ganvas.types import Evidence, EvidenceSet


def test_on_a_line_it_is_the_cost_of_sorted_pairs() -> None:
    x, y = np.array([[3.0], [0.0], [1.0]]), np.array([[1.0], [2.0], [6.0]])
    np.testing.assert_allclose(sliced_distances(x, y, projections=3, seed=0), (1 + 1 + 9) / 3)  # u is 1 or -1


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 7))
@settings(max_examples=25, deadline=None)
def test_sets_of_different_sizes_are_repeated_to_a_common_one(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    repeated = sliced_distances(np.repeat(x, m, axis=0), np.repeat(y, n, axis=0), projections=4, seed=0)
    np.testing.assert_allclose(sliced_distances(x, y, projections=4, seed=0), repeated, rtol=1e-9, atol=1e-12)
    order = rng.permutation(n)
    np.testing.assert_allclose(sliced_distances(x[order], y, projections=4, seed=0), repeated, rtol=1e-9, atol=1e-12)


def test_a_shift_costs_its_square_by_dimension_and_nothing_costs_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(50, 6))
    t = np.array([1.0, -2.0, 0.5, 0.0, 3.0, 1.0])
    found = sliced_distances(x, x + t, projections=4000, seed=0)
    assert found.mean() == pytest.approx((t**2).sum() / 6, rel=0.05)
    assert np.abs(sliced_distances(x, x[::-1], projections=4, seed=0)).max() < 1e-20


def test_sees_what_moments_do_not() -> None:
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], size=(4000, 2))
    y = rng.normal(size=(4000, 2))  # the same mean and covariance
    same = rng.choice([-1.0, 1.0], size=(4000, 2))
    apart = sliced_distances(x, y, projections=50, seed=0).mean()
    assert apart > 5 * sliced_distances(x, same, projections=50, seed=0).mean()


def test_the_part_averages_and_blocks_of_lines_join() -> None:
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.normal(size=(9, 4)).astype(np.float32)) for _ in range(2))
    found = sliced_distances(x, y, projections=130, seed=3)
    assert found.shape == (130,) and (found > 0).all() and len(set(found.tolist())) == 130
    np.testing.assert_allclose(sliced_distances(x, y, projections=64, seed=3), found[:64])
    evidence = Evidence(EvidenceSet(features=x), EvidenceSet(features=y))
    assert SlicedDistance(projections=130, seed=3)(evidence) == {"sliced_distance": found.mean()}


def test_errors_name_the_fault() -> None:
    x = np.ones((5, 3))
    with pytest.raises(UsageError, match="dimensions"):
        sliced_distances(x, x[:, :2], projections=1, seed=0)
    with pytest.raises(UsageError, match="projections must be at least 1"):
        sliced_distances(x, x, projections=0, seed=0)
    with pytest.raises(DataError, match="NaN"):
        sliced_distances(x, x * np.nan, projections=1, seed=0)
