"""Toy mixtures: the modes are where they are said to be, and counting them is exact."""

import numpy as np
import pytest

from ganvas import parts
from ganvas.errors import BadValue
from ganvas.recipe.check import check_node
from ganvas.toys.plane import RADIUS, centres, modes_found


def test_ring_and_grid_lie_where_they_should() -> None:
    ring = centres(8, "ring")
    assert np.allclose(np.linalg.norm(ring, axis=1), RADIUS)
    assert np.allclose(np.diff(np.sort(np.arctan2(ring[:, 1], ring[:, 0]))), np.pi / 4)
    grid = centres(25, "grid")
    assert len(np.unique(grid[:, 0])) == len(np.unique(grid[:, 1])) == 5
    assert grid.min() == -RADIUS and grid.max() == RADIUS


def test_a_grid_needs_a_square_number() -> None:
    with pytest.raises(BadValue, match="24 modes"):
        centres(24, "grid")


def test_points_are_the_mixture_that_was_asked_for() -> None:
    data = parts.build("dataset", check_node("dataset", {"use": "gaussians", "modes": 4, "std": 0.05, "count": 8000}))
    batch = data.batch(np.arange(8000), np.random.default_rng(0))
    assert batch.data.shape == (8000, 2) and data.spec.num_classes == 4 and data.spec.modality.part_name == "plane"
    for mode, where in enumerate(centres(4, "ring")):
        own = batch.data[batch.label == mode].numpy()
        assert len(own) == 2000
        assert own.mean(0) == pytest.approx(where, abs=0.005)
        assert own.std(0) == pytest.approx([0.05, 0.05], rel=0.05)


def test_fingerprint_follows_every_key() -> None:
    base = {"use": "gaussians", "count": 50}
    prints = {
        parts.build("dataset", check_node("dataset", {**base, **change})).fingerprint
        for change in ({}, {"modes": 9}, {"layout": "grid", "modes": 9}, {"std": 0.02}, {"seed": 1}, {"count": 51})
    }
    assert len(prints) == 6


def test_modes_are_counted_within_three_standard_deviations_and_from_a_fair_share_on() -> None:
    where = centres(4, "ring")
    points = np.concatenate([np.repeat(where[:2], 50, axis=0), where[2:3] + np.array([0.031, 0]), np.zeros((9, 2))])
    assert modes_found(points, where, 0.01) == (2, pytest.approx(100 / 110))
    assert modes_found(points, where, 0.011) == (2, pytest.approx(101 / 110))  # found, but a fifth of its share is 6
    assert modes_found(points, where, 0.011, share=0.01) == (3, pytest.approx(101 / 110))
