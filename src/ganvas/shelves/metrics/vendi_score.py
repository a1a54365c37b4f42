"""The Vendi score: how many different samples a set is worth."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import scipy.linalg
import scipy.special
from annotated_types import Ge, Gt

from ganvas.errors import DataError, UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import Distances, blocks
from ganvas.stats.moments import Double, Features, Rows, rows
from ganvas.types import Evidence, Metric


@metric("vendi-score", paper="Friedman and Dieng 2023")
class VendiScore(Metric):
    """The number of entirely different samples that would be as diverse as the generated ones.

    exp of the von Neumann entropy of K / n, where K holds the similarities of n samples: from 1, all alike, to n.
    Higher is better. It never looks at whether samples are good: noise scores high. It grows with n until the set is
    exhausted, so only sets of the same size are comparable.

    Parameters
    ----------
    kernel : "cosine" of the features, or "rbf", exp(-d^2 / (2 s^2)) of their Euclidean distance d.
    bandwidth : s of the second kernel; None is the median distance of real samples, which all models share.
    order : of the entropy; 1 is the von Neumann entropy, below 1 counts rare samples for more, above for less
        (Pasarkar and Dieng 2024).
    subset : with "rbf", which needs an n x n matrix, so many samples at random stand for a larger set.
    seed : decides which.
    """

    needs = frozenset({"fake:features"})
    lower_is_better: Mapping[str, bool] = {"vendi_score": False}
    limits: Mapping[str, tuple[float, float]] = {"vendi_score": (1, math.inf)}

    def __init__(
        self,
        *,
        kernel: Literal["cosine", "rbf"] = "cosine",
        bandwidth: Annotated[float, Gt(0)] | None = None,
        order: Annotated[float, Gt(0)] = 1.0,
        subset: Annotated[int, Gt(1)] = 2000,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self.kernel = kernel
        self.bandwidth = bandwidth
        self.order = order
        self.subset = subset
        self.seed = seed
        if kernel == "rbf" and bandwidth is None:
            self.needs = frozenset({"features"})

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        fake = evidence.fake.features
        if fake is None:
            raise UsageError("the evidence holds no features", hint="name an extractor")
        if self.kernel == "cosine":
            score = vendi_score(fake, order=self.order)
        else:
            rng = np.random.default_rng(self.seed)
            bandwidth = self.bandwidth or self._median(evidence)
            score = vendi_score(self._some(fake, rng), bandwidth=bandwidth, order=self.order)
        return {"vendi_score": score}

    def _median(self, evidence: Evidence) -> float:
        if evidence.real.features is None:
            raise UsageError("the evidence holds no real features", hint="give a bandwidth")
        return median_distance(self._some(evidence.real.features, np.random.default_rng(self.seed)))

    def _some(self, features: Features, rng: np.random.Generator) -> Rows:
        array = rows(features, "features")
        if len(array) <= self.subset:
            return array
        chosen: Rows = array[np.sort(rng.choice(len(array), self.subset, replace=False))]
        return chosen


def vendi_score(features: Features, *, bandwidth: float | None = None, order: float = 1.0) -> float:
    """exp(−Σ λ log λ) of the eigenvalues λ of K / n for features (N, D), in [1, N].

    Of another order q it is (Σ λ^q)^(1 / (1 - q)), and 1 / max λ where q is infinite. K is the cosine of features, by
    way of the smaller of an N x N and a D x D matrix, or with a `bandwidth` the Gaussian kernel
    exp(-d^2 / (2 bandwidth^2)), N x N. Eigenvalues that rounding alone can have made count as 0, or an order below 1
    would take each of them for a rare sample.

    Raises
    ------
    UsageError : no samples, or no positive bandwidth or order.
    DataError : NaN or infinite values, or a feature vector of zeros, which has no direction.
    """
    x = rows(features, "features")
    n = len(x)
    matrix = _cosine(x) if bandwidth is None else _gaussian(x, bandwidth)
    eigenvalues = scipy.linalg.eigvalsh(matrix, overwrite_a=True, check_finite=False)
    eigenvalues = np.where(eigenvalues > _noise(x, eigenvalues.max(), gaussian=bandwidth is not None), eigenvalues, 0)
    score = _effective_number(eigenvalues / eigenvalues.sum(), order)
    if score > n / 2 > 1:
        warnings.warn(f"{n} samples are few for a Vendi score of {score:.1f}, which cannot exceed their number")
    return min(max(score, 1.0), float(n))


def _noise(x: Rows, largest: float, *, gaussian: bool) -> float:
    """The largest eigenvalue that rounding can make where there is none, for features (N, D) in their own precision.

    Rounded features have singular values of up to max(N, D) eps of the largest one (as in NumPy's `matrix_rank`), whose
    squares are eigenvalues; the sums are float64. Entries of a Gaussian kernel that are off by some eps, at random, add
    a matrix whose spectrum reaches to 2 eps sqrt(N).
    """
    own, double = float(np.finfo(x.dtype).eps), float(np.finfo(np.float64).eps)
    if gaussian:
        return 8 * own * math.sqrt(len(x)) + len(x) * double * largest
    size = max(x.shape)
    return float(largest * max((size * own) ** 2, size * double))


def _effective_number(shares: Double, order: float) -> float:
    """Hill's number of this order of shares that sum to 1."""
    if not order > 0:
        raise UsageError(f"an entropy of order {order}", hint="it is above 0")
    if order == 1:
        return float(np.exp(scipy.special.entr(shares).sum()))
    if math.isinf(order):
        return float(1 / shares.max())
    return float((shares**order).sum() ** (1 / (1 - order)))


def median_distance(features: Features) -> float:
    """Median Euclidean distance of two different rows of features (N, D).

    Raises
    ------
    UsageError : fewer than 2 rows.
    DataError : NaN or infinite values, or a median of 0.
    """
    x = rows(features, "real features", at_least=2)
    distances = Distances(x, x[:1])
    squared = np.empty((len(x), len(x)), dtype=distances.dtype)
    for part, block in distances.between(distances.real, distances.real):
        squared[part] = block
    median = float(np.median(np.sqrt(squared[np.triu_indices(len(x), 1)])))
    if median == 0:
        raise DataError("most real samples have the same features, so they give no bandwidth", hint="give bandwidth")
    return median


def _cosine(x: Rows) -> Double:
    """X X^T or X^T X, which share their non-zero eigenvalues, of rows made unit vectors; whichever is smaller."""
    n, d = x.shape
    length = np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))
    if not length.all():
        raise DataError(
            f"{int((length == 0).sum())} of {n} features are vectors of zeros, which have no direction",
            hint="choose another extractor, or a bandwidth for distances in place of angles",
        )
    if n <= d:
        unit = x / length[:, None]
        gram: Double = unit @ unit.T
        return gram
    scatter = np.zeros((d, d))
    for part in blocks(n, d):
        unit = x[part] / length[part, None]
        scatter += unit.T @ unit
    return scatter


def _gaussian(x: Rows, bandwidth: float) -> Double:
    if not (math.isfinite(bandwidth) and bandwidth > 0):
        raise UsageError(f"a bandwidth of {bandwidth}", hint="it is a distance above 0")
    distances = Distances(x, x[:1])
    kernel = np.empty((len(x), len(x)))
    for part, squared in distances.between(distances.real, distances.real):
        kernel[part] = np.exp(squared / (-2 * bandwidth**2))
    return kernel
