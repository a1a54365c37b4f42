"""The Fréchet distance at infinitely many generated samples, by extrapolation (Chong and Forsyth 2020)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from ganvas.errors import UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.frechet_distance import (
    Gaussian,
    gaussian_of_evidence,
    gaussian_of_features,
    squared_distance,
)
from ganvas.stats.moments import Double, Features, rows
from ganvas.types import Evidence, Metric

_SMALLEST = 10  # the smallest subset is this part of the samples: 5,000 of 50,000 in the paper


@metric("frechet-infinity", paper="Chong and Forsyth 2020")
class FrechetInfinity(Metric):
    """Fréchet distance extrapolated to infinitely many generated samples (FID-infinity with Inception features).

    The distance of N samples is biased by about c/N, with another c for each model. It is taken at `points` values of N
    from a tenth of the samples to all, each with a fresh random subset; a least-squares line in 1/N is read at 1/N = 0.
    In the squared unit of the features; an estimate, so slightly negative values occur. Only the bias of the generated
    side goes away: the reference stays finite. Warns where the smallest subset has no more samples than dimensions,
    where the line does not hold.

    Parameters
    ----------
    points : values of N.
    seed : decides the subsets.
    """

    needs = frozenset({"real:moments", "fake:features"})
    lower_is_better: Mapping[str, bool] = {"frechet_infinity": True}
    limits: Mapping[str, tuple[float, float]] = {"frechet_infinity": (-math.inf, math.inf)}

    def __init__(self, *, points: Annotated[int, Gt(1)] = 15, seed: Annotated[int, Ge(0)] = 0) -> None:
        self.points = points
        self.seed = seed

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        if evidence.fake.features is None:
            raise UsageError("the evidence holds no features of generated samples", hint="name an extractor")
        real = gaussian_of_evidence(evidence.real)
        counts, distances = distances_of_subsets(real, evidence.fake.features, points=self.points, seed=self.seed)
        if counts[0] <= len(real.mean):
            warnings.warn(
                f"the smallest subset has {counts[0]} samples for {len(real.mean)} dimensions: distances of so few do "
                "not lie on a line in 1/N, and the extrapolated one is unreliable"
            )
        return {"frechet_infinity": extrapolated(counts, distances)}


def distances_of_subsets(real: Gaussian, fake: Features, *, points: int, seed: int) -> tuple[np.ndarray, Double]:
    """(counts (P,) ascending, squared Fréchet distances (P,)) of random subsets of `fake` (N, D) from `real`.

    The last subset is all of `fake`.

    Raises
    ------
    UsageError : too few samples for so many different counts, or different dimensions.
    DataError : NaN or infinite values.
    """
    y = rows(fake, "fake features", at_least=2)
    counts = np.unique(np.linspace(max(2, len(y) // _SMALLEST), len(y), points).round().astype(np.int64))
    if len(counts) < points:
        raise UsageError(f"{len(y)} samples have no {points} subsets of different sizes", hint="sample more")
    rng = np.random.default_rng(seed)
    distances = [
        squared_distance(real, gaussian_of_features(y[np.sort(rng.choice(len(y), n, replace=False))])) for n in counts
    ]
    return counts, np.array(distances)


def extrapolated(counts: np.ndarray, distances: Double) -> float:
    """Where the least-squares line through distances (P,) over 1/counts (P,) meets 1/N = 0."""
    _, intercept = np.polyfit(1 / counts, distances, 1)
    return float(intercept)
