"""The intra-class Fréchet distance: sees swapped classes, names the worst, leaves out what it cannot know."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from ganvas.errors import DataError, UsageError
from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features
from ganvas.shelves.metrics.intra_class import IntraClassFrechetDistance, distances_by_class
from ganvas.types import Evidence, EvidenceSet


def classes(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Three classes with means 0, 10 and 20 on the first axis."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3
    features = rng.normal(size=(n, 4))
    features[:, 0] += 10 * label
    return features, label


def score(real: tuple, fake: tuple) -> dict[str, float]:
    sides = [EvidenceSet(features=torch.from_numpy(x), label=torch.from_numpy(label)) for x, label in (real, fake)]
    return IntraClassFrechetDistance()(Evidence(*sides))


def test_is_the_mean_and_the_largest_of_the_classes_own() -> None:
    (x, of_x), (y, of_y) = classes(0), classes(1)
    own = {c: frechet_distance_of_features(x[of_x == c], y[of_y == c]) for c in range(3)}
    assert distances_by_class(x, of_x, y, of_y) == pytest.approx(own)
    assert score((x, of_x), (y, of_y)) == {
        "intra_class_frechet_distance": pytest.approx(np.mean(list(own.values()))),
        "worst_class_frechet_distance": pytest.approx(max(own.values())),
    }


def test_swapped_classes_are_seen_here_and_only_here() -> None:
    x, of_x = classes(0)
    swapped = (x, (of_x + 1) % 3)
    assert frechet_distance_of_features(x, x) < 1e-9
    found = score((x, of_x), swapped)
    assert found["intra_class_frechet_distance"] == pytest.approx((100 + 100 + 400) / 3, rel=0.2)
    assert found["worst_class_frechet_distance"] == pytest.approx(400, rel=0.2)
    assert score((x, of_x), (x, of_x))["worst_class_frechet_distance"] < 1e-9


def test_order_changes_nothing() -> None:
    (x, of_x), (y, of_y) = classes(0), classes(1)
    order = np.random.default_rng(0).permutation(len(y))
    assert score((x, of_x), (y[order], of_y[order])) == pytest.approx(score((x, of_x), (y, of_y)), rel=1e-9)


def test_classes_of_one_side_are_left_out_and_said() -> None:
    (x, of_x), (y, of_y) = classes(0), classes(1)
    with pytest.warns(UserWarning, match="left out of the mean.* classes 2"):
        assert set(distances_by_class(x, of_x, y[of_y < 2], of_y[of_y < 2])) == {0, 1}
    with pytest.warns(UserWarning, match="a class has 3 samples, which cannot fill a covariance of 4"):
        distances_by_class(x, of_x, y[:9], of_y[:9])
    with warnings.catch_warnings(), pytest.raises(UsageError, match="no class has 2 samples"):
        warnings.simplefilter("ignore")
        distances_by_class(x[:3], of_x[:3], y, of_y)


def test_errors_name_the_fault() -> None:
    x, of_x = classes(0)
    with pytest.raises(UsageError, match="60 fake features need as many labels"):
        distances_by_class(x, of_x, x, of_x[:5])
    with pytest.raises(DataError, match="real labels are float64"):
        distances_by_class(x, of_x * 1.0, x, of_x)
    with pytest.raises(UsageError, match="needs labels of both sides"):
        features = torch.from_numpy(x)
        IntraClassFrechetDistance()(Evidence(EvidenceSet(features=features), EvidenceSet(features=features)))
