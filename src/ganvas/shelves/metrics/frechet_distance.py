"""The Fréchet distance between Gaussians that are fitted to features (FID with Inception features)."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ganvas.errors import DataError, UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import same_width
from ganvas.stats.moments import Double, Features, Rows, checked_moments, moments_of, rows
from ganvas.types import Evidence, EvidenceSet, Metric, Moments

_EPSILON = float(np.finfo(np.float64).eps)
_TOLERANCE = 5e-9  # of tr S1 + tr S2: the most that the fast way may be off by
_NEGATIVE = 1e-4  # of the largest eigenvalue: more than rounding makes of a 0


@metric("frechet-distance", paper="Heusel et al. 2017, eq. 6; Dowson and Landau 1982")
class FrechetDistance(Metric):
    """Squared Fréchet distance between Gaussians fitted to real and generated features (FID with Inception features).

    d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), with means m and unbiased covariances S. In the squared unit of
    the features, from 0 (same moments) without bound. Biased upwards, by about 1/n: compare only scores of the same
    counts, data and extractor. Warns where a set has too few samples for a covariance of full rank.
    """

    needs = frozenset({"moments"})
    lower_is_better: Mapping[str, bool] = {"frechet_distance": True}
    limits: Mapping[str, tuple[float, float]] = {"frechet_distance": (0, math.inf)}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = gaussian_of_evidence(evidence.real), gaussian_of_evidence(evidence.fake)
        warn_of_few_samples(real, fake)
        return {"frechet_distance": squared_distance(real, fake)}


# --------------------------------------------------------------------------------------------------- of arrays


def statistics(*features: Features) -> tuple[Double, Double]:
    """Mean (D,) and unbiased covariance (D, D) in float64 of features (N, D), in one piece or several.

    Raises
    ------
    UsageError : fewer than 2 rows in all, or pieces of different D.
    DataError : NaN or infinite values.
    """
    moments = moments_of(*features)
    return moments.mean, moments.covariance


def frechet_distance(mean1: npt.ArrayLike, cov1: npt.ArrayLike, mean2: npt.ArrayLike, cov2: npt.ArrayLike) -> float:
    """Squared Fréchet distance between N(mean1, cov1) and N(mean2, cov2): means (D,), covariances (D, D), result >= 0.

    Raises
    ------
    UsageError : different dimensions.
    DataError : arrays that are no moments: other shapes, NaN or infinite values, or a covariance that is not symmetric
        or has a negative eigenvalue.
    """
    return frechet_distance_of_moments(checked_moments(mean1, cov1), checked_moments(mean2, cov2))


def frechet_distance_of_moments(real: Moments, fake: Moments) -> float:
    """Squared Fréchet distance between the Gaussians with these moments, >= 0; warns of fewer than D + 1 samples.

    Raises
    ------
    UsageError : different dimensions.
    DataError : a covariance with a negative eigenvalue.
    """
    gaussians = DenseGaussian(real), DenseGaussian(fake)
    warn_of_few_samples(*gaussians)
    return squared_distance(*gaussians)


def frechet_distance_of_features(real: Features, fake: Features) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features (N, D) and (M, D), >= 0.

    The same number as `frechet_distance(*statistics(real), *statistics(fake))`; a set of at most D samples is used as
    its own factor of the covariance, which is cheaper and more exact. Warns where N or M is below D + 1.

    Raises
    ------
    UsageError : fewer than 2 samples on a side, or different dimensions.
    DataError : NaN or infinite values.
    """
    x, y = rows(real, "real features", at_least=2), rows(fake, "fake features", at_least=2)
    same_width(x, y)
    gaussians = gaussian_of_features(x), gaussian_of_features(y)
    warn_of_few_samples(*gaussians)
    return squared_distance(*gaussians)


# --------------------------------------------------------------------------------------------------- of Gaussians


class Gaussian(ABC):
    """N(m, S), ready for distances to others: what costs O(D^3) on one side is done once.

    Attributes
    ----------
    mean : m, (D,).
    trace : tr S.
    scale : the Frobenius norm of S.
    count : how many samples it was fitted to; 0 where nobody knows.
    """

    mean: Double
    trace: float
    scale: float
    count: int

    @property
    def rank_bound(self) -> int:
        """The most that the rank of S can be."""
        return min(len(self.mean), self.count - 1) if self.count else len(self.mean)

    @property
    @abstractmethod
    def factor(self) -> Tensor:
        """F (R, D) with F^T F = S and R no more than `rank_bound`; upper triangular where S is positive definite."""

    @abstractmethod
    def congruence(self, factor: Tensor) -> Tensor:
        """F S F^T (R, R) for another Gaussian's F (R, D); only the lower triangle means something."""

    def refuse_negative(self) -> None:  # nothing to refuse where S is F^T F
        """Raise a DataError if S has a negative eigenvalue."""


class DenseGaussian(Gaussian):
    """Known by its covariance."""

    def __init__(self, moments: Moments) -> None:
        self.mean = moments.mean
        self.count = moments.count
        self.covariance = torch.from_numpy(np.ascontiguousarray(moments.covariance))  # (D, D)
        self.trace = float(self.covariance.trace())
        self.scale = float(torch.linalg.matrix_norm(self.covariance))

    @cached_property
    def factor(self) -> Tensor:
        S = self.covariance
        if self.rank_bound == len(S):
            lower, failed = torch.linalg.cholesky_ex(S)
            if not failed:
                return torch.as_tensor(lower.T)
        values, vectors = self._spectrum
        self.refuse_negative()
        # Rounding leaves values of this size where the exact ones are 0; their roots would not be small any more.
        positive = values > float(values[-1]) * len(S) * _EPSILON
        return (vectors[:, positive] * values[positive].sqrt()).T

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(self.covariance)
        return values, vectors

    def congruence(self, factor: Tensor) -> Tensor:
        F, S = factor, self.covariance
        if len(F) < len(S):
            return F @ S @ F.T
        # F is upper triangular: in halves, 10 of 16 products are neither with zeros nor above the diagonal.
        h = len(F) // 2
        M = torch.zeros_like(S)
        above = S @ F[:h].T  # (D, h)
        M[:h, :h] = F[:h] @ above
        M[h:, :h] = F[h:, h:] @ above[h:]
        M[h:, h:] = F[h:, h:] @ (S[h:, h:] @ F[h:, h:].T)
        return M

    def refuse_negative(self) -> None:
        values, _ = self._spectrum
        if values[0] < -_NEGATIVE * values.abs().max():
            raise DataError(
                f"a covariance has the negative eigenvalue {float(values[0]):.3g}",
                hint="covariances are X^T X / (N - 1) of centred features X (N, D)",
            )


class SampledGaussian(Gaussian):
    """Known by features (N, D), 2 <= N <= D, that it is fitted to; S is never made."""

    def __init__(self, features: Rows) -> None:
        n = self.count = len(features)
        self.mean = features.mean(axis=0, dtype=np.float64)
        centred = features - self.mean
        # A reflection that takes (1, ..., 1) to the first axis makes the first row 0 and leaves as many as S has rank.
        contrasts = (centred[1:] + centred[0] / (math.sqrt(n) - 1)) / math.sqrt(n - 1)
        self._factor = torch.from_numpy(contrasts)  # (N - 1, D)
        self.trace = float((contrasts**2).sum())
        self.scale = float(torch.linalg.matrix_norm(self._factor @ self._factor.T))

    @property
    def factor(self) -> Tensor:
        return self._factor

    def congruence(self, factor: Tensor) -> Tensor:
        G = factor @ self._factor.T  # (R, N - 1)
        return G @ G.T


def gaussian_of_features(features: Rows) -> Gaussian:
    """Fitted to features (N, D), N >= 2; at most D of them are kept as they are, which loses no digits."""
    return SampledGaussian(features) if len(features) <= features.shape[1] else DenseGaussian(moments_of(features))


def gaussian_of_evidence(evidence: EvidenceSet) -> Gaussian:
    """Of the features where they are at hand and so few that their moments are known better from them, else of moments.

    Raises
    ------
    UsageError : there are neither.
    """
    features, moments = evidence.features, evidence.moments
    if features is not None and (moments is None or len(features) <= features.shape[1]):
        return gaussian_of_features(rows(features, "features", at_least=2))
    if moments is None:
        raise UsageError("the evidence holds no features and no moments of any", hint="name an extractor")
    return DenseGaussian(moments)


def warn_of_few_samples(*gaussians: Gaussian) -> None:
    """Warn where one was fitted to too few samples for a covariance of full rank."""
    fewest, d = min((gaussian.count for gaussian in gaussians if gaussian.count), default=0), len(gaussians[0].mean)
    if 0 < fewest < d + 1:
        warnings.warn(
            f"{fewest} samples cannot fill a covariance of {d} dimensions (at least {d + 1} would): this Fréchet "
            "distance depends strongly on the number of samples"
        )


def squared_distance(one: Gaussian, other: Gaussian) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), at least 0.

    Raises
    ------
    UsageError : different dimensions.
    DataError : a covariance with a negative eigenvalue.
    """
    if len(one.mean) != len(other.mean):
        raise UsageError(
            f"moments of {len(one.mean)} and of {len(other.mean)} dimensions do not fit together",
            hint="embed both sets with the same extractor",
        )
    apart, traces = float(((one.mean - other.mean) ** 2).sum()), one.trace + other.trace
    return max(0.0, apart + traces - 2 * _trace_of_root(one, other, _TOLERANCE * traces / 2))


def _trace_of_root(one: Gaussian, other: Gaussian, tolerance: float) -> float:
    """tr (S1 S2)^(1/2), the sum of the roots of the eigenvalues of S1 S2.

    Those are the eigenvalues of the symmetric F1 S2 F1^T, which is small where one side has few samples. A root loses
    half the digits near 0. Where the bound on that is too large, the singular values of F1 F2^T are taken instead: they
    are the same numbers and lose none, in several times the time.
    """
    left, right = (one, other) if one.rank_bound <= other.rank_bound else (other, one)
    F = left.factor  # (R, D)
    if not len(F):
        return 0.0
    values = torch.linalg.eigvalsh(right.congruence(F))  # (R,), ascending
    size = left.scale * right.scale
    if float(values[0]) < -_NEGATIVE * size:
        right.refuse_negative()
    roots, noise = values.clamp_min(0).sqrt(), _EPSILON * size
    if float((noise / (roots + math.sqrt(noise))).sum()) > tolerance:
        roots = torch.linalg.svdvals(F @ right.factor.T)
    return float(roots.sum())
