"""Precision and recall, density and coverage: small sets by hand, an independent neighbour search, blocks, ties."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from ganvas.errors import DataError, UsageError
from ganvas.shelves.metrics import arrays, balls
from ganvas.shelves.metrics.neighbourhoods import (
    DensityCoverage,
    PrecisionRecall,
    Rarity,
    Realism,
    density_coverage,
    prdc,
    precision_recall,
    rarity,
    realism,
)
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
    assert precision_recall(real, fake, 3, rim="outside") == (1, 0)
    assert precision_recall(real, fake, 3) == (1, 1 / 50)  # the sample that they are copies of lies on the rim
    assert density_coverage(real, fake, 5)[1] < 0.5


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(6, 60), st.integers(6, 60), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_agrees_with_an_independent_neighbour_search(seed: int, k: int, n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(n, d)), rng.normal(0.3, 0.8, size=(m, d))
    expected = by_neighbour_search(real, fake, k)
    assert (*precision_recall(real, fake, k), *density_coverage(real, fake, k)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("tile", [7, 64, 149])
def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(5, 1, size=(150, 10)), rng.normal(5.2, 0.9, size=(120, 10))
    dense = prdc(real, fake, 3), list(realism(real, fake)), list(rarity(real, fake))
    monkeypatch.setattr(balls, "TILE", tile)
    assert prdc(real, fake, 3) == dense[0]
    np.testing.assert_allclose(realism(real, fake), dense[1], rtol=1e-12)
    np.testing.assert_allclose(rarity(real, fake), dense[2], rtol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 30.0])
@pytest.mark.parametrize("copies", [1, 2, 40])
def test_the_neighbours_of_float32_features_are_those_that_float64_finds(
    monkeypatch: pytest.MonkeyPatch, shift: float, copies: int
) -> None:
    # With copies, many distances are equal or 0: what float32 cannot tell apart is looked at again.
    monkeypatch.setattr(balls, "TILE", 64)
    rng = np.random.default_rng(0)
    real = np.repeat(rng.normal(shift, 1, size=(240 // copies, 24)), copies, axis=0).astype(np.float32)
    fake = np.concatenate([rng.normal(shift, 1, size=(100, 24)), real[:50]]).astype(np.float32)
    for k in (1, 3, 5):
        for rim in ("inside", "outside"):
            own = prdc(real, fake, k, rim=rim)
            assert own == pytest.approx(by_differences(real, fake, k, rim), abs=1e-12)


def by_differences(real: np.ndarray, fake: np.ndarray, k: int, rim: str) -> dict[str, float]:
    """All four from differences of all pairs in float64, rounded to float32."""

    def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        squared = ((x[:, None].astype(np.float64) - y[None].astype(np.float64)) ** 2).sum(2)
        return np.sqrt(squared.astype(np.float32))

    def radii(x: np.ndarray) -> np.ndarray:
        return np.sort(distances(x, x), axis=1)[:, k]

    between = distances(real, fake)
    compare = np.less_equal if rim == "inside" else np.less
    in_real, in_fake = compare(between, radii(real)[:, None]), compare(between, radii(fake)[None, :])
    return {
        "precision": in_real.any(0).mean(),
        "recall": in_fake.any(1).mean(),
        "density": in_real.sum() / (k * len(fake)),
        "coverage": in_real.any(1).mean(),
    }


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_order_changes_nothing_and_one_pass_gives_all_four(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    real, fake = (rng.normal(size=(n, 5)).astype(np.float32) for n in (40, 30))
    found = prdc(real, fake, k)
    assert found == prdc(rng.permutation(real), rng.permutation(fake), k)
    assert (found["precision"], found["recall"]) == precision_recall(real, fake, k, rim="outside")
    assert (found["density"], found["coverage"]) == density_coverage(real, fake, k)


def test_equals_scikit_learn_where_thousands_of_distances_are_nearly_equal() -> None:
    # Distances concentrate in many dimensions: several pairs of these differ by less than float32 can say.
    rng = np.random.default_rng(1)
    real, fake = (rng.normal(size=(n, 512)).astype(np.float32) for n in (1200, 1000))
    own = prdc(real, fake, 5)
    between, of_real, of_fake = (pairwise_distances(*pair) for pair in ((real, fake), (real, real), (fake, fake)))
    in_real = between < np.partition(of_real, 5, axis=1)[:, 5:6]
    in_fake = between < np.partition(of_fake, 5, axis=1)[:, 5]
    assert own == {
        "precision": in_real.any(0).mean(),
        "recall": in_fake.any(1).mean(),
        "density": in_real.sum() / (5 * 1000),
        "coverage": in_real.any(1).mean(),
    }


def test_huge_and_tiny_features_do_not_overflow() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(60, 5)).astype(np.float32), rng.normal(size=(50, 5)).astype(np.float32)
    for exponent in (-90, 90):
        scaled = [np.ldexp(each, exponent) for each in (real, fake)]
        assert prdc(*scaled, 3) == prdc(real, fake, 3)


def test_the_rim_belongs_where_it_is_said() -> None:
    real, fake = column(0, 2, 6), column(4)  # balls for k = 1: radii 2, 2, 4
    assert precision_recall(real, np.vstack([fake, fake + 100]), 1, rim="inside")[0] == 0.5
    on_two_rims = column(-2, 10)  # at distance 2 of 0, and 4 of 6
    assert precision_recall(real, on_two_rims, 1, rim="inside")[0] == 1
    assert precision_recall(real, on_two_rims, 1, rim="outside")[0] == 0


def test_realism_and_rarity_by_hand() -> None:
    # Balls for k = 1: radii 1, 1, 2, 5 around 0, 1, 3, 8; below their median, 1.5, are the first two.
    real, fake = column(0, 1, 3, 8), column(0.5, 1.5, 4, 9, 100)
    np.testing.assert_allclose(realism(real, fake, 1), [2, 2, 1 / 3, 1 / 8, 1 / 99])
    np.testing.assert_allclose(rarity(real, fake, 1), [1, 1, 2, 5, np.inf])
    evidence = Evidence(EvidenceSet(features=torch.from_numpy(real)), EvidenceSet(features=torch.from_numpy(fake)))
    assert Realism(k=1)(evidence) == {"realism": pytest.approx((4 + 1 / 3 + 1 / 8 + 1 / 99) / 5)}
    assert Rarity(k=1)(evidence) == {"rarity": pytest.approx(9 / 4)}


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_realism_and_rarity_by_loops(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(25, 3)), rng.normal(0.5, 1, size=(15, 3))
    radii = [sorted(np.linalg.norm(x - other) for other in real)[k] for x in real]
    small = [i for i in range(25) if radii[i] < np.median(radii)]
    for y, real_like, rare in zip(fake, realism(real, fake, k), rarity(real, fake, k), strict=True):
        assert real_like == pytest.approx(max(radii[i] / np.linalg.norm(y - real[i]) for i in small))
        holding = [radius for x, radius in zip(real, radii, strict=True) if np.linalg.norm(x - y) <= radius]
        assert rare == pytest.approx(min(holding, default=np.inf))


def test_copies_of_real_samples_do_not_make_realism_infinite() -> None:
    real, fake = column(0, 1, 3, 8), column(0, 0.5, 4)
    evidence = Evidence(EvidenceSet(features=torch.from_numpy(real)), EvidenceSet(features=torch.from_numpy(fake)))
    with pytest.warns(UserWarning, match="1 of 3 generated samples are copies"):
        assert Realism(k=1)(evidence) == {"realism": pytest.approx((100 + 2 + 1 / 3) / 3)}
    copies = Evidence(EvidenceSet(features=torch.from_numpy(real)), EvidenceSet(features=torch.from_numpy(real[:2])))
    with pytest.warns(UserWarning, match="2 of 2 generated samples are copies"):
        assert Realism(k=1)(copies) == {"realism": 100}
    far = Evidence(EvidenceSet(features=torch.from_numpy(real)), EvidenceSet(features=torch.from_numpy(real + 99)))
    with pytest.warns(UserWarning, match="no generated sample lies in the real manifold"):
        assert Rarity(k=1)(far) == {"rarity": 0}
    with pytest.raises(UsageError, match="at least half of the radii are equal"):
        realism(np.ones((6, 2)), fake=np.zeros((3, 2)), k=2)


def test_blocks_stay_small() -> None:
    for itemsize, width in ((8, 50_000), (4, 50_000), (4, 10), (8, 10**9)):
        pieces = list(arrays.blocks(5000, width, itemsize))
        assert [i for piece in pieces[:3] for i in range(piece.start, piece.stop)] == list(range(pieces[:3][-1].stop))
        assert pieces[-1].stop == 5000
        longest = max(piece.stop - piece.start for piece in pieces)
        assert longest == 1 or longest * width * itemsize <= arrays.BLOCK_BYTES


def test_memory_does_not_grow_with_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balls, "TILE", 256)
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
