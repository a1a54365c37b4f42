"""The kernel distance: squared maximum mean discrepancy under a polynomial kernel (KID with Inception features)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from ganvas.errors import UsageError
from ganvas.metrics.arrays import Double, Features, Rows, blocks, features_of, rows, same_width
from ganvas.parts import metric
from ganvas.types import Evidence


@metric("kernel-distance", paper="Bińkowski et al. 2018, sec. 4; Gretton et al. 2012, eq. 3")
class KernelDistance:
    """Unbiased squared kernel distance between real and generated features (KID with Inception features).

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y) over pairs of two samples, k(x, y) = (x.y / D + 1)^3, as an
    average over random subsets without replacement. Sets of at most `subset_size` samples are used whole, where the
    estimate is the same for every order. In the unit of the kernel; unbiased: about 0, and as often below, for the
    same distribution.

    Parameters
    ----------
    subsets : how many subsets are averaged.
    subset_size : samples of each side in a subset.
    seed : decides the subsets.
    """

    needs = frozenset({"features"})
    lower_is_better: Mapping[str, bool] = {"kernel_distance": True}
    limits: Mapping[str, tuple[float, float]] = {"kernel_distance": (-math.inf, math.inf)}  # unbiased: may be negative

    def __init__(
        self,
        *,
        subsets: Annotated[int, Gt(0)] = 100,
        subset_size: Annotated[int, Gt(1)] = 1000,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self.subsets = subsets
        self.subset_size = subset_size
        self.seed = seed

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = features_of(evidence)
        if max(len(real), len(fake)) <= self.subset_size:
            return {"kernel_distance": kernel_distance(real, fake)}
        size = min(self.subset_size, len(real), len(fake))
        values = subset_kernel_distances(real, fake, subsets=self.subsets, subset_size=size, seed=self.seed)
        return {"kernel_distance": float(values.mean())}


def kernel_distance(
    real: Features, fake: Features, *, degree: int = 3, gamma: float | None = None, coef0: float = 1.0
) -> float:
    """Unbiased squared MMD between features (N, D) and (M, D) under k(x, y) = (gamma x.y + coef0)^degree.

    Computed in float64, a block of rows at a time. `gamma` None means 1 / D.

    Raises
    ------
    UsageError : fewer than 2 samples on a side, or different dimensions.
    DataError : NaN or infinite values.
    """
    x, y = rows(real, "real features", at_least=2), rows(fake, "fake features", at_least=2)
    same_width(x, y)
    n, m = len(x), len(y)
    scale = 1 / x.shape[1] if gamma is None else gamma
    (xx, xx_same), (yy, yy_same) = (_kernel_sums(each, each, degree, scale, coef0) for each in (x, y))
    xy, _ = _kernel_sums(x, y, degree, scale, coef0)
    return (xx - xx_same) / (n * (n - 1)) + (yy - yy_same) / (m * (m - 1)) - 2 * xy / (n * m)


def subset_kernel_distances(real: Features, fake: Features, *, subsets: int, subset_size: int, seed: int) -> Double:
    """`kernel_distance` of `subsets` random subsets of `subset_size` samples of each side: (subsets,).

    Raises
    ------
    UsageError : fewer than `subset_size` samples on a side, or `subset_size` below 2.
    """
    x, y = rows(real, "real features", at_least=2), rows(fake, "fake features", at_least=2)
    if not 2 <= subset_size <= min(len(x), len(y)) or subsets < 1:
        raise UsageError(
            f"{subsets} subsets of {subset_size} cannot be drawn from {len(x)} real and {len(y)} fake samples",
            hint="subset_size lies between 2 and the smaller count",
        )
    rng = np.random.default_rng(seed)

    def draw(features: Rows) -> Rows:
        return features[rng.choice(len(features), subset_size, replace=False)]

    return np.array([kernel_distance(draw(x), draw(y)) for _ in range(subsets)])


def _kernel_sums(x: Rows, y: Rows, degree: int, gamma: float, coef0: float) -> tuple[float, float]:
    """The sum of the kernel over all pairs, and over the pairs (x_i, y_i) (which only means something for x = y)."""
    total = same = 0.0
    right = y.astype(np.float64)
    for here in blocks(len(x), len(y)):
        left = x[here].astype(np.float64)
        base = gamma * (left @ right.T) + coef0
        kernel = np.ones_like(base)
        for _ in range(degree):  # several times faster than a power
            kernel *= base
        total += float(kernel.sum())
        same += float(np.diagonal(kernel, here.start).sum())
    return total, same
