"""The birthday paradox test: how many different images a model can make, from how soon two of them are the same."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Lt

from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import Distances, features_of
from ganvas.stats.moments import Features, rows
from ganvas.types import Evidence, Metric

_PAIRS = 20_000  # the same in this many pairs of the first samples are enough to go by; more would only take longer


@metric("birthday-paradox", paper="Arora et al. 2018")
class BirthdayParadox(Metric):
    """The size of the set that a model's samples come from, by how many can be drawn before two are the same.

    With batch_size the number of samples among which two are the same with probability 1/2, support_size =
    batch_size^2 / (2 ln 2): the number of equally likely images for which that would be so. Both are above 1, higher is
    better. Two samples are the same where their features are no further apart than a threshold: the distance below
    which the given share of real samples has its nearest neighbour. The paper lets people decide that. Where no two
    of all samples are the same, both values are lower bounds and a warning says so.

    Parameters
    ----------
    share : of real samples whose nearest real neighbour counts as the same image.
    orders : random orders in which samples are drawn; the batch size is the median over them.
    seed : decides the orders.
    """

    needs = frozenset({"features"})
    lower_is_better: Mapping[str, bool] = {"birthday_batch_size": False, "birthday_support_size": False}
    limits: Mapping[str, tuple[float, float]] = {
        "birthday_batch_size": (1, math.inf),
        "birthday_support_size": (1, math.inf),
    }

    def __init__(
        self,
        *,
        share: Annotated[float, Gt(0), Lt(1)] = 0.01,
        orders: Annotated[int, Gt(0)] = 1001,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self.share = share
        self.orders = orders
        self.seed = seed

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = features_of(evidence)
        threshold = nearest_distance(real, self.share)
        batch = collision_batch_size(fake, threshold, orders=self.orders, seed=self.seed)
        return {"birthday_batch_size": batch, "birthday_support_size": support_size(batch)}


def support_size(batch_size: float) -> float:
    """s^2 / (2 ln 2): how many equally likely things are drawn twice among s with probability about 1/2, at least 1."""
    return max(1.0, batch_size**2 / (2 * math.log(2)))


def nearest_distance(features: Features, share: float) -> float:
    """The distance within which this share of the rows of features (N, D) has another row.

    Raises
    ------
    UsageError : fewer than 2 rows.
    DataError : NaN or infinite values.
    """
    x = rows(features, "real features", at_least=2)
    distances = Distances(x, x[:1])
    if len(x) * share < 1:
        warnings.warn(f"{len(x)} real samples are few to say which of them are the same: the share {share} is none")
    return float(np.sqrt(np.quantile(distances.radii(distances.real, 1), share, method="higher")))


def collision_batch_size(features: Features, threshold: float, *, orders: int = 1001, seed: int = 0) -> float:
    """How many rows of features (N, D) one draws until two are within `threshold`: the median over random orders.

    It is the batch size at which the chance of such a pair is 1/2; N, and a warning, where there is no such pair.

    Raises
    ------
    UsageError : fewer than 2 rows.
    DataError : NaN or infinite values.
    """
    x = rows(features, "fake features", at_least=2)
    rng = np.random.default_rng(seed)
    x = x[rng.permutation(len(x))]  # a part of it, where that suffices, is then a random one
    pairs, count = _close_pairs(x, threshold)
    if not len(pairs):
        warnings.warn(
            f"no two of {len(x)} samples are the same: {len(x)} samples are few, and the support is at least "
            f"{support_size(len(x)):.3g} images"
        )
        return float(len(x))
    first = np.empty(orders)
    for order in range(orders):
        place = rng.permutation(count)
        first[order] = place[pairs].max(axis=1).min() + 1  # the draw that completes the first pair
    return float(np.median(first))


def _close_pairs(x: npt.NDArray[np.floating], threshold: float) -> tuple[npt.NDArray[np.int64], int]:
    """Pairs (P, 2) of rows within the threshold among the first so many rows, and how many rows these are."""
    distances = Distances(x, x[:1])
    limit = threshold**2 * (1 + distances.slack)
    pieces, total = [], 0
    for part, squared in distances.between(distances.real, distances.real):
        same = squared[:, : part.stop] <= limit
        same &= np.arange(part.stop)[None] < np.arange(part.start, part.stop)[:, None]  # the other row came earlier
        pairs = np.argwhere(same)  # (P, 2), the later row first, in rising order
        pairs[:, 0] += part.start
        pieces.append(pairs[: _PAIRS + 1 - total])
        total += len(pieces[-1])
        if total > _PAIRS:
            count = int(pieces[-1][-1, 0])  # all pairs among the rows before this one are found
            all_pairs = np.concatenate(pieces)
            return all_pairs[all_pairs[:, 0] < count], count
    return np.concatenate(pieces), len(x)
