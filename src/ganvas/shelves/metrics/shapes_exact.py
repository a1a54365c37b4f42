"""Exact precision and recall on drawn shapes, whose factors can be read off any image."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ganvas.errors import DataError, UsageError
from ganvas.parts import metric
from ganvas.toys import shapes
from ganvas.types import Evidence, Metric

if TYPE_CHECKING:
    from torch import Tensor


@metric("shapes-exact", paper="Lucic et al. 2018 (precision and recall on a known manifold)")
class ShapesExact(Metric):
    """Exact precision and recall on the drawn `shapes` data, read off the images themselves; no extractor.

    precision = share of generated images that are one whole shape of a known kind, colour, place and size;
    recall = share of the cells of the grid over these factors occupied by real images that valid generated ones hit;
    F1 = their harmonic mean. All in [0, 1], higher is better. Recall grows with the number of samples; warns where even
    a perfect model would stay below 0.99.
    """

    needs = frozenset({"images"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"shapes_precision": False, "shapes_recall": False, "shapes_f1": False}
    limits: Mapping[str, tuple[float, float]] = dict.fromkeys(lower_is_better, (0, 1))

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = evidence.real.images, evidence.fake.images
        if real is None or fake is None:
            raise UsageError("the evidence holds no images", hint="gather what the metric's `needs` names")
        precision, recall = shapes_precision_recall(real, fake)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return {"shapes_precision": precision, "shapes_recall": recall, "shapes_f1": f1}


def shapes_precision_recall(real: Tensor | npt.ArrayLike, fake: Tensor | npt.ArrayLike) -> tuple[float, float]:
    """(precision, recall), both in [0, 1], of images `fake` (M, 3, S, S) against `real` (N, 3, S, S).

    Images are floats in [-1, 1] or uint8, as `ganvas.toys.shapes.recover` takes them; an image that is not finite is
    not valid.

    Raises
    ------
    UsageError : no images, or not square RGB of at least 16 pixels.
    DataError : no real image is a drawn shape.
    """
    occupied, _ = _cells(real, "real")
    if not len(occupied):
        raise DataError(
            "none of the real images is a drawn shape", hint="this metric is for the data set 'shapes' only"
        )
    hit, valid = _cells(fake, "fake")
    # A perfect model misses each of C equal cells with probability (1 - 1/C)^M.
    ceiling = 1 - (1 - 1 / len(occupied)) ** len(valid)
    if ceiling < 0.99:
        warnings.warn(
            f"{len(valid)} samples are few for {len(occupied)} cells: even a perfect model's shapes_recall would be "
            f"about {ceiling:.2f}"
        )
    return float(valid.mean()), float(np.isin(occupied, hit).mean())


def _cells(images: Tensor | npt.ArrayLike, side: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The different cells that valid images fall into, and which images are valid."""
    array = np.asarray(images)
    if not len(array):
        raise UsageError(f"there are no {side} images", hint="give at least one")
    factors, valid = shapes.recover(array)
    return np.unique(shapes.cell(factors)[valid]), valid
