"""Fidelity and diversity from nearest neighbours: precision, recall, density, coverage, realism and rarity."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from annotated_types import Gt

from ganvas.errors import UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import features_of
from ganvas.shelves.metrics.balls import Balls, Rim
from ganvas.stats.moments import Double, Features, rows
from ganvas.types import Evidence, Metric

_NOISE, _FAITHFUL, _FEW_MODES = 0.2, 0.5, 0.3  # precision, precision, recall
_MOST_REALISTIC = 100  # times nearer to a real sample than that one's neighbours are: as good as a copy


@metric("precision-recall", paper="Kynkäänniemi et al. 2019, eq. 1-2")
class PrecisionRecall(Metric):
    """Improved precision and recall: shares of generated samples in the real manifold and the other way round.

    The manifold of a set is the union of balls around its samples that reach to their k-th nearest neighbour.
    precision = share of generated samples inside the real manifold, recall = share of real samples inside the generated
    one; both in [0, 1], higher is better. An outlier among the real samples makes a large ball and raises precision.

    Alarms: a precision below 0.2, as noise has; a recall below 0.3 at a precision of 0.5 or more, as a model has that
    makes few of the modes. Neither depends on how many samples there are, as coverage does.

    Parameters
    ----------
    k : the neighbour that a ball reaches to; the sample itself does not count.
    rim : where a sample on a ball's rim belongs. The paper and torch-fidelity count it inside, prdc and dgm-eval
        outside; it matters only where distances are equal, as between copies.
    """

    needs = frozenset({"features"})
    lower_is_better: Mapping[str, bool] = {"precision": False, "recall": False}
    limits: Mapping[str, tuple[float, float]] = {"precision": (0, 1), "recall": (0, 1)}

    def __init__(self, *, k: Annotated[int, Gt(0)] = 3, rim: Rim = "inside") -> None:
        self.k = k
        self.rim: Rim = rim

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = features_of(evidence)
        precision, recall = precision_recall(real, fake, self.k, rim=self.rim)
        return {"precision": precision, "recall": recall}

    def alarm(self, values: Mapping[str, float]) -> str:
        precision, recall = values["precision"], values["recall"]
        if precision < _NOISE:
            return (
                f"the samples do not look like the data: to this extractor, {precision:.0%} of them lie where real "
                "images do"
            )
        if precision >= _FAITHFUL and recall < _FEW_MODES:
            return (
                f"modes are missing: samples lie where real images do (precision {precision:.2f}), but reach only a "
                f"share of {recall:.2f} of them (recall)"
            )
        return ""


@metric("density-coverage", paper="Naeem et al. 2020")
class DensityCoverage(Metric):
    """Density and coverage: how crowded the real neighbourhoods are with generated samples, and how many are visited.

    With the open ball B_i around real sample i that reaches to its k-th nearest real neighbour and M generated samples,
    density = (number of pairs with y_j in B_i) / (k M), from 0, about 1 for the same distribution and possibly above;
    coverage = share of the B_i with at least one y_j inside, in [0, 1]. Higher is better.

    Parameters
    ----------
    k : the neighbour that a ball reaches to; the sample itself does not count.
    """

    needs = frozenset({"features"})
    lower_is_better: Mapping[str, bool] = {"density": False, "coverage": False}
    limits: Mapping[str, tuple[float, float]] = {"density": (0, math.inf), "coverage": (0, 1)}

    def __init__(self, *, k: Annotated[int, Gt(0)] = 5) -> None:
        self.k = k

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = features_of(evidence)
        density, coverage = density_coverage(real, fake, self.k)
        return {"density": density, "coverage": coverage}


@metric("realism", paper="Kynkäänniemi et al. 2019, eq. 3")
class Realism(Metric):
    """Mean over generated samples of how far inside the real manifold they lie; at least 1 means inside.

    R(y) = max over real samples x_i of (radius of x_i's ball) / |y - x_i|, where the ball reaches to the k-th nearest
    real neighbour and only balls smaller than the median count, as large ones say little. Higher is better, but a copy
    of a real sample is infinitely realistic: no sample counts with more than 100, and a warning says how many are
    copies.

    Parameters
    ----------
    k : the neighbour that a ball reaches to; the sample itself does not count.
    """

    needs = frozenset({"features"})
    lower_is_better: Mapping[str, bool] = {"realism": False}
    limits: Mapping[str, tuple[float, float]] = {"realism": (0, _MOST_REALISTIC)}

    def __init__(self, *, k: Annotated[int, Gt(0)] = 3) -> None:
        self.k = k

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        values = realism(*features_of(evidence), self.k)
        copies = np.count_nonzero(np.isinf(values))
        if copies:
            warnings.warn(
                f"{copies} of {len(values)} generated samples are copies of real ones in feature space; their infinite "
                f"realism counts as {_MOST_REALISTIC}"
            )
        return {"realism": float(np.minimum(values, _MOST_REALISTIC).mean())}


@metric("rarity", paper="Han et al. 2023")
class Rarity(Metric):
    """Mean over the generated samples in the real manifold of how empty the real neighbourhood around them is.

    rarity(y) = smallest radius of a real sample's ball that holds y, where balls reach to the k-th nearest real
    neighbour. In the unit of the features, from 0; higher is rarer. Samples outside of all balls have no rarity and are
    left out; `precision` tells their share. Where there are no others it is 0, with a warning.

    Parameters
    ----------
    k : the neighbour that a ball reaches to; the sample itself does not count.
    """

    needs = frozenset({"features"})
    lower_is_better: Mapping[str, bool] = {"rarity": False}
    limits: Mapping[str, tuple[float, float]] = {"rarity": (0, math.inf)}

    def __init__(self, *, k: Annotated[int, Gt(0)] = 3) -> None:
        self.k = k

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        values = rarity(*features_of(evidence), self.k)
        inside = np.isfinite(values)
        if not inside.any():
            warnings.warn("no generated sample lies in the real manifold, so none has a rarity, and 0 stands for it")
            return {"rarity": 0.0}
        return {"rarity": float(values[inside].mean())}


def precision_recall(real: Features, fake: Features, k: int = 3, *, rim: Rim = "inside") -> tuple[float, float]:
    """(precision, recall) of features `fake` (M, D) against `real` (N, D), both in [0, 1].

    A sample whose distance equals a ball's radius, within rounding, lies where `rim` says. Memory does not grow with
    N x M.

    Raises
    ------
    UsageError : at most k samples on a side, or different dimensions.
    DataError : NaN or infinite values.
    """
    balls = Balls(rows(real, "real features"), rows(fake, "fake features"))
    real_radii, fake_radii = balls.radii(balls.real, k), balls.radii(balls.fake, k)
    in_real, in_fake = np.zeros(len(balls.fake), dtype=bool), np.zeros(len(balls.real), dtype=bool)
    for tile in balls.inside(real_radii, fake_radii, rim=rim):
        in_real[tile.fake] |= tile.in_real.any(axis=0)
        in_fake[tile.real] |= tile.in_fake.any(axis=1)
    return float(in_real.mean()), float(in_fake.mean())


def density_coverage(real: Features, fake: Features, k: int = 5) -> tuple[float, float]:
    """(density, coverage) of features `fake` (M, D) against `real` (N, D): density >= 0, coverage in [0, 1].

    A sample on the rim of a ball, within rounding, lies outside. Memory does not grow with N x M.

    Raises
    ------
    UsageError : at most k real samples, no fake ones, or different dimensions.
    DataError : NaN or infinite values.
    """
    balls = Balls(rows(real, "real features"), rows(fake, "fake features"))
    held = np.zeros(len(balls.real), dtype=np.int64)  # generated samples in each real ball
    for tile in balls.inside(balls.radii(balls.real, k), None, rim="outside"):
        held[tile.real] += np.count_nonzero(tile.in_real, axis=1)
    return float(held.sum() / (k * len(balls.fake))), float((held > 0).mean())


def prdc(real: Features, fake: Features, k: int = 5, *, rim: Rim = "outside") -> dict[str, float]:
    """`precision`, `recall`, `density` and `coverage` with one k, from one pass over all pairs.

    The same numbers as `precision_recall` and `density_coverage` give for the same k and rim.

    Raises
    ------
    UsageError : at most k samples on a side, or different dimensions.
    DataError : NaN or infinite values.
    """
    balls = Balls(rows(real, "real features"), rows(fake, "fake features"))
    real_radii, fake_radii = balls.radii(balls.real, k), balls.radii(balls.fake, k)
    in_real, in_fake = np.zeros(len(balls.fake), dtype=bool), np.zeros(len(balls.real), dtype=bool)
    held = np.zeros(len(balls.real), dtype=np.int64)
    for tile in balls.inside(real_radii, fake_radii, rim=rim):
        in_real[tile.fake] |= tile.in_real.any(axis=0)
        in_fake[tile.real] |= tile.in_fake.any(axis=1)
        held[tile.real] += np.count_nonzero(tile.in_real, axis=1)
    return {
        "precision": float(in_real.mean()),
        "recall": float(in_fake.mean()),
        "density": float(held.sum() / (k * len(balls.fake))),
        "coverage": float((held > 0).mean()),
    }


def realism(real: Features, fake: Features, k: int = 3) -> Double:
    """Realism (M,) of each of the features `fake` (M, D) against `real` (N, D): from 0; infinite for copies.

    Raises
    ------
    UsageError : at most k real samples, no fake ones, different dimensions, or no ball below the median radius.
    DataError : NaN or infinite values.
    """
    balls = Balls(rows(real, "real features"), rows(fake, "fake features"))
    radii = balls.radii(balls.real, k)  # squared
    counted = radii < np.median(radii)
    if not counted.any():
        raise UsageError(
            "realism counts only balls below the median radius, and at least half of the radii are equal and smallest",
            hint="the real samples hold copies; take more of them, or a larger k",
        )
    best = np.zeros(len(balls.fake))
    for real_part, fake_part, squared in balls.squared():
        ratios = np.divide(radii[real_part, None], squared, out=np.full_like(squared, np.inf), where=squared > 0)
        np.maximum(best[fake_part], ratios[counted[real_part]].max(axis=0, initial=0), out=best[fake_part])
    return np.sqrt(best)


def rarity(real: Features, fake: Features, k: int = 3) -> Double:
    """Rarity (M,) of each of the features `fake` (M, D) against `real` (N, D); infinite outside of the real manifold.

    Raises
    ------
    UsageError : at most k real samples, no fake ones, or different dimensions.
    DataError : NaN or infinite values.
    """
    balls = Balls(rows(real, "real features"), rows(fake, "fake features"))
    radii = balls.radii(balls.real, k)
    smallest = np.full(len(balls.fake), np.inf)
    for tile in balls.inside(radii, None, rim="inside"):
        held = np.where(tile.in_real, radii[tile.real, None], np.inf).min(axis=0)
        np.minimum(smallest[tile.fake], held, out=smallest[tile.fake])
    return balls.length(smallest)
