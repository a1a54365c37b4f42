"""The sliced Wasserstein distance of features: optimal transport along random lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from ganvas.errors import UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import features_of, same_width
from ganvas.stats.moments import Double, Features, rows
from ganvas.types import Evidence, Metric

_LINES = 64  # projected and sorted at once


@metric("sliced-distance", paper="Rabin et al. 2011; Bonneel et al. 2015")
class SlicedDistance(Metric):
    """Squared sliced Wasserstein-2 distance between real and generated features, the idea of MIND.

    SW^2 = mean over random unit vectors u of W^2(u.x, u.y), where W^2 on a line is the integral of the squared
    difference of the two quantile functions: exact, by sorting, also for sets of different sizes. In the squared unit
    of the features, from 0. A shift by t has SW^2 = |t|^2 / D on average over u. It needs no covariance, so that fewer
    samples than for a Fréchet distance will do. MIND (Berthet et al. 2026) is such a distance of Inception features;
    its own scale could not be checked here, so these values stand for themselves.

    Parameters
    ----------
    projections : how many lines.
    seed : decides the lines.
    """

    needs = frozenset({"features"})
    lower_is_better: Mapping[str, bool] = {"sliced_distance": True}
    limits: Mapping[str, tuple[float, float]] = {"sliced_distance": (0, math.inf)}

    def __init__(self, *, projections: Annotated[int, Gt(0)] = 1000, seed: Annotated[int, Ge(0)] = 0) -> None:
        self.projections = projections
        self.seed = seed

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = features_of(evidence)
        distances = sliced_distances(real, fake, projections=self.projections, seed=self.seed)
        return {"sliced_distance": float(distances.mean())}


def sliced_distances(real: Features, fake: Features, *, projections: int, seed: int) -> Double:
    """W^2 (P,) of features (N, D) and (M, D) along each of `projections` random lines, each >= 0.

    Raises
    ------
    UsageError : no samples on a side, different dimensions, or no lines.
    DataError : NaN or infinite values.
    """
    x, y = rows(real, "real features"), rows(fake, "fake features")
    same_width(x, y)
    if projections < 1:
        raise UsageError(f"projections must be at least 1, not {projections}")
    rng = np.random.default_rng(seed)
    distances = []
    for start in range(0, projections, _LINES):
        u = rng.normal(size=(min(_LINES, projections - start), x.shape[1]))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        distances.append(_line_distances(np.sort(_project(x, u), axis=1), np.sort(_project(y, u), axis=1)))
    return np.concatenate(distances)


def _project(features: np.ndarray, u: Double) -> Double:
    """u.x of every row, (P, N), in float64, a block of rows at a time."""
    block = 4096
    return np.concatenate(
        [u @ features[start : start + block].astype(np.float64).T for start in range(0, len(features), block)], axis=1
    )


def _line_distances(x: Double, y: Double) -> Double:
    """W^2 (P,) between the rows of sorted x (P, N) and y (P, M): both quantile functions are constant between steps."""
    n, m = x.shape[1], y.shape[1]
    steps = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # of 1 / (N M), whole numbers: no rounding
    widths = np.diff(steps, prepend=0) / (n * m)
    i, j = (steps - 1) // m, (steps - 1) // n  # which sample each step belongs to
    squared: Double = (x[:, i] - y[:, j]) ** 2 @ widths
    return squared
