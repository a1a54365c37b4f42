"""The Vendi score: closed forms, both ways to its eigenvalues, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas.errors import DataError, UsageError
from ganvas.shelves.metrics import arrays
from ganvas.shelves.metrics.vendi_score import VendiScore, median_distance, vendi_score
from ganvas.types import Evidence, EvidenceSet

pytestmark = pytest.mark.filterwarnings("ignore:.*samples are few")


def by_hand(kernel: np.ndarray) -> float:
    eigenvalues = np.linalg.eigvalsh(kernel / len(kernel))
    positive = eigenvalues[eigenvalues > 1e-15]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_different_samples_count_and_copies_do_not() -> None:
    assert vendi_score(np.eye(7)) == pytest.approx(7, rel=1e-12)
    assert vendi_score(3 * np.eye(7)[[0, 0, 0]]) == pytest.approx(1, rel=1e-12)
    shares = np.array([0.5, 0.25, 0.25])
    samples = np.eye(5)[np.repeat([0, 1, 2], [20, 10, 10])]
    assert vendi_score(samples) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=30)
def test_is_the_same_by_either_matrix_and_for_every_order(seed: int, n: int, d: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, d))
    expected = by_hand(unit(x) @ unit(x).T)
    assert vendi_score(x) == pytest.approx(expected, rel=1e-8)
    assert vendi_score(x[::-1]) == pytest.approx(expected, rel=1e-8)
    assert vendi_score(np.concatenate([x] * 13)) == pytest.approx(expected, rel=1e-8)  # n > d: the other matrix
    assert 1 <= vendi_score(x) <= n


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(50, 4))
    whole = vendi_score(x), vendi_score(x, bandwidth=1.0), median_distance(x)
    monkeypatch.setattr(arrays, "BLOCK_ROWS", 7)
    assert (vendi_score(x), vendi_score(x, bandwidth=1.0), median_distance(x)) == pytest.approx(whole, rel=1e-10)


def test_gaussian_kernel() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    squared = ((x[:, None] - x[None]) ** 2).sum(2)
    assert vendi_score(x, bandwidth=0.7) == pytest.approx(by_hand(np.exp(-squared / (2 * 0.49))), rel=1e-9)
    assert vendi_score(x, bandwidth=1e-3) == pytest.approx(20, rel=1e-9)
    assert vendi_score(x, bandwidth=1e6) == pytest.approx(1, rel=1e-6)
    assert median_distance(x) == pytest.approx(np.median(np.sqrt(squared[np.triu_indices(20, 1)])), rel=1e-12)


def test_the_part_reads_evidence() -> None:
    rng = np.random.default_rng(0)
    real, fake = (torch.from_numpy(rng.normal(size=(40, 5))).float() for _ in range(2))
    only_fake = Evidence(EvidenceSet(), EvidenceSet(features=fake))
    assert VendiScore()(only_fake) == {"vendi_score": vendi_score(fake)}
    assert VendiScore().needs == {"fake:features"}
    assert VendiScore(kernel="rbf", bandwidth=2.0)(only_fake) == {"vendi_score": vendi_score(fake, bandwidth=2.0)}
    both = Evidence(EvidenceSet(features=real), EvidenceSet(features=fake))
    by_median = VendiScore(kernel="rbf")
    assert by_median.needs == {"features"}
    assert by_median(both) == {"vendi_score": vendi_score(fake, bandwidth=median_distance(real))}


def test_a_subset_stands_for_a_larger_set() -> None:
    fake = torch.randn(60, 3)
    evidence = Evidence(EvidenceSet(), EvidenceSet(features=fake))
    small = VendiScore(kernel="rbf", bandwidth=1.0, subset=20)
    assert small(evidence) == small(evidence)
    assert small(evidence)["vendi_score"] <= 20
    assert VendiScore(kernel="rbf", bandwidth=1.0, subset=20, seed=1)(evidence) != small(evidence)


def test_warns_where_the_number_of_samples_bounds_the_score() -> None:
    with pytest.warns(UserWarning, match=r"6 samples are few for a Vendi score of 6.0"):
        vendi_score(np.eye(6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vendi_score(np.eye(6)[np.arange(60) % 6])


def test_errors_name_the_fault() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3))
    with pytest.raises(UsageError, match="no features"):
        VendiScore()(Evidence(EvidenceSet(), EvidenceSet()))
    with pytest.raises(UsageError, match="no real features"):
        VendiScore(kernel="rbf")(Evidence(EvidenceSet(), EvidenceSet(features=torch.ones(5, 3))))
    with pytest.raises(DataError, match="1 of 5 features are vectors of zeros"):
        vendi_score(x * [[1], [0], [1], [1], [1]])
    with pytest.raises(DataError, match="NaN"):
        vendi_score(x * np.nan)
    with pytest.raises(UsageError, match="a bandwidth of 0"):
        vendi_score(x, bandwidth=0)
    with pytest.raises(DataError, match="give no bandwidth"):
        median_distance(np.ones((5, 3)))
    with pytest.raises(UsageError, match="0 features"):
        vendi_score(x[:0])
