"""Nearest neighbours: an independent search, ties, copies, blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from ganvas.errors import DataError, UsageError
from ganvas.shelves.metrics import arrays
from ganvas.shelves.metrics.nearest_neighbours import distances_to_nearest, nearest_neighbours
from ganvas.shelves.metrics.ordering import in_canonical_order


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(6, 50), st.integers(1, 50), st.integers(1, 8))
def test_agrees_with_an_independent_search(seed: int, k: int, n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    references, queries = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    distances, indices = NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(references).kneighbors(queries)
    ours = nearest_neighbours(queries, references, k)
    np.testing.assert_array_equal(ours[0], indices)
    np.testing.assert_allclose(ours[1], distances, rtol=1e-6, atol=1e-9)


def test_no_sample_is_its_own_neighbour() -> None:
    x = np.array([[0.0], [1.0], [3.0], [3.0]])
    indices, distances = nearest_neighbours(x, x, 2, among_themselves=True)
    assert indices.tolist() == [[1, 2], [0, 2], [3, 1], [2, 1]]
    assert distances.tolist() == [[1, 3], [1, 2], [0, 2], [0, 2]]
    assert distances_to_nearest(x, x, among_themselves=True).tolist() == [1, 1, 0, 0]
    assert distances_to_nearest(x, x).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_copies_are_at_distance_zero_exactly(shift: float) -> None:
    x = (np.random.default_rng(0).normal(size=(60, 20)) + shift).astype(np.float32)
    indices, distances = nearest_neighbours(x[::-1].copy(), x)
    assert indices[:, 0].tolist() == list(range(60))[::-1]
    assert (distances == 0).all()


def test_blocks_and_float32_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, references = rng.normal(3, 1, size=(90, 6)), rng.normal(3, 1, size=(70, 6))
    indices, distances = nearest_neighbours(queries, references, 4)
    monkeypatch.setattr(arrays, "BLOCK_ROWS", 7)
    assert np.array_equal(nearest_neighbours(queries, references, 4)[1], distances)
    monkeypatch.setattr(arrays, "FLOAT32_ABOVE", 10)
    again = nearest_neighbours(queries, references, 4)
    assert np.array_equal(again[0], indices)
    np.testing.assert_allclose(again[1], distances, rtol=1e-4)


def test_errors_name_the_fault() -> None:
    x = np.ones((3, 2))
    with pytest.raises(UsageError, match="3 nearest neighbours of a sample among 2 others"):
        nearest_neighbours(x, x, 3, among_themselves=True)
    with pytest.raises(UsageError, match="0 nearest neighbours"):
        nearest_neighbours(x, x, 0)
    with pytest.raises(UsageError, match="0 references"):
        nearest_neighbours(x, x[:0])
    with pytest.raises(UsageError, match="dimensions"):
        nearest_neighbours(x, x[:, :1])
    with pytest.raises(DataError, match="NaN"):
        nearest_neighbours(x * np.nan, x)


def test_canonical_order_depends_on_the_set_alone() -> None:
    x = np.random.default_rng(0).integers(0, 3, size=(50, 4)).astype(np.float32)
    shuffled = np.random.default_rng(1).permutation(x)
    assert np.array_equal(in_canonical_order(x), in_canonical_order(shuffled))
    assert np.array_equal(np.unique(in_canonical_order(x), axis=0), np.unique(x, axis=0))
    assert in_canonical_order(x[:, ::2]).shape == (50, 2)  # not contiguous
