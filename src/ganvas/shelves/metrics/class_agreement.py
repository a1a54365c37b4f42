"""How often a classifier finds the class that a conditional model was asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ganvas.errors import DataError, UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import Features, rows
from ganvas.types import Evidence, Metric


@metric("class-agreement", paper="Shmelkov et al. 2018 (GAN-test)")
class ClassAgreement(Metric):
    """Share of generated samples that the extractor's classifier assigns to the class that was asked for.

    agreement = mean of [argmax_k logits(y_j)_k = label_j], in [0, 1], higher is better. Its ceiling is the classifier's
    accuracy on real data, its floor for a model that ignores labels about 1 / classes.
    """

    needs = frozenset({"fake:logits", "fake:label"})
    lower_is_better: Mapping[str, bool] = {"class_agreement": False}
    limits: Mapping[str, tuple[float, float]] = {"class_agreement": (0, 1)}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        logits, label = evidence.fake.logits, evidence.fake.label
        if logits is None:
            raise UsageError(
                "class-agreement needs logits, and the extractor has none",
                hint="choose an extractor that is a classifier",
            )
        if label is None:
            raise UsageError(
                "class-agreement needs the samples' labels, and they have none", hint="it measures conditional models"
            )
        return {"class_agreement": class_agreement(logits, label)}


def class_agreement(logits: Features, label: Features) -> float:
    """Share of rows of `logits` (N, K) whose largest value is at `label` (N,), in [0, 1]; the first of equals counts.

    Raises
    ------
    UsageError : no rows, or not one label a row.
    DataError : NaN or infinite logits, or a label outside 0 .. K - 1.
    """
    scores, asked = rows(logits, "logits"), np.asarray(label)
    if asked.shape != (len(scores),):
        raise UsageError(f"{len(scores)} rows of logits need as many labels, not an array of shape {asked.shape}")
    if asked.min() < 0 or asked.max() >= scores.shape[1]:
        raise DataError(
            f"labels from {asked.min()} to {asked.max()} do not fit a classifier of {scores.shape[1]} classes",
            hint="the extractor was made for other classes than the data's",
        )
    return float((scores.argmax(axis=1) == asked).mean())
