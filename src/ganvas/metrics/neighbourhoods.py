"""Fidelity and diversity from nearest neighbours: improved precision and recall, density and coverage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from annotated_types import Gt

from ganvas.metrics.arrays import Distances, Features, features_of, rows
from ganvas.parts import metric
from ganvas.types import Evidence


@metric("precision-recall", paper="Kynkäänniemi et al. 2019, eq. 1-2")
class PrecisionRecall:
    """Improved precision and recall: shares of generated samples in the real manifold and the other way round.

    The manifold of a set is the union of open balls around its samples that reach to their k-th nearest neighbour.
    precision = share of generated samples inside the real manifold, recall = share of real samples inside the generated
    one; both in [0, 1], higher is better. An outlier among the real samples makes a large ball and raises precision.

    Parameters
    ----------
    k : the neighbour that a ball reaches to; the sample itself does not count.
    """

    needs = frozenset({"features"})
    lower_is_better: Mapping[str, bool] = {"precision": False, "recall": False}
    limits: Mapping[str, tuple[float, float]] = {"precision": (0, 1), "recall": (0, 1)}

    def __init__(self, *, k: Annotated[int, Gt(0)] = 3) -> None:
        self.k = k

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = features_of(evidence)
        precision, recall = precision_recall(real, fake, self.k)
        return {"precision": precision, "recall": recall}


@metric("density-coverage", paper="Naeem et al. 2020")
class DensityCoverage:
    """Density and coverage: how crowded the real neighbourhoods are with generated samples, and how many are visited.

    With the open ball B_i around real sample i that reaches to its k-th nearest real neighbour and M generated samples,
    density = (number of pairs with y_j in B_i) / (k M), from 0, about 1 for the same distribution and possibly above;
    coverage = share of the B_i with at least one y_j inside, in [0, 1]. Higher is better.

    Parameters
    ----------
    k : the neighbour that a ball reaches to; the sample itself does not count.
    """

    needs = frozenset({"features"})
    lower_is_better: Mapping[str, bool] = {"density": False, "coverage": False}
    limits: Mapping[str, tuple[float, float]] = {"density": (0, math.inf), "coverage": (0, 1)}

    def __init__(self, *, k: Annotated[int, Gt(0)] = 5) -> None:
        self.k = k

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = features_of(evidence)
        density, coverage = density_coverage(real, fake, self.k)
        return {"density": density, "coverage": coverage}


def precision_recall(real: Features, fake: Features, k: int = 3) -> tuple[float, float]:
    """(precision, recall) of features `fake` (M, D) against `real` (N, D), both in [0, 1].

    A point on the rim of a ball, within rounding, lies outside. Memory does not grow with N x M.

    Raises
    ------
    UsageError : at most k samples on a side, or different dimensions.
    DataError : NaN or infinite values.
    """
    distances = Distances(rows(real, "real features"), rows(fake, "fake features"))
    shrink = 1 - distances.slack
    real_radii = distances.radii(distances.real, k) * shrink  # (N,)
    fake_radii = distances.radii(distances.fake, k) * shrink  # (M,)
    in_real = np.zeros(len(distances.fake), dtype=bool)
    in_fake = np.zeros(len(distances.real), dtype=bool)
    for here, squared in distances.between(distances.real, distances.fake):
        in_real |= (squared < real_radii[here, None]).any(axis=0)
        in_fake[here] = (squared < fake_radii[None, :]).any(axis=1)
    return float(in_real.mean()), float(in_fake.mean())


def density_coverage(real: Features, fake: Features, k: int = 5) -> tuple[float, float]:
    """(density, coverage) of features `fake` (M, D) against `real` (N, D): density >= 0, coverage in [0, 1].

    A point on the rim of a ball, within rounding, lies outside. Memory does not grow with N x M.

    Raises
    ------
    UsageError : at most k real samples, no fake ones, or different dimensions.
    DataError : NaN or infinite values.
    """
    distances = Distances(rows(real, "real features"), rows(fake, "fake features"))
    radii = distances.radii(distances.real, k) * (1 - distances.slack)  # (N,)
    inside = np.concatenate(
        [
            (squared < radii[here, None]).sum(axis=1)
            for here, squared in distances.between(distances.real, distances.fake)
        ]
    )  # (N,) generated samples in each real ball
    return float(inside.sum() / (k * len(distances.fake))), float((inside > 0).mean())
