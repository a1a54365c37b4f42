"""Whether a model copies its training data: the test of Meehan, Chaudhuri and Dasgupta (2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Gt

from ganvas.errors import UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import Double, Features, Rows, rows, same_width
from ganvas.shelves.metrics.nearest_neighbours import distances_to_nearest, features_of_three
from ganvas.shelves.metrics.ordering import in_canonical_order
from ganvas.types import Evidence, Metric

_ALARMING = -4.0  # standard deviations, where a single cell counts; of several, their mean varies less
LEAST_IN_CELL = 20  # generated samples; a cell with no more says too little (tau = 20 / m in the paper)


@metric("data-copying", paper="Meehan, Chaudhuri and Dasgupta 2020")
class DataCopying(Metric):
    """The data-copying test: are generated samples nearer to the training data than held-out real samples are?

    Z_U is the Mann-Whitney statistic, as a z-score, of distances to the nearest training sample: generated against
    held-out. For a model that draws fresh data it is N(0, 1); far below 0 it copies, far above 0 it underfits.
    `data_copying_z` takes all samples together, `data_copying_p` is the share of honest models that would come out as
    low or lower, and `ct_score` (C_T) is the mean of Z_U within the cells of a k-means partition of the training data,
    which finds copying in one region that hides behind underfitting in another. An honest model has a z below -3 once
    in 700 times. Alarm: C_T below -4, at most once in 30,000.

    The reference must be data that the model was not trained on.

    Parameters
    ----------
    cells : clusters of the training features.
    dimensions : principal components of the training features that are kept where there are more; None keeps all.
    """

    needs = frozenset({"training:features", "real:features", "fake:features"})
    lower_is_better: Mapping[str, bool] = {"ct_score": False, "data_copying_z": False, "data_copying_p": False}
    limits: Mapping[str, tuple[float, float]] = {
        "ct_score": (-math.inf, math.inf),
        "data_copying_z": (-math.inf, math.inf),
        "data_copying_p": (0, 1),
    }

    def __init__(self, *, cells: Annotated[int, Gt(0)] = 3, dimensions: Annotated[int, Gt(0)] | None = 64) -> None:
        self.cells = cells
        self.dimensions = dimensions

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        training, held_out, fake = features_of_three(evidence)
        if self.dimensions is not None:
            training, held_out, fake = principal_components(self.dimensions, training, held_out, fake)
        z = data_copying_z(training, held_out, fake)
        return {
            "ct_score": ct_score(training, held_out, fake, self.cells),
            "data_copying_z": z,
            "data_copying_p": probability_below(z),
        }

    def alarm(self, values: Mapping[str, float]) -> str:
        score = values["ct_score"]
        if score >= _ALARMING:
            return ""
        return (
            f"samples lie nearer to the training images than held-out images do (C_T = {score:.1f}): the model copies, "
            "or makes variations of a few of them"
        )


def data_copying_z(training: Features, held_out: Features, fake: Features) -> float:
    """Z_U of features (N, D) of the three sets: below 0 where `fake` is nearer to `training` than `held_out` is.

    Raises
    ------
    UsageError : an empty set, or different dimensions.
    DataError : NaN or infinite values.
    """
    return mann_whitney_z(distances_to_nearest(fake, training), distances_to_nearest(held_out, training))


def ct_score(training: Features, held_out: Features, fake: Features, cells: int = 3) -> float:
    """C_T of features (N, D) of the three sets: Z_U within each cell, weighted by the held-out samples there.

    Cells come from k-means on `training`; a cell counts where more than `LEAST_IN_CELL` of `fake` lie in it, and
    distances are taken to the training samples of the same cell.

    Raises
    ------
    UsageError : fewer training samples than cells, no cell that counts, or different dimensions.
    DataError : NaN or infinite values.
    """
    T = in_canonical_order(rows(training, "training features", at_least=cells))
    P, Q = rows(held_out, "real features"), rows(fake, "fake features")
    same_width(T, P)
    same_width(T, Q)
    T_cell, P_cell, Q_cell = _cells(T, P, Q, cells)
    total = weight = 0.0
    for cell in range(cells):
        P_here, Q_here = P[P_cell == cell], Q[Q_cell == cell]
        if len(P_here) and len(Q_here) > LEAST_IN_CELL:
            total += len(P_here) * data_copying_z(T[T_cell == cell], P_here, Q_here)
            weight += len(P_here)
    if not weight:
        raise UsageError(
            f"none of {cells} cells holds held-out samples and more than {LEAST_IN_CELL} of {len(Q)} generated ones",
            hint="sample more, or take fewer cells",
        )
    return total / weight


def mann_whitney_z(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """z = (U - m n / 2) / sqrt(m n (m + n + 1) / 12), with U the number of pairs x_i > y_j, ties half.

    N(0, 1) for large samples of one distribution. The authors' code adds 1/2 to the numerator, the paper does not.
    """
    from scipy.stats import rankdata

    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    m, n = len(a), len(b)
    U = float(rankdata(np.concatenate([a, b]))[:m].sum()) - m * (m + 1) / 2
    return (U - m * n / 2) / math.sqrt(m * n * (m + n + 1) / 12)


def probability_below(z: float) -> float:
    """Phi(z), the standard normal distribution function."""
    return math.erfc(-z / math.sqrt(2)) / 2


def principal_components(dimensions: int, training: Features, *others: Features) -> tuple[Rows, ...]:
    """All sets projected on the first principal components of the first; as they are where they have no more.

    Raises
    ------
    UsageError : an empty set, or different dimensions.
    DataError : NaN or infinite values.
    """
    sets = [rows(features, "features") for features in (training, *others)]
    for points in sets[1:]:
        same_width(sets[0], points)
    if sets[0].shape[1] <= dimensions:
        return tuple(sets)
    mean = sets[0].mean(axis=0, dtype=np.float64)
    centred = sets[0] - mean  # (N, D)
    directions = np.linalg.eigh(centred.T @ centred)[1][:, : -dimensions - 1 : -1]  # (D, d), largest variance first
    return tuple((points - mean) @ directions for points in sets)


def _cells(T: Rows, P: Rows, Q: Rows, cells: int) -> tuple[npt.NDArray[np.int32], ...]:
    from sklearn.cluster import KMeans

    centre: Double = T.mean(axis=0, dtype=np.float64)
    T, P, Q = ((points - centre).astype(np.float64) for points in (T, P, Q))
    fitted = KMeans(cells, n_init=10, random_state=0).fit(T)
    return fitted.labels_, fitted.predict(P), fitted.predict(Q)
