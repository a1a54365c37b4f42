"""Exact precision and recall on images whose factors are chosen."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from ganvas.errors import DataError, UsageError
from ganvas.shelves.metrics.shapes_exact import ShapesExact, shapes_precision_recall
from ganvas.toys import shapes
from ganvas.types import Evidence, EvidenceSet


def images(count: int, seed: int, kinds: tuple[int, ...] = (0, 1, 2, 3)) -> torch.Tensor:
    """Drawn shapes of these kinds: (count, 3, 32, 32) in [-1, 1]."""
    factors = shapes.random_factors(count, seed)
    factors["kind"] = np.array(kinds)[factors["kind"] % len(kinds)]
    return torch.from_numpy(shapes.draw(factors, 32)).float() / 127.5 - 1


def scores(real: torch.Tensor, fake: torch.Tensor) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ShapesExact()(Evidence(EvidenceSet(images=real), EvidenceSet(images=fake)))
    assert set(found) == set(ShapesExact.lower_is_better)
    return found["shapes_precision"], found["shapes_recall"]


def test_real_data_are_perfect_against_themselves() -> None:
    real = images(300, 0)
    assert scores(real, real) == (1, 1)


def test_precision_is_the_share_of_shapes_and_recall_ignores_the_rest() -> None:
    real = images(200, 0)
    noise = torch.rand(100, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    broken = torch.full((100, 3, 32, 32), torch.nan)
    assert scores(real, torch.cat([real, noise, broken])) == (0.5, 1)
    assert scores(real, noise) == (0, 0)


def test_a_missing_kind_costs_its_cells() -> None:
    real = images(1500, 0)
    factors, valid = shapes.recover(real)
    assert valid.all()
    cells = shapes.cell(factors)
    kept = factors["kind"] < 3
    precision, recall = scores(real, real[torch.from_numpy(kept)])
    assert precision == 1
    assert recall == len(np.unique(cells[kept])) / len(np.unique(cells))
    assert 0.65 < recall < 0.85


def test_collapse_to_one_image_hits_one_cell() -> None:
    real = images(500, 0)
    cells = len(np.unique(shapes.cell(shapes.recover(real)[0])))
    assert scores(real, real[:1].repeat(50, 1, 1, 1)) == (1, 1 / cells)


def test_warns_of_few_samples() -> None:
    real = images(500, 0)
    with pytest.warns(UserWarning, match=r"50 samples are few for \d+ cells: even a perfect model's .* about 0.1"):
        shapes_precision_recall(real, real[:50])


def test_errors_name_the_fault() -> None:
    real = images(20, 0)
    with pytest.raises(DataError, match="none of the real images is a drawn shape"):
        shapes_precision_recall(torch.zeros(4, 3, 32, 32), real)
    with pytest.raises(UsageError, match="no fake images"):
        shapes_precision_recall(real, real[:0])
    with pytest.raises(UsageError, match="no shapes pictures"):
        shapes_precision_recall(real, torch.zeros(4, 1, 8, 8))
    with pytest.raises(UsageError, match="holds no images"):
        ShapesExact()(Evidence(EvidenceSet(images=real), EvidenceSet()))
