"""The Fréchet distance within classes: what a conditional model does to each of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from ganvas.errors import DataError, UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import features_of, same_width
from ganvas.shelves.metrics.frechet_distance import gaussian_of_features, squared_distance
from ganvas.stats.moments import Features, rows
from ganvas.types import Evidence, Metric


@metric("intra-class-frechet-distance", paper="Miyato and Koyama 2018")
class IntraClassFrechetDistance(Metric):
    """Mean over classes of the Fréchet distance between real and generated samples of that class (intra-FID).

    `intra_class_frechet_distance` is the mean, `worst_class_frechet_distance` the largest; `distances_by_class` tells
    which class that is. In the squared unit of the features, from 0. It sees what one distance over all classes cannot:
    classes that are swapped, and lack of variety within one. Few samples a class bias it upwards, by about 1/n. Classes
    of which one side has fewer than 2 samples are left out with a warning.
    """

    needs = frozenset({"features", "label"})
    lower_is_better: Mapping[str, bool] = {"intra_class_frechet_distance": True, "worst_class_frechet_distance": True}
    limits: Mapping[str, tuple[float, float]] = {
        "intra_class_frechet_distance": (0, math.inf),
        "worst_class_frechet_distance": (0, math.inf),
    }

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = features_of(evidence)
        if evidence.real.label is None or evidence.fake.label is None:
            raise UsageError(
                "intra-class-frechet-distance needs labels of both sides", hint="it measures conditional models"
            )
        distances = distances_by_class(
            real, evidence.real.label, fake, evidence.fake.label, class_names=evidence.class_names
        )
        return {
            "intra_class_frechet_distance": float(np.mean(list(distances.values()))),
            "worst_class_frechet_distance": max(distances.values()),
        }


def distances_by_class(
    real: Features, real_label: Features, fake: Features, fake_label: Features, *, class_names: Sequence[str] = ()
) -> dict[int, float]:
    """Squared Fréchet distance, >= 0, of each class of features (N, D) with labels (N,), and (M, D) with (M,).

    Warns of classes that are left out, and of fewer samples than D + 1 in a class.

    Raises
    ------
    UsageError : no class with 2 samples on both sides, not one label a row, or different dimensions.
    DataError : NaN or infinite values.
    """
    x, y = rows(real, "real features", at_least=2), rows(fake, "fake features", at_least=2)
    same_width(x, y)
    of_x, of_y = np.asarray(real_label), np.asarray(fake_label)
    for features, label, side in ((x, of_x, "real"), (y, of_y, "fake")):
        if label.shape != (len(features),):
            raise UsageError(f"{len(features)} {side} features need as many labels, not an array of {label.shape}")
        if label.dtype.kind not in "iu":
            raise DataError(f"{side} labels are {label.dtype}, not whole numbers")
    distances: dict[int, float] = {}
    left_out, fewest = [], x.shape[1] + 1
    for class_ in np.union1d(of_x, of_y):
        real_rows, fake_rows = x[of_x == class_], y[of_y == class_]
        if min(len(real_rows), len(fake_rows)) < 2:
            left_out.append(int(class_))
            continue
        fewest = min(fewest, len(real_rows), len(fake_rows))
        distances[int(class_)] = squared_distance(gaussian_of_features(real_rows), gaussian_of_features(fake_rows))
    if not distances:
        raise UsageError("no class has 2 samples on both sides", hint="sample more, or take a larger split")
    if left_out:
        said = ", ".join(class_names[number] if 0 <= number < len(class_names) else str(number) for number in left_out)
        warnings.warn(f"left out of the mean, because one side has fewer than 2 samples of them: classes {said}")
    if fewest <= x.shape[1]:
        warnings.warn(
            f"a class has {fewest} samples, which cannot fill a covariance of {x.shape[1]} dimensions: its Fréchet "
            "distance depends strongly on the number of samples"
        )
    return distances
