"""CMMD: the authors' formula by hand, closed forms, precision for wide kernels, order, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas.errors import DataError, UsageError
from ganvas.shelves.metrics import arrays
from ganvas.shelves.metrics.cmmd import CMMD, gaussian_kernel_distance
from ganvas.types import Evidence, EvidenceSet


def score(real: np.ndarray, fake: np.ndarray, **options: float) -> float:
    sides = [EvidenceSet(features=torch.from_numpy(each)) for each in (real, fake)]
    return CMMD(**options)(Evidence(*sides))["cmmd"]


def by_matrix(x: np.ndarray, y: np.ndarray, sigma: float) -> float:
    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(2) / (2 * sigma**2)).mean()

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_is_the_biased_estimate_over_all_pairs(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 4)), rng.normal(1, 1, size=(m, 4))
    found = gaussian_kernel_distance(x, y, sigma=1.5)
    assert found == pytest.approx(by_matrix(x, y, 1.5), rel=1e-9, abs=1e-13)
    assert gaussian_kernel_distance(y[::-1], x[::-1], sigma=1.5) == pytest.approx(found, rel=1e-9, abs=1e-13)
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (x, y)]
    assert score(x, y) == pytest.approx(1000 * by_matrix(*unit, 10.0), rel=1e-6, abs=1e-9)


def test_two_points_have_a_closed_form_and_length_does_not_count() -> None:
    x, y = np.array([[2.0, 0.0]]), np.array([[0.0, 5.0]])
    assert score(x, y) == pytest.approx(1000 * 2 * (1 - math.exp(-2 / 200)), rel=1e-12)
    assert score(x, 7 * x) == 0
    opposite = 2 * (1 - math.exp(-4 / (2 * 0.1**2)))
    assert score(x, -x, sigma=0.1) == pytest.approx(1000 * opposite, rel=1e-12)


def test_wide_kernels_keep_their_digits() -> None:
    # To first order the distance is |difference of means|^2 / sigma^2.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(1, 1, size=(20, 4))
    apart = ((x.mean(0) - y.mean(0)) ** 2).sum()
    assert gaussian_kernel_distance(x, y, sigma=1e5) == pytest.approx(apart / 1e10, rel=1e-5)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 4)), rng.normal(size=(41, 4))
    whole = score(x, y)
    monkeypatch.setattr(arrays, "BLOCK_ROWS", 7)
    assert score(x, y) == pytest.approx(whole, rel=1e-9)


def test_errors_name_the_fault() -> None:
    x = np.ones((5, 3))
    with pytest.raises(UsageError, match="dimensions"):
        gaussian_kernel_distance(x, x[:, :2], sigma=1)
    with pytest.raises(DataError, match="5 of 5 features are 0"):
        score(x, 0 * x)
    with pytest.raises(DataError, match="NaN"):
        score(x, x * np.nan)
