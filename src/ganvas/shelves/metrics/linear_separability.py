"""Linear separability: whether a plane in latent space parts images of different classes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import numpy.typing as npt
import scipy.special
import torch
from annotated_types import Gt

from ganvas.errors import DataError, UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.latents import space_of
from ganvas.stats.moments import Double, Features, rows
from ganvas.types import Condition, Evidence, Latent, Metric

_BATCH = 256
_PER_DIMENSION = 10  # samples; a plane parts any few points of a space of many dimensions


@metric("linear-separability", paper="Karras et al. 2019, section 4.2", tiny={"samples": 60})
class LinearSeparability(Metric):
    """exp H(Y | X): how unsure the class Y of an image is, given the class X that a linear SVM reads off its latent.

    From 1, planes in latent space part the classes, to the number of classes K; lower is better. Y is the answer of the
    extractor's classifier; the half of which it is least sure is left out. The paper sums H over 40 attributes with two
    values, each with a classifier of its own; here there is one attribute with K values. As there, the SVM is fitted to
    the samples that it is judged by. A class-conditional model is asked for classes at random, which latents cannot
    know: it scores near K.

    Parameters
    ----------
    space : the latent space; None takes the one that the model is drawn from.
    samples : how many images, the half that is left out included; the paper takes 200,000.
    """

    needs = frozenset({"model", "extractor"})
    lower_is_better: Mapping[str, bool] = {"linear_separability": True}
    limits: Mapping[str, tuple[float, float]] = {"linear_separability": (1, math.inf)}

    def __init__(self, *, space: str | None = None, samples: Annotated[int, Gt(3)] = 20_000) -> None:
        self.space = space
        self.samples = samples

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        model, extractor = evidence.model, evidence.extractor
        if model is None or extractor is None or not extractor.classes:
            raise UsageError(
                "linear-separability needs a model, and an extractor with logits",
                hint="choose an extractor that is a classifier",
            )
        name, _ = space_of(model, self.space)
        latent = model.draw(self.samples, seed=evidence.seed, space=name).values
        label = model.labels(self.samples, seed=evidence.seed)
        scores = []
        with torch.inference_mode():
            for start in range(0, self.samples, _BATCH):
                piece = slice(start, start + _BATCH)
                piece_label = None if label is None else label[piece]
                images = model.synthesize(Latent(latent[piece], name), Condition.labelled(piece_label)).clamp(-1, 1)
                logits = extractor(images)[1]
                assert logits is not None  # as it has classes
                scores.append(logits.cpu())
        return {"linear_separability": linear_separability(latent.flatten(1).cpu(), torch.cat(scores))}


def linear_separability(latents: Features, logits: Features) -> float:
    """exp H(Y | X) in [1, K] of latents (N, D) and a classifier's logits (N, K) of their images.

    Y is the likeliest class, X what a linear SVM on latents predicts. Of N samples the N // 2 whose class is likeliest
    are kept. 1, with a warning, where these are of one class.

    Raises
    ------
    UsageError : fewer than 4 samples, or not as many logits as latents.
    DataError : NaN or infinite values.
    """
    from sklearn.svm import LinearSVC

    z, scores = rows(latents, "latents", at_least=4), rows(logits, "logits")
    if len(z) != len(scores):
        raise UsageError(f"{len(z)} latents and {len(scores)} rows of logits")
    confidence = scipy.special.log_softmax(scores.astype(np.float64), axis=1).max(axis=1)  # (N,)
    confident = np.argsort(-confidence, kind="stable")[: len(z) // 2]
    z, y = z[confident].astype(np.float64), scores[confident].argmax(axis=1)
    if len(z) < _PER_DIMENSION * (z.shape[1] + 1):
        warnings.warn(f"{len(z)} kept samples are few for planes in {z.shape[1]} dimensions: chance alone parts them")
    if (y == y[0]).all():
        warnings.warn(f"all {len(y)} kept samples are of one class, which any plane leaves whole")
        return 1.0
    x = LinearSVC(dual="auto", random_state=0).fit(z, y).predict(z)
    return float(np.exp(conditional_entropy(x, y)))


def conditional_entropy(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64]) -> float:
    """H(Y | X) in nats of two aligned lists of classes (N,), from their counts.

    Raises
    ------
    DataError : a negative class.
    """
    if x.min() < 0 or y.min() < 0:
        raise DataError("classes are numbered from 0")
    joint: Double = np.zeros((x.max() + 1, y.max() + 1))
    np.add.at(joint, (x, y), 1 / len(x))
    return max(0.0, float(scipy.special.entr(joint).sum() - scipy.special.entr(joint.sum(axis=1)).sum()))
