"""Features as arrays, checked, and the moments of a Gaussian fitted to them, in pieces or whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ganvas.errors import DataError, UsageError
from ganvas.types import Moments

if TYPE_CHECKING:
    from torch import Tensor

Rows = npt.NDArray[np.floating[Any]]
Double = npt.NDArray[np.float64]
Features: TypeAlias = "npt.ArrayLike | Tensor"

_BLOCK_ROWS = 4096  # made float64 at once


def rows(features: Features, name: str, *, at_least: int = 1) -> Rows:
    """Features as a NumPy array (N, D), float32 or float64 and contiguous by rows, checked.

    Tensors may lie on any device, ask for gradients and be of half precision. How an array lies in memory changes
    nothing, because rounding, and with it which of two equal distances is smaller, would follow the layout.

    Raises
    ------
    UsageError : not two axes, no columns, something else than real numbers, or fewer than `at_least` rows.
    DataError : NaN or infinite values.
    """
    array = np.ascontiguousarray(_real_numbers(features, name))
    if array.ndim != 2 or array.shape[1] == 0:
        raise UsageError(f"{name} must be (N, D) with D > 0, not {array.shape}")
    if len(array) < at_least:
        raise UsageError(
            f"{len(array)} {name}, and at least {at_least} are needed", hint="sample more, or take a larger split"
        )
    unusable = sum(
        int((~np.isfinite(array[start : start + _BLOCK_ROWS]).all(axis=1)).sum())
        for start in range(0, len(array), _BLOCK_ROWS)
    )
    if unusable:
        raise DataError(
            f"{unusable} of {len(array)} {name} hold NaN or infinite values",
            hint="the samples themselves are probably not finite: the model may have diverged",
        )
    return array


def _real_numbers(features: Features, name: str) -> Rows:
    """Features of any origin as float32 or float64, of any shape.

    Raises
    ------
    UsageError : rows of unlike lengths, text, complex numbers, masked values, or objects that are no numbers.
    """
    import torch

    if isinstance(features, torch.Tensor):
        whole = features.detach().cpu().resolve_conj().resolve_neg()
        features = whole.float().numpy() if whole.dtype in (torch.bfloat16, torch.float16) else whole.numpy()
    elif isinstance(features, (list, tuple)) and any(isinstance(row, torch.Tensor) for row in features):
        features = [_real_numbers(row, name) for row in features]
    if isinstance(features, np.ma.MaskedArray):
        raise UsageError(f"{name} are a masked array, whose masked values would count", hint="leave those rows out")
    try:
        array = np.asarray(features)
    except ValueError:
        raise UsageError(
            f"{name} have rows of unlike lengths", hint="give (N, D): the same number of features of each sample"
        ) from None
    if array.dtype.kind not in "fiub":
        what = {"c": "complex", "U": "text", "S": "text", "O": "object"}.get(array.dtype.kind, str(array.dtype))
        raise UsageError(f"{name} hold {what} values, not real numbers", hint="give floats (N, D)")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


class RunningMoments:
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
        for start in range(0, len(piece), _BLOCK_ROWS):
            block = piece[start : start + _BLOCK_ROWS]
            n, m = self.count, len(block)
            mean = block.mean(axis=0, dtype=np.float64)
            shift = mean - self._mean
            centred = np.empty((m + 1, len(mean)))  # and the means' distance, as if it were one more sample
            np.subtract(block, mean, out=centred[:m])
            centred[m] = shift * np.sqrt(n * m / (n + m))
            self._scatter += centred.T @ centred
            self._mean = self._mean + shift * (m / (n + m))
            self.count = n + m

    def result(self) -> Moments:
        """Mean (D,), unbiased covariance (D, D) and the number of rows so far.

        Raises
        ------
        UsageError : fewer than 2 rows so far.
        """
        if self.count < 2:
            raise UsageError(f"{self.count} features have no covariance", hint="give at least 2 samples")
        return Moments(self._mean.copy(), self._scatter / (self.count - 1), self.count)


def moments_of(*features: Features) -> Moments:
    """The moments of features (N, D), in one piece or several; the pieces' sizes change only the rounding.

    Raises
    ------
    UsageError : fewer than 2 rows in all, or pieces of different D.
    DataError : NaN or infinite values.
    """
    running = RunningMoments()
    for piece in features:
        running.add(piece)
    return running.result()


def checked_moments(mean: npt.ArrayLike, covariance: npt.ArrayLike, count: int = 0, where: str = "") -> Moments:
    """Moments from elsewhere in float64, once they can be the moments of something; `count` 0 means unknown.

    Raises
    ------
    DataError : shapes other than (D,) and (D, D), something else than real numbers, NaN or infinite values, a
        covariance that is not symmetric or has a negative diagonal, a count of 1 or below 0.
    """

    def refuse(problem: str, hint: str = "write the statistics again, from the images") -> DataError:
        return DataError(problem, where=where, hint=hint)

    arrays = np.asarray(mean), np.asarray(covariance)
    for array in arrays:
        if array.dtype.kind not in "fiu":
            raise refuse(f"a mean or covariance holds {array.dtype} values, not real numbers")
    m, S = (array.astype(np.float64, copy=False) for array in arrays)
    if m.ndim != 1 or not m.size or S.shape != (len(m), len(m)):
        raise refuse(f"a mean of shape {m.shape} and a covariance of shape {S.shape} are not (D,) and (D, D)")
    if not (np.isfinite(m).all() and np.isfinite(S).all()):
        raise refuse("a mean or covariance holds NaN or infinite values", "look at the features that it comes from")
    if _asymmetry(S) > 1e-6 * max(S.max(), -S.min()):
        raise refuse("a covariance is not symmetric", "covariances are X^T X / (N - 1) of centred features X (N, D)")
    if S.diagonal().min() < 0:
        raise refuse(f"a covariance has the negative variance {S.diagonal().min():.3g} on its diagonal")
    if count < 0 or count == 1:
        raise refuse(f"{count} samples have no covariance")
    return Moments(m, S, count)


def _asymmetry(S: Double) -> float:
    """The largest |S_ij - S_ji|, in bands that fit a cache."""
    largest = 0.0
    for start in range(0, len(S), 256):
        stop = start + 256
        band = S[start:stop, :stop] - S[:stop, start:stop].T
        largest = max(largest, float(band.max()), -float(band.min()))
    return largest
