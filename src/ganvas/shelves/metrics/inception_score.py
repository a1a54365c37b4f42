"""How sure a classifier is of each sample, and how unlike each other the samples are to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import scipy.special
from annotated_types import Ge, Gt

from ganvas.errors import UsageError
from ganvas.parts import metric
from ganvas.stats.moments import Double, Features, rows
from ganvas.types import Evidence, Metric


@metric("inception-score", paper="Salimans et al. 2016, section 4", system="improved-techniques-gan")
class InceptionScore(Metric):
    """exp E KL(p(y | x) ‖ p(y)) by the extractor's classifier: from 1, the same said of all samples, to K classes.

    Higher is better. It never looks at real data: a model that makes one perfect image per class has the best score.
    Published numbers are means over 10 splits of 50,000 samples; a split of few samples lowers it.

    Parameters
    ----------
    splits : parts that the samples are cut into; the score is the mean of theirs.
    seed : decides which samples share a part.
    """

    needs = frozenset({"fake:logits"})
    lower_is_better: Mapping[str, bool] = {"inception_score": False}
    limits: Mapping[str, tuple[float, float]] = {"inception_score": (1, math.inf)}

    def __init__(self, *, splits: Annotated[int, Gt(0)] = 1, seed: Annotated[int, Ge(0)] = 0) -> None:
        self.splits = splits
        self.seed = seed

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        if evidence.fake.logits is None:
            raise UsageError(
                "inception-score needs logits, and the extractor has none",
                hint="choose an extractor that is a classifier",
            )
        # Samples may come sorted by class, and one class has no diversity.
        order = np.random.default_rng(self.seed).permutation(len(evidence.fake.logits))
        logits = np.asarray(evidence.fake.logits)[order]
        return {"inception_score": inception_score(logits, splits=self.splits)}


def inception_score(logits: Features, *, splits: int = 1) -> float:
    """Mean over `splits` equal pieces of exp E KL(p(y | x) ‖ p(y)), in [1, K], of logits (N, K) of generated samples.

    Raises
    ------
    UsageError : fewer samples than splits.
    DataError : NaN or infinite logits.
    """
    return float(inception_scores(logits, splits=splits).mean())


def inception_scores(logits: Features, *, splits: int) -> Double:
    """The score (S,) of each of `splits` pieces, as near to equal as can be, of logits (N, K) in their order.

    Raises
    ------
    UsageError : fewer samples than splits.
    DataError : NaN or infinite logits.
    """
    if splits < 1:
        raise UsageError(f"splits must be at least 1, not {splits}")
    log_p = scipy.special.log_softmax(rows(logits, "logits", at_least=splits).astype(np.float64), axis=1)  # (N, K)
    scores = []
    for i in range(splits):
        piece = log_p[i * len(log_p) // splits : (i + 1) * len(log_p) // splits]
        log_mean = scipy.special.logsumexp(piece, axis=0) - np.log(len(piece))  # log p(y), (K,)
        scores.append(np.exp((np.exp(piece) * (piece - log_mean)).sum(1).mean()))
    return np.array(scores)
