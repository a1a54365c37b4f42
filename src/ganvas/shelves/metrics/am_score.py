"""Scores of a classifier's predictions that look at the data's own share of each class: AM score and mode score."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import numpy as np
import scipy.special

from ganvas.errors import UsageError
from ganvas.parts import metric
from ganvas.stats.moments import Double, Features, rows
from ganvas.types import Evidence, Metric

_PER_CLASS = 10  # samples; with fewer, the share of a class is mostly chance


@metric("am-score", paper="Zhou et al. 2018")
class AMScore(Metric):
    """How unsure the extractor's classifier is of generated samples, and how far its classes' shares are off.

    AM = KL(p̄_real ‖ p̄_fake) + E H(p(y | fake)) in nats, p̄ the mean prediction; from 0, lower is better. Where
    both mean predictions are uniform over K classes, AM + log(inception score) = log K. The classifier should be one
    of the data's own classes; an ImageNet classifier on other data says little.
    """

    needs = frozenset({"logits"})
    lower_is_better: Mapping[str, bool] = {"am_score": True}
    limits: Mapping[str, tuple[float, float]] = {"am_score": (0, math.inf)}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        return {"am_score": am_score(*_logits(evidence, "am-score"))}


@metric("mode-score", paper="Che et al. 2017; Xu et al. 2018")
class ModeScore(Metric):
    """The inception score, lowered where generated samples have other shares of the classes than real ones.

    exp(E KL(p(y | fake) ‖ p̄_fake) − KL(p̄_fake ‖ p̄_real)), p̄ the mean prediction; above 0, at most K, higher is better.
    It is the form of Xu et al.; with p̄_real in both places, as Che et al. print it, the score is the inception score
    whatever the real data are.
    """

    needs = frozenset({"logits"})
    lower_is_better: Mapping[str, bool] = {"mode_score": False}
    limits: Mapping[str, tuple[float, float]] = {"mode_score": (0, math.inf)}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        return {"mode_score": mode_score(*_logits(evidence, "mode-score"))}


def am_score(real: Features, fake: Features) -> float:
    """KL(p̄_real ‖ p̄_fake) + mean entropy of a fake prediction, in nats, of logits `real` (N, K) and `fake` (M, K).

    Raises
    ------
    UsageError : an empty side, or sides of different K.
    DataError : NaN or infinite logits.
    """
    real_log_p, log_p = _log_predictions(real, fake)
    entropy = -(np.exp(log_p) * log_p).sum(axis=1).mean()
    return max(0.0, float(_kl(_log_mean(real_log_p), _log_mean(log_p)) + entropy))


def mode_score(real: Features, fake: Features) -> float:
    """exp(E KL(p(y | fake) ‖ p̄_fake) − KL(p̄_fake ‖ p̄_real)) of logits `real` (N, K) and `fake` (M, K).

    Raises
    ------
    UsageError : an empty side, or sides of different K.
    DataError : NaN or infinite logits.
    """
    real_log_p, log_p = _log_predictions(real, fake)
    log_mean = _log_mean(log_p)
    information = (np.exp(log_p) * (log_p - log_mean)).sum(axis=1).mean()
    return float(np.exp(information - _kl(log_mean, _log_mean(real_log_p))))


def _logits(evidence: Evidence, name: str) -> tuple[Features, Features]:
    real, fake = evidence.real.logits, evidence.fake.logits
    if real is None or fake is None:
        raise UsageError(
            f"{name} needs logits of both sides, and there are none", hint="choose an extractor that is a classifier"
        )
    return real, fake


def _log_predictions(real: Features, fake: Features) -> tuple[Double, Double]:
    """log p(y | x) of both sides: (N, K), (M, K)."""
    sides = rows(real, "real logits"), rows(fake, "fake logits")
    classes = sides[0].shape[1]
    if sides[1].shape[1] != classes:
        raise UsageError(
            f"real logits are of {classes} classes and fake ones of {sides[1].shape[1]}",
            hint="embed both sets with the same extractor",
        )
    for name, side in zip(("real", "generated"), sides, strict=True):
        if len(side) < _PER_CLASS * classes:
            warnings.warn(f"{len(side)} {name} samples are few for the shares of {classes} classes")
    real_log_p, log_p = (scipy.special.log_softmax(logits.astype(np.float64), axis=1) for logits in sides)
    return real_log_p, log_p


def _log_mean(log_p: Double) -> Double:
    """log of the mean prediction: (N, K) -> (K,). In logarithms nothing underflows to a class of share 0."""
    mean: Double = scipy.special.logsumexp(log_p, axis=0) - np.log(len(log_p))
    return mean


def _kl(log_p: Double, log_q: Double) -> float:
    return float((np.exp(log_p) * (log_p - log_q)).sum())
