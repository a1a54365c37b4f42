"""Perceptual path length: how far an image moves when its latent takes a small step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Gt

from ganvas.errors import DataError, UsageError
from ganvas.nn.paths import lerp, slerp
from ganvas.parts import metric
from ganvas.shelves.metrics.latents import space_of
from ganvas.stats.moments import Double
from ganvas.types import Condition, Evidence, Extractor, Latent, Metric, Subject

_BATCH = 64  # pairs of images at once
_FEW = 1000  # pairs; the mean of a distribution with so long a tail is unsure with fewer


@metric("perceptual-path-length", paper="Karras et al. 2019, section 4.1", tiny={"samples": 20})
class PerceptualPathLength(Metric):
    """Mean squared feature distance per squared step between images of two neighbouring points on a path of latents.

    E d(G(path(t)), G(path(t + ε))) / ε^2 with d the squared distance of the extractor's features (`lpips` for published
    numbers), for random pairs of latents. From 0, lower is better: smooth. The lowest and the highest hundredth of
    distances are left out. Paths are great circles in a space with a normal prior, with the length between those of
    the ends, and straight lines in any other space, which stay inside a uniform prior's cube. Images are neither
    rounded to 8 bits, which would hide the step, nor cut to [-1, 1]. Published numbers use 50,000 pairs, and a crop of
    faces, which is not made here.

    Parameters
    ----------
    space : the latent space; None takes the one that the model is drawn from.
    epsilon : the step, as a share of the path.
    sampling : "full", from anywhere on the path, or "end", from its ends, where latents are as the prior draws them.
    samples : how many pairs.
    """

    needs = frozenset({"model", "extractor"})
    lower_is_better: Mapping[str, bool] = {"perceptual_path_length": True}
    limits: Mapping[str, tuple[float, float]] = {"perceptual_path_length": (0, math.inf)}

    def __init__(
        self,
        *,
        space: str | None = None,
        epsilon: Annotated[float, Gt(0)] = 1e-4,
        sampling: Literal["full", "end"] = "full",
        samples: Annotated[int, Gt(1)] = 10_000,
    ) -> None:
        self.space = space
        self.epsilon = epsilon
        self.sampling = sampling
        self.samples = samples

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        if evidence.model is None or evidence.extractor is None:
            raise UsageError("perceptual-path-length needs a model and an extractor", hint="it is not for images alone")
        if self.samples < _FEW:
            warnings.warn(f"{self.samples} samples are few for a mean path length; take at least {_FEW}")
        distances = path_distances(
            evidence.model,
            evidence.extractor,
            space=self.space,
            epsilon=self.epsilon,
            full=self.sampling == "full",
            samples=self.samples,
            seed=evidence.seed,
        )
        return {"perceptual_path_length": trimmed_mean(distances)}


def path_distances(
    model: Subject,
    extractor: Extractor,
    *,
    samples: int,
    space: str | None = None,
    epsilon: float = 1e-4,
    full: bool = True,
    seed: int = 0,
) -> Double:
    """Squared feature distance over squared step of each of `samples` pairs of neighbouring images: (samples,).

    Raises
    ------
    UsageError : the model has no such latent space, or none at all.
    MissingCapability : its points cannot be drawn.
    DataError : features that are not finite.
    """
    name, spec = space_of(model, space)
    label = model.labels(samples, seed=seed)
    ends = model.draw(2 * samples, seed=seed, space=name, label=None if label is None else label.repeat(2))
    rng = torch.Generator().manual_seed(seed)
    t = torch.rand(samples, generator=rng, dtype=torch.float64) * (1.0 if full else 0.0)
    along = slerp if spec.prior == "normal" else lerp
    pieces = []
    for start in range(0, samples, _BATCH):
        piece = slice(start, min(start + _BATCH, samples))
        # In float64: a step of 1e-4 has few digits left in float32.
        a, b = (half[piece].double().cpu() for half in (ends.values[:samples], ends.values[samples:]))
        pair = torch.cat([along(a, b, t[piece]), along(a, b, t[piece] + epsilon)])  # (2 B, *shape)
        piece_label = None if label is None else label[piece].repeat(2)
        with torch.inference_mode():
            images = model.synthesize(Latent(pair.to(ends.values), name), Condition.labelled(piece_label))
            first, second = extractor(images)[0].double().cpu().chunk(2)  # (B, D) each
        pieces.append((first - second).square().sum(1) / epsilon**2)
    distances: Double = torch.cat(pieces).numpy()
    if not np.isfinite(distances).all():
        raise DataError(
            "features along the path hold NaN or infinite values", hint="the model has probably diverged in training"
        )
    return distances


def trimmed_mean(distances: Double) -> float:
    """Mean of what lies between the 1st and the 99th percentile, both of them samples and included."""
    low = np.percentile(distances, 1, method="lower")
    high = np.percentile(distances, 99, method="higher")
    return float(distances[(low <= distances) & (distances <= high)].mean())
