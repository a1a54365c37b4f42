"""CMMD: the squared maximum mean discrepancy of CLIP features under a Gaussian kernel (Jayasumana et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from annotated_types import Gt

from ganvas.errors import DataError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import blocks, features_of, same_width
from ganvas.stats.moments import Features, Rows, rows
from ganvas.types import Evidence, Metric

_SCALE = 1000  # makes readable numbers; the authors' choice


@metric("cmmd", paper="Jayasumana et al. 2024; Gretton et al. 2012, eq. 5")
class CMMD(Metric):
    """Squared Gaussian-kernel distance between directions of real and generated features, times 1000 (CMMD with CLIP).

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y) over all pairs, a sample with itself included,
    k(x, y) = exp(-|x - y|^2 / (2 sigma^2)), of features divided by their norms. As in the authors' code this is the
    biased estimator: from 0, and slightly above for two sets of the same distribution. No unit; below 2000.

    Parameters
    ----------
    sigma : the kernel's width, in the unit of the normalised features.
    """

    needs = frozenset({"features"})
    lower_is_better: Mapping[str, bool] = {"cmmd": True}
    limits: Mapping[str, tuple[float, float]] = {"cmmd": (0, 2 * _SCALE)}

    def __init__(self, *, sigma: Annotated[float, Gt(0)] = 10.0) -> None:
        self.sigma = sigma

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = features_of(evidence)
        unit = [_normalised(rows(x, name)) for x, name in ((real, "real features"), (fake, "fake features"))]
        return {"cmmd": _SCALE * gaussian_kernel_distance(*unit, sigma=self.sigma)}


def gaussian_kernel_distance(real: Features, fake: Features, *, sigma: float) -> float:
    """Biased squared MMD, in [0, 2], of features (N, D) and (M, D) under exp(-|x - y|^2 / (2 sigma^2)).

    Computed in float64, a block at a time. Features are taken as they are.

    Raises
    ------
    UsageError : no samples on a side, or different dimensions.
    DataError : NaN or infinite values.
    """
    x, y = rows(real, "real features"), rows(fake, "fake features")
    same_width(x, y)
    # 1 - k instead of k: for wide kernels all k are nearly 1, and the three means would cancel.
    xx, yy, xy = (_mean_of_loss(a, b, 1 / (2 * sigma**2)) for a, b in ((x, x), (y, y), (x, y)))
    return max(0.0, 2 * xy - xx - yy)


def _mean_of_loss(x: Rows, y: Rows, gamma: float) -> float:
    """The mean over all pairs of 1 - exp(-gamma |x_i - y_j|^2)."""
    total = 0.0
    for of_y in blocks(len(y), x.shape[1]):
        right = y[of_y].astype(np.float64)
        for of_x in blocks(len(x), max(x.shape[1], len(right))):
            left = x[of_x].astype(np.float64)
            squared = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * (left @ right.T)
            total -= float(np.expm1(-gamma * np.maximum(squared, 0)).sum())
    return total / (len(x) * len(y))


def _normalised(features: Rows) -> Rows:
    norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    if not norms.all():
        raise DataError(
            f"{int((norms == 0).sum())} of {len(norms)} features are 0 and have no direction",
            hint="cmmd is made for CLIP features, which never are",
        )
    unit: Rows = features / norms
    return unit
