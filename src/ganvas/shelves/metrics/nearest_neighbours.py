"""The nearest neighbours of samples among other samples, a block of distances at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ganvas.errors import UsageError
from ganvas.shelves.metrics.arrays import Distances, Double, Features, Rows, rows
from ganvas.types import Evidence

Indices = npt.NDArray[np.intp]


def nearest_neighbours(
    queries: Features, references: Features, k: int = 1, *, among_themselves: bool = False
) -> tuple[Indices, Double]:
    """(indices (N, k) into `references`, Euclidean distances (N, k)), nearest first, of features `queries` (N, D).

    The first of references at equal distance comes first, and of a single neighbour those count as equal whose
    distances differ by rounding alone; a copy is at distance 0 exactly. Memory does not grow with
    N x M.

    Parameters
    ----------
    among_themselves : both arguments are the same set, and no sample is its own neighbour.

    Raises
    ------
    UsageError : fewer than k references, or different dimensions.
    DataError : NaN or infinite values.
    """
    targets = rows(references, "references")
    sources = targets if among_themselves else rows(queries, "queries")
    available = len(targets) - among_themselves
    if k < 1 or k > available:
        raise UsageError(
            f"{k} nearest neighbours of a sample among {available} others", hint=f"choose k from 1 to {available}"
        )
    distances = Distances(targets, sources)
    near = distances.real if among_themselves else distances.fake
    indices = np.empty((len(near), k), dtype=np.intp)
    squared = np.empty((len(near), k))
    for part, block in distances.between(near, distances.real):
        if among_themselves:
            block[np.arange(part.stop - part.start), np.arange(part.start, part.stop)] = np.inf
        indices[part], squared[part] = _smallest(block, k, distances.slack)
    return indices, np.sqrt(squared)


def _smallest(block: Rows, k: int, slack: float) -> tuple[Indices, Rows]:
    """Places and values (n, k) of the k smallest of each row, ascending; the first of equals first."""
    if k == 1:
        # The first of those that are equal within rounding, or the layout of memory would choose between them.
        places = (block <= block.min(axis=1, keepdims=True) * (1 + slack)).argmax(axis=1)[:, None]
        return places, np.take_along_axis(block, places, axis=1)
    places = np.sort(np.argpartition(block, k - 1, axis=1)[:, :k], axis=1)
    values = np.take_along_axis(block, places, axis=1)
    order = np.argsort(values, axis=1, kind="stable")
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(values, order, axis=1)


def distances_to_nearest(queries: Features, references: Features, *, among_themselves: bool = False) -> Double:
    """Euclidean distance (N,) from each of `queries` (N, D) to the nearest of `references`; see `nearest_neighbours`.

    Raises
    ------
    UsageError, DataError : as `nearest_neighbours`.
    """
    distances: Double = nearest_neighbours(queries, references, among_themselves=among_themselves)[1][:, 0]
    return distances


def features_of_three(evidence: Evidence) -> tuple[Features, Features, Features]:
    """The features of (training, held-out real, generated) samples, unchecked.

    Raises
    ------
    UsageError : one of them is missing.
    """
    features: list[Any] = []
    for name in ("training", "real", "fake"):
        side = vars(evidence)[name]
        if side is None or side.features is None:
            raise UsageError(
                f"the evidence holds no features of the {name} set",
                hint="memorisation is measured with training data, held-out data and samples",
            )
        features.append(side.features)
    return features[0], features[1], features[2]
