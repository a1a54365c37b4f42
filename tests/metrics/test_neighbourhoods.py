"""Precision and recall, density and coverage: small sets by hand, an independent neighbour search, blocks, ties."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from ganvas.errors import DataError, UsageError
from ganvas.metrics import arrays
from ganvas.metrics.neighbourhoods import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from ganvas.types import Evidence, EvidenceSet


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def by_neighbour_search(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """Precision, recall, density, coverage from scikit-learn's trees."""

    def radii(x: np.ndarray) -> np.ndarray:
        return NearestNeighbors(n_neighbors=k + 1, algorithm="kd_tree").fit(x).kneighbors(x)[0][:, -1]

    distance = np.linalg.norm(real[:, None] - fake[None], axis=2)  # (N, M)
    in_real = distance < radii(real)[:, None]
    in_fake = distance < radii(fake)[None, :]
    return in_real.any(0).mean(), in_fake.any(1).mean(), in_real.sum(0).mean() / k, in_real.any(1).mean()


def test_by_hand() -> None:
    # Open balls for k = 1. Real: (-1, 1), (0, 2), (1, 3), (2, 18). Fake: (.4, .6), (.5, .7), (.6, 4.4), (2.5, 57.5).
    real, fake = column(0, 1, 2, 10), column(0.5, 0.6, 2.5, 30)
    assert precision_recall(real, fake, 1) == (0.75, 0.75)  # 30 is in no real ball, 0 in no fake one
    density, coverage = density_coverage(real, fake, 1)
    assert (density, coverage) == (6 / 4, 1)  # the real balls hold 2, 2, 1 and 1 fake samples


def test_far_sets_share_nothing_and_outliers_count() -> None:
    real, fake = column(*range(5)), column(*range(100, 105))
    assert precision_recall(real, fake, 3) == (0, 0)
    assert density_coverage(real, fake, 3) == (0, 0)
    # One real outlier has a ball of radius 200 - 4 that swallows everything: precision is fooled, coverage is not.
    fooled = column(*range(5), 200)
    assert precision_recall(fooled, fake, 1)[0] == 1
    assert density_coverage(fooled, fake, 1)[1] == 1 / 6


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_the_same_set_is_perfect_and_ties_lie_outside(scale: float, shift: float) -> None:
    x = np.random.default_rng(0).normal(size=(200, 6)) * scale + shift * scale
    for k in (1, 3, 5):
        assert precision_recall(x, x.copy(), k) == (1, 1)
        # A ball holds its own centre and the k - 1 nearer neighbours; the k-th lies on the rim.
        assert density_coverage(x, x[::-1].copy(), k) == (1, 1)


def test_collapse_to_one_point_has_no_recall() -> None:
    real = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    fake = np.repeat(real[:1], 50, axis=0)
    assert precision_recall(real, fake, 3) == (1, 0)
    assert density_coverage(real, fake, 5)[1] < 0.5


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(6, 60), st.integers(6, 60), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_agrees_with_an_independent_neighbour_search(seed: int, k: int, n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(n, d)), rng.normal(0.3, 0.8, size=(m, d))
    expected = by_neighbour_search(real, fake, k)
    assert (*precision_recall(real, fake, k), *density_coverage(real, fake, k)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("block_rows", [1, 7, 64])
def test_blocks_and_float32_change_nothing(monkeypatch: pytest.MonkeyPatch, block_rows: int) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(5, 1, size=(150, 10)), rng.normal(5.2, 0.9, size=(120, 10))
    dense = (*precision_recall(real, fake, 3), *density_coverage(real, fake, 5))
    monkeypatch.setattr(arrays, "BLOCK_ROWS", block_rows)
    assert (*precision_recall(real, fake, 3), *density_coverage(real, fake, 5)) == dense
    monkeypatch.setattr(arrays, "FLOAT32_ABOVE", 10)
    assert (*precision_recall(real, fake, 3), *density_coverage(real, fake, 5)) == pytest.approx(dense, abs=0.01)


def test_blocks_stay_small() -> None:
    for itemsize, width in ((8, 50_000), (4, 50_000), (4, 10), (8, 10**9)):
        pieces = list(arrays.blocks(5000, width, itemsize))
        assert [i for piece in pieces[:3] for i in range(piece.start, piece.stop)] == list(range(pieces[:3][-1].stop))
        assert pieces[-1].stop == 5000
        longest = max(piece.stop - piece.start for piece in pieces)
        assert longest == 1 or longest * width * itemsize <= arrays.BLOCK_BYTES


def test_memory_does_not_grow_with_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 2**18)
    x = np.random.default_rng(0).normal(size=(3000, 4))
    tracemalloc.start()
    precision_recall(x, x)
    density_coverage(x, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000**2 * 8 / 20


def test_the_parts_read_evidence() -> None:
    rng = np.random.default_rng(0)
    real, fake = (torch.from_numpy(rng.normal(size=(30, 3))) for _ in range(2))
    evidence = Evidence(EvidenceSet(features=real), EvidenceSet(features=fake))
    assert tuple(PrecisionRecall()(evidence).values()) == precision_recall(real, fake, 3)
    assert tuple(DensityCoverage(k=2)(evidence).values()) == density_coverage(real, fake, 2)


def test_errors_name_the_fault() -> None:
    x = np.ones((5, 3))
    with pytest.raises(UsageError, match="5 nearest neighbours of 5 samples"):
        density_coverage(x, x, 5)
    with pytest.raises(UsageError, match="k must be at least 1"):
        density_coverage(x, x, 0)
    with pytest.raises(UsageError, match="dimensions"):
        precision_recall(x, x[:, :2], 1)
    with pytest.raises(UsageError, match="0 fake features"):
        precision_recall(x, x[:0], 1)
    with pytest.raises(DataError, match="NaN"):
        precision_recall(x, x * np.nan, 1)
