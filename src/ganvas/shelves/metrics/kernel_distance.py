"""The kernel distance: squared maximum mean discrepancy under a polynomial kernel (KID with Inception features)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt

from ganvas.errors import UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import blocks, features_of, same_width
from ganvas.stats.moments import Double, Features, Rows, rows
from ganvas.types import Evidence, Metric


@dataclass(frozen=True)
class Polynomial:
    """k(x, y) = (gamma x.y + coef0)^degree; `gamma` None means 1 / D."""

    degree: int = 3
    gamma: float | None = None
    coef0: float = 1.0


CUBIC = Polynomial()  # of the published kernel inception distance


@metric("kernel-distance", paper="Bińkowski et al. 2018, sec. 4; Gretton et al. 2012, eq. 3")
class KernelDistance(Metric):
    """Unbiased squared kernel distance between real and generated features (KID with Inception features).

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y) over pairs of two samples, with the polynomial kernel
    k(x, y) = (gamma x.y + coef0)^degree, as an average over random subsets without replacement. Sets of at most
    `subset_size` samples are used whole, where the estimate is the same for every order. In the unit of the kernel;
    unbiased: about 0, and as often below, for the same distribution.

    Parameters
    ----------
    subsets : how many subsets are averaged.
    subset_size : samples of each side in a subset; "all" uses both sets whole, whatever their sizes.
    seed : decides the subsets.
    degree, gamma, coef0 : of the kernel; gamma None is 1 / D, for features of D dimensions.
    """

    needs = frozenset({"features"})
    lower_is_better: Mapping[str, bool] = {"kernel_distance": True}
    limits: Mapping[str, tuple[float, float]] = {"kernel_distance": (-math.inf, math.inf)}  # unbiased: may be negative

    def __init__(
        self,
        *,
        subsets: Annotated[int, Gt(0)] = 100,
        subset_size: Annotated[int, Gt(1)] | Literal["all"] = 1000,
        seed: Annotated[int, Ge(0)] = 0,
        degree: Annotated[int, Gt(0)] = 3,
        gamma: Annotated[float, Gt(0)] | None = None,
        coef0: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        self.subsets = subsets
        self.subset_size = subset_size
        self.seed = seed
        self.kernel = Polynomial(degree, gamma, coef0)

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = features_of(evidence)
        if self.subset_size == "all" or max(len(real), len(fake)) <= self.subset_size:
            return {"kernel_distance": kernel_distance(real, fake, self.kernel)}
        size = min(self.subset_size, len(real), len(fake))
        values = subset_kernel_distances(
            real, fake, self.kernel, subsets=self.subsets, subset_size=size, seed=self.seed
        )
        return {"kernel_distance": float(values.mean())}


def kernel_distance(
    real: Features,
    fake: Features,
    kernel: Polynomial = CUBIC,
    *,
    estimator: Literal["unbiased", "biased", "u-statistic"] = "unbiased",
) -> float:
    """Squared MMD between features (N, D) and (M, D) under a polynomial kernel, in float64 and bounded memory.

    Parameters
    ----------
    estimator : "unbiased" leaves out pairs of a sample with itself (Gretton et al. 2012, eq. 3); "biased" keeps them
        (eq. 5), and is never negative; "u-statistic" also leaves out (x_i, y_i), for N = M (eq. 4).

    Raises
    ------
    UsageError : fewer than 2 samples on a side, different dimensions, or a u-statistic of different counts.
    DataError : NaN or infinite values.
    """
    x, y = rows(real, "real features", at_least=2), rows(fake, "fake features", at_least=2)
    same_width(x, y)
    n, m = len(x), len(y)
    (xx, xx_same), (yy, yy_same), (xy, xy_same) = (_kernel_sums(*pair, kernel) for pair in ((x, x), (y, y), (x, y)))
    if estimator == "biased":
        return xx / n**2 + yy / m**2 - 2 * xy / (n * m)
    within = (xx - xx_same) / (n * (n - 1)) + (yy - yy_same) / (m * (m - 1))
    if estimator == "unbiased":
        return within - 2 * xy / (n * m)
    if n != m:
        raise UsageError(f"a u-statistic pairs samples, which {n} real and {m} fake ones cannot be")
    return within - 2 * (xy - xy_same) / (n * (n - 1))


def subset_kernel_distances(
    real: Features,
    fake: Features,
    kernel: Polynomial = CUBIC,
    *,
    subsets: int,
    subset_size: int,
    seed: int,
) -> Double:
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

    return np.array([kernel_distance(draw(x), draw(y), kernel) for _ in range(subsets)])


def _kernel_sums(x: Rows, y: Rows, kernel: Polynomial) -> tuple[float, float]:
    """The sum of the kernel over all pairs, and over the pairs (x_i, y_i)."""
    gamma = 1 / x.shape[1] if kernel.gamma is None else kernel.gamma
    total = same = 0.0
    for of_y in blocks(len(y), x.shape[1]):
        right = y[of_y].astype(np.float64)
        for of_x in blocks(len(x), max(x.shape[1], len(right))):
            values = gamma * (x[of_x].astype(np.float64) @ right.T) + kernel.coef0
            base = values.copy()
            for _ in range(kernel.degree - 1):  # several times faster than a power
                values *= base
            total += float(values.sum())
            same += float(np.diagonal(values, of_x.start - of_y.start).sum())
    return total, same
