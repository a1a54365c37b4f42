"""The Fréchet distance between Gaussians that are fitted to features (FID with Inception features)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import scipy.linalg

from ganvas.errors import DataError, UsageError
from ganvas.metrics.arrays import Double, Features, Rows, blocks, features_of, rows, same_width
from ganvas.parts import metric
from ganvas.types import Evidence


@metric("frechet-distance", paper="Heusel et al. 2017, eq. 6; Dowson and Landau 1982")
class FrechetDistance:
    """Squared Fréchet distance between Gaussians fitted to real and generated features (FID with Inception features).

    d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), with means m and unbiased covariances S. In the squared unit of
    the features, from 0 (same moments) without bound. Biased upwards, by about 1/n: compare only scores of the same
    counts, data and extractor. Warns where a set has too few samples for a covariance of full rank.
    """

    needs = frozenset({"features"})
    lower_is_better: Mapping[str, bool] = {"frechet_distance": True}
    limits: Mapping[str, tuple[float, float]] = {"frechet_distance": (0, math.inf)}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = features_of(evidence)
        return {"frechet_distance": frechet_distance_of_features(real, fake)}


class Moments:
    """Mean and covariance of features that arrive in pieces, in float64 (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: Double = np.zeros(0)
        self._scatter: Double = np.zeros((0, 0))

    def add(self, features: Features) -> None:
        """Count in the rows of `features` (N, D); N may be 1.

        Raises
        ------
        UsageError : another D than before.
        DataError : NaN or infinite values.
        """
        piece = rows(features, "features")
        if not self.count:
            self._mean, self._scatter = np.zeros(piece.shape[1]), np.zeros((piece.shape[1], piece.shape[1]))
        if piece.shape[1] != len(self._mean):
            raise UsageError(f"features of {piece.shape[1]} dimensions after ones of {len(self._mean)}")
        for here in blocks(len(piece), piece.shape[1]):
            block = piece[here].astype(np.float64)
            n, m = self.count, len(block)
            mean = block.mean(axis=0)
            shift = mean - self._mean
            centred = block - mean
            self._scatter += centred.T @ centred + np.outer(shift, shift) * (n * m / (n + m))
            self._mean = self._mean + shift * (m / (n + m))
            self.count = n + m

    def result(self) -> tuple[Double, Double]:
        """(mean (D,), unbiased covariance (D, D)).

        Raises
        ------
        UsageError : fewer than 2 rows so far.
        """
        if self.count < 2:
            raise UsageError(f"{self.count} features have no covariance", hint="give at least 2 samples")
        return self._mean, self._scatter / (self.count - 1)


def statistics(*features: Features) -> tuple[Double, Double]:
    """Mean (D,) and unbiased covariance (D, D) in float64 of features (N, D), in one piece or several.

    `Moments` does the same for pieces that are never all in memory.

    Raises
    ------
    UsageError : fewer than 2 rows in all, or pieces of different D.
    DataError : NaN or infinite values.
    """
    moments = Moments()
    for piece in features:
        moments.add(piece)
    return moments.result()


def frechet_distance(mean1: npt.ArrayLike, cov1: npt.ArrayLike, mean2: npt.ArrayLike, cov2: npt.ArrayLike) -> float:
    """Squared Fréchet distance between N(mean1, cov1) and N(mean2, cov2): means (D,), covariances (D, D), result >= 0.

    Raises
    ------
    UsageError : shapes that do not fit.
    DataError : NaN or infinite values, or a covariance with a negative eigenvalue.
    """
    m1, m2 = _moment(mean1, 1), _moment(mean2, 1)
    S1, S2 = _moment(cov1, 2), _moment(cov2, 2)
    if not m1.shape == m2.shape == S1.shape[:1] == S2.shape[:1] or S1.shape != S2.shape or S1.shape[0] != S1.shape[1]:
        raise UsageError(
            f"means {m1.shape} and {m2.shape} and covariances {S1.shape} and {S2.shape} do not fit together",
            hint="embed both sets with the same extractor",
        )
    return _distance(m1, _root(S1), float(np.trace(S1)), m2, _root(S2), float(np.trace(S2)))


def frechet_distance_of_features(real: Features, fake: Features) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features (N, D) and (M, D).

    The same number as `frechet_distance(*statistics(real), *statistics(fake))`; a set of at most D samples is used as
    its own factor of the covariance, which is cheaper and more exact. Warns where N or M is below D + 1.

    Raises
    ------
    UsageError : fewer than 2 samples on a side, or different dimensions.
    DataError : NaN or infinite values.
    """
    x, y = rows(real, "real features", at_least=2), rows(fake, "fake features", at_least=2)
    same_width(x, y)
    smallest, d = min(len(x), len(y)), x.shape[1]
    if smallest < d + 1:
        warnings.warn(
            f"{smallest} samples cannot fill a covariance of {d} dimensions (at least {d + 1} would): this Fréchet "
            "distance depends strongly on the number of samples"
        )
    return _distance(*_factor(x), *_factor(y))


def _factor(features: Rows) -> tuple[Double, Double, float]:
    """The mean, some F with F^T F = S, and tr S, of the covariance S of features."""
    n, d = features.shape
    if n > d:
        mean, S = statistics(features)
        return mean, _root(S), float(np.trace(S))
    mean = features.mean(axis=0, dtype=np.float64)
    F = (features - mean) / np.sqrt(n - 1)
    return mean, F, float((F**2).sum())


def _distance(m1: Double, F1: Double, trace1: float, m2: Double, F2: Double, trace2: float) -> float:
    """d^2 from means, factors F with F^T F = S, and traces.

    The eigenvalues of S1 S2 are the squared singular values of F1 F2^T, so tr (S1 S2)^(1/2) is the sum of those. Roots
    of eigenvalues would lose half the digits.
    """
    cross = float(scipy.linalg.svdvals(F1 @ F2.T).sum())
    return max(0.0, float(((m1 - m2) ** 2).sum()) + trace1 + trace2 - 2 * cross)


def _root(S: Double) -> Double:
    """The symmetric square root of a covariance."""
    values, vectors = scipy.linalg.eigh(S)
    # Rounding leaves values of this size where the exact ones are 0; their roots would not be small any more.
    noise = values[-1] * len(S) * np.finfo(np.float64).eps
    if values[0] < -1e-4 * abs(values[-1]):
        raise DataError(
            f"a covariance has the negative eigenvalue {values[0]:.3g}", hint="covariances are X^T X / (n - 1)"
        )
    root: Double = (vectors * np.sqrt(np.where(values > noise, values, 0))) @ vectors.T
    return root


def _moment(values: npt.ArrayLike, axes: int) -> Double:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != axes:
        raise UsageError(
            f"a {'mean' if axes == 1 else 'covariance'} must have {axes} axes, not the shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise DataError("a mean or covariance holds NaN or infinite values", hint="look at the features it comes from")
    return array
