"""How far the short sequences that are generated are from real ones, in how often they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from ganvas.errors import UsageError
from ganvas.parts import metric
from ganvas.types import Evidence, Metric


@metric("ngram-distance")
class NgramDistance(Metric):
    """Total variation between the n-gram distributions of generated and real data of whole numbers.

    TV = 1/2 sum over n-grams of |p − q|, where p and q are their shares among all n-grams of a set: 0 where both have
    the same n-grams equally often, 1 where none is in both. Data are read in the order of their axes, and no n-gram
    crosses from one datum to the next. Small sets differ by chance, the more so the larger n is: compare with the value
    of two real sets of the same size.

    Parameters
    ----------
    n : tokens of a sequence.
    """

    needs = frozenset({"images"})
    lower_is_better: Mapping[str, bool] = {"ngram_distance": True}
    limits: Mapping[str, tuple[float, float]] = {"ngram_distance": (0, 1)}

    def __init__(self, *, n: Annotated[int, Gt(0)] = 3) -> None:
        self.n = n

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        assert evidence.real.images is not None
        assert evidence.fake.images is not None
        real, fake = evidence.real.images.flatten(1).numpy(), evidence.fake.images.flatten(1).numpy()
        return {"ngram_distance": total_variation(real, fake, n=self.n)}


def total_variation(real: NDArray[np.integer], fake: NDArray[np.integer], *, n: int) -> float:
    """The total variation in [0, 1] between the n-grams of rows (N, L) and (M, K) of whole numbers.

    Raises
    ------
    UsageError : values that are no whole numbers, or rows shorter than n.
    """
    for name, rows in (("real", real), ("fake", fake)):
        if rows.dtype.kind not in "iu":
            raise UsageError(f"{name} data are {rows.dtype}, and n-grams are of tokens", hint="ganvas list metrics")
        if rows.shape[1] < n or not len(rows):
            raise UsageError(f"{name} data {rows.shape} have no sequence of {n}", hint=f"n is at most {rows.shape[1]}")
    grams = np.concatenate([sequences(real, n), sequences(fake, n)])  # (all, n)
    _, which = np.unique(grams, axis=0, return_inverse=True) if n > 1 else np.unique(grams[:, 0], return_inverse=True)
    count = len(real) * (real.shape[1] - n + 1)
    kinds = int(which.max()) + 1
    p = np.bincount(which[:count], minlength=kinds) / count
    q = np.bincount(which[count:], minlength=kinds) / (len(which) - count)
    return float(min(1.0, np.abs(p - q).sum() / 2))


def sequences(rows: NDArray[np.integer], n: int) -> NDArray[np.int64]:
    """All n-grams (N (L − n + 1), n) of rows (N, L)."""
    windows = np.lib.stride_tricks.sliding_window_view(rows.astype(np.int64), n, axis=1)  # (N, L − n + 1, n)
    return windows.reshape(-1, n)
