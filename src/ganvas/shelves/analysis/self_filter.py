"""Which training images a generator finds odd: those that it cannot rebuild (Mokady et al. 2022).

The paper trains an encoder beside the generator. Here the latent of each image is searched, which needs no network but
the generator itself and ranks images in the same way. `scripts/self_filter.py` writes what is kept.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.shelves.metrics.latent_recovery import BATCH, recover
from ganvas.stats.moments import Double
from ganvas.types import Condition, Extractor, Latent, Subject


def reconstruction_distances(
    model: Subject,
    images: Tensor,
    label: Tensor | None = None,
    *,
    extractor: Extractor | None = None,
    iterations: int = 50,
    restarts: int = 1,
    seed: int = 0,
) -> Double:
    """How far each image (N, C, H, W) in [-1, 1] is from the nearest image that the model makes: (N,), from 0.

    Parameters
    ----------
    label : classes (N,) for a conditional model.
    extractor : distances are squared ones of its features, as published with `lpips`; None: mean squares of pixels.
    iterations, restarts, seed : of the search for the latent, which goes by pixels; see `latent-recovery`.

    Raises
    ------
    UsageError : there are no images.
    """
    if not len(images):
        raise UsageError("there are no images to rank", hint="give (N, C, H, W) in [-1, 1]")
    recovery = recover(model, images, label, iterations=iterations, restarts=restarts, seed=seed)
    if extractor is None:
        return recovery.error.double().cpu().numpy()
    space = next(iter(model.latents))
    distances = []
    for start in range(0, len(images), BATCH):
        piece = slice(start, start + BATCH)
        with torch.no_grad():
            labels = None if label is None else label[piece]
            rebuilt = model.synthesize(Latent(recovery.latent[piece], space), Condition.labelled(labels)).clamp(-1, 1)
            difference = extractor(rebuilt.to(images.device))[0] - extractor(images[piece])[0]
        distances.append(difference.double().square().sum(1).cpu())
    return torch.cat(distances).numpy()


def best_rebuilt(distances: Double, keep: float) -> np.ndarray:
    """The indices, ascending, of a share `keep` in (0, 1] of the images: those of the smallest distances (N,).

    Raises
    ------
    UsageError : a share that is out of range.
    """
    if not 0 < keep <= 1:
        raise UsageError(f"keep {keep} is no share", hint="give a number above 0 and at most 1, such as 0.7")
    count = math.ceil(keep * len(distances))
    return np.sort(np.argsort(distances, kind="stable")[:count])
