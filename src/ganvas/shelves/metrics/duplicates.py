"""Copies of training samples among generated ones, and copies among the generated ones themselves."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Gt, Lt

from ganvas.errors import UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import Features, Rows, rows
from ganvas.shelves.metrics.nearest_neighbours import distances_to_nearest
from ganvas.shelves.metrics.ordering import in_canonical_order
from ganvas.types import Evidence, EvidenceSet, Metric

_ALARMING = 10  # times the false positive rate
_REPEATING = 0.5  # of the samples


@metric("duplicates")
class Duplicates(Metric):
    """Shares of generated samples that are copies, exact or nearly, of training samples or of each other.

    `duplicates_of_training`: share of samples nearer to some training sample than all but `false_positive_rate` of the
    held-out real samples are; `duplicates_within`: the same for the nearest other generated sample, against the nearest
    other held-out one in as large a set. Both are about `false_positive_rate` (on average at most, for the first) for a
    model that draws fresh data, and near 1 for one that copies. In [0, 1], lower is better.

    The reference must be data that the model was not trained on. Alarms: more copies of training images than ten times
    `false_positive_rate`, which fresh data come to once in 20,000 times at most; else more than half of the samples
    repeating each other. `duplicates_within` is left out with fewer than 1 / `false_positive_rate` - 1 samples.

    Parameters
    ----------
    space : where distances are taken: in the extractor's "features", or between "pixels", which sees no copy that is
        shifted or recoloured but needs no extractor.
    false_positive_rate : share of fresh samples that are called copies by chance.
    """

    lower_is_better: Mapping[str, bool] = {"duplicates_of_training": True, "duplicates_within": True}
    limits: Mapping[str, tuple[float, float]] = {"duplicates_of_training": (0, 1), "duplicates_within": (0, 1)}

    def __init__(
        self,
        *,
        space: Literal["features", "pixels"] = "features",
        false_positive_rate: Annotated[float, Gt(0), Lt(1)] = 0.01,
    ) -> None:
        self.space = space
        self.false_positive_rate = false_positive_rate
        reads = "features" if space == "features" else "images"
        self.needs = frozenset(f"{side}:{reads}" for side in ("training", "real", "fake"))

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        training, held_out, fake = (
            self._points(side, name)
            for side, name in ((evidence.training, "training"), (evidence.real, "real"), (evidence.fake, "fake"))
        )
        copies = copies_of_training(training, held_out, fake, self.false_positive_rate)
        shares = {"duplicates_of_training": float(copies.mean())}
        if len(fake) < _least(self.false_positive_rate):
            warnings.warn(f"duplicates_within is left out: it needs {_least(self.false_positive_rate)} samples")
        else:
            shares["duplicates_within"] = copies_within(held_out, fake, self.false_positive_rate)
        return shares

    def alarm(self, values: Mapping[str, float]) -> str:
        copies, within = values["duplicates_of_training"], values.get("duplicates_within", 0.0)
        # The threshold is the distance of the r-th nearest of n held-out samples, r <= rate (n + 1). That more than ten
        # times the rate of fresh data lies below it has a binomial probability of at most about e^-10.
        if copies > _ALARMING * self.false_positive_rate:
            return (
                f"{copies:.0%} of the samples are copies of training images, exactly or nearly; of fresh ones about "
                f"{self.false_positive_rate:.0%} would look so"
            )
        if within > _REPEATING:
            return f"the model repeats itself: {within:.0%} of the samples have a copy among the others"
        return ""

    def _points(self, side: EvidenceSet | None, name: str) -> Rows:
        values = side and (side.features if self.space == "features" else side.images)
        if values is None:
            raise UsageError(f"the evidence holds no {self.space} of the {name} set")
        array = np.asarray(values)
        return rows(array if self.space == "features" else array.reshape(len(array), -1).astype(np.float32), name)


def copies_of_training(
    training: Features, held_out: Features, fake: Features, false_positive_rate: float = 0.01
) -> npt.NDArray[np.bool_]:
    """Which of features `fake` (M, D) are copies of `training` (N, D), by the distances of `held_out` (n, D): (M,).

    With r = floor(false_positive_rate (n + 1)), a copy is strictly nearer to `training` than the r-th nearest held-out
    sample. A fresh sample is as likely to take any rank among held-out ones, so it is called a copy with a probability
    of at most r / (n + 1). Warns where that distance is 0: the held-out data hold copies of training data themselves.

    Raises
    ------
    UsageError : fewer than 1 / false_positive_rate - 1 held-out samples, or different dimensions.
    DataError : NaN or infinite values.
    """
    threshold = _threshold(distances_to_nearest(held_out, training), false_positive_rate)
    if threshold == 0:
        warnings.warn(
            "more held-out samples are copies of training samples than the false positive rate allows: copying cannot "
            "be told from that"
        )
    return distances_to_nearest(fake, training) < threshold


def copies_within(held_out: Features, fake: Features, false_positive_rate: float = 0.01) -> float:
    """Share of features `fake` (M, D) with a copy in `fake`, by the distances within `held_out` (n, D).

    Both sets are cut to the smaller one's size, by a fixed choice, because neighbours are nearer in a larger set.

    Raises
    ------
    UsageError : fewer than 1 / false_positive_rate - 1 samples on a side, or different dimensions.
    DataError : NaN or infinite values.
    """
    real, generated = rows(held_out, "real features"), rows(fake, "fake features")
    count = min(len(real), len(generated))
    real, generated = (_some(points, count) for points in (real, generated))
    threshold = _threshold(distances_to_nearest(real, real, among_themselves=True), false_positive_rate)
    return float((distances_to_nearest(generated, generated, among_themselves=True) < threshold).mean())


def _threshold(distances: npt.NDArray[np.float64], false_positive_rate: float) -> float:
    rank = math.floor(false_positive_rate * (len(distances) + 1))
    if rank < 1:
        raise UsageError(
            f"{len(distances)} held-out samples cannot set a threshold that one in {1 / false_positive_rate:g} passes",
            hint=f"give at least {_least(false_positive_rate)}, or allow a higher false_positive_rate",
        )
    return float(np.partition(distances, rank - 1)[rank - 1])


def _least(false_positive_rate: float) -> int:
    return math.ceil(1 / false_positive_rate) - 1


def _some(points: Rows, count: int) -> Rows:
    """`count` of the rows: a choice that depends on the set alone."""
    if len(points) == count:
        return points
    chosen: Rows = in_canonical_order(points)[np.random.default_rng(0).permutation(len(points))[:count]]
    return chosen
