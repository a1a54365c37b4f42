"""What metrics ask of their arrays before they compute anything, and squared distances in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ganvas.errors import UsageError
from ganvas.stats.moments import Double, Features, Rows, rows
from ganvas.types import Evidence

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Distances", "Double", "Features", "Rows", "blocks", "features_of", "rows", "same_width", "slack_of"]

BLOCK_BYTES = 2**25  # of one block of distances or kernel values
BLOCK_ROWS = 2048
FLOAT32_ABOVE = 10**8  # pairs; distances between fewer are computed in float64


def features_of(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """The features of both sides, unchecked.

    Raises
    ------
    UsageError : a side has none.
    """
    real, fake = evidence.real.features, evidence.fake.features
    if real is None or fake is None:
        raise UsageError("the evidence holds no features", hint="name an extractor")
    return real, fake


def same_width(real: Rows, fake: Rows) -> None:
    """Raise a UsageError unless both sets have the same number of columns."""
    if real.shape[1] != fake.shape[1]:
        raise UsageError(
            f"real features have {real.shape[1]} dimensions and fake ones {fake.shape[1]}",
            hint="embed both sets with the same extractor",
        )


def blocks(count: int, width: int, itemsize: int = 8) -> Iterator[slice]:
    """Slices that cover range(count), such that a block of `width` columns stays below BLOCK_BYTES."""
    step = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (itemsize * max(1, width))))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def slack_of(longest: int) -> float:
    """Relative rounding error of squared distances between sets of which the longer has so many rows."""
    return 1e-9 if longest**2 <= FLOAT32_ABOVE else 1e-5


class Distances:
    """Squared Euclidean distances between two sets of features, a block of rows at a time.

    Distances come from |x|^2 + |y|^2 - 2 x.y. The common mean is taken off first, because that difference cancels where
    features lie far from the origin, and what remains below the rounding error is 0, so that copies are at distance 0
    whatever the block. Float64, or float32 where there are more than FLOAT32_ABOVE pairs.

    Attributes
    ----------
    slack : relative rounding error of a squared distance of common size; comparisons treat values nearer than this as
        equal, so that ties fall the same way on every machine and for every block size.
    """

    def __init__(self, real: Rows, fake: Rows) -> None:
        same_width(real, fake)
        longest = max(len(real), len(fake))
        self.dtype: type[np.floating[Any]] = np.float64 if longest**2 <= FLOAT32_ABOVE else np.float32
        self.slack = slack_of(longest)
        centre = real.mean(axis=0, dtype=np.float64)
        self.real = (real - centre).astype(self.dtype)
        self.fake = (fake - centre).astype(self.dtype)
        self._tiny = (16 + float(np.sqrt(real.shape[1]))) * float(np.finfo(self.dtype).eps)

    def between(self, x: Rows, y: Rows) -> Iterator[tuple[slice, Rows]]:
        """(rows of x, squared distances from them to all of y) for x, y among `real` and `fake`."""
        x_norm, y_norm = (np.einsum("nd,nd->n", e, e, dtype=np.float64).astype(self.dtype) for e in (x, y))
        for part in blocks(len(x), len(y), np.dtype(self.dtype).itemsize):
            scale = x_norm[part, None] + y_norm[None, :]
            squared = x[part] @ y.T
            squared *= -2
            squared += scale
            scale *= self._tiny
            squared[squared <= scale] = 0
            if x is y:
                squared[np.arange(part.stop - part.start), np.arange(part.start, part.stop)] = 0
            yield part, squared

    def radii(self, x: Rows, k: int) -> Rows:
        """Squared distance from each row of `x` to its k-th nearest other row: (N,).

        Raises
        ------
        UsageError : `x` has no k other rows.
        """
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        if len(x) <= k:
            raise UsageError(
                f"the {k} nearest neighbours of {len(x)} samples do not exist", hint=f"give at least {k + 1} samples"
            )
        radii = np.empty(len(x), dtype=self.dtype)
        for part, squared in self.between(x, x):
            squared.partition(k, axis=1)
            radii[part] = squared[:, k]  # the row itself, at distance 0, comes first
        return radii
