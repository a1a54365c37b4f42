"""How unlike each other pairs of generated images are: to structural similarity, and to an extractor."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import blocks
from ganvas.shelves.metrics.images import Images, images_of, label_of, stack, stack_labels
from ganvas.shelves.metrics.paired import ms_ssim_of_pairs
from ganvas.stats.moments import Features, rows
from ganvas.types import Evidence, Metric


@metric("ms-ssim-diversity", paper="Odena et al. 2017, section 4.2")
class MSSSIMDiversity(Metric):
    """Mean MS-SSIM of random pairs of generated images of the same class: 1 where a class is one image.

    In [0, 1]; lower means more diverse, and is lowest for noise: it is to be read beside the same number of real
    images. The mean is over pairs of a class, then over classes. Images too small for five scales of an 11 pixel window
    are compared at fewer, and a warning says so.

    Parameters
    ----------
    within : "class" pairs images of the same class, "all" any two.
    pairs : random pairs of each class.
    seed : decides which.
    """

    needs = frozenset({"fake:images", "fake:label"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"ms_ssim_diversity": True}
    limits: Mapping[str, tuple[float, float]] = {"ms_ssim_diversity": (0, 1)}

    def __init__(
        self,
        *,
        within: Literal["class", "all"] = "class",
        pairs: Annotated[int, Gt(0)] = 100,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self.within = within
        self.pairs = pairs
        self.seed = seed
        if within == "all":
            self.needs = frozenset({"fake:images"})

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        images = images_of(evidence.fake, "fake")
        label = label_of(evidence.fake, "fake") if self.within == "class" else None
        return {"ms_ssim_diversity": ms_ssim_diversity(images, label, pairs=self.pairs, seed=self.seed)}


@metric("perceptual-diversity", paper="Zhu et al. 2017 (LPIPS diversity)")
class PerceptualDiversity(Metric):
    """Mean squared feature distance of two generated images; with the extractor `lpips` the mean LPIPS of pairs.

    The mean is over all pairs, which is twice the trace of the features' covariance; no pairs are drawn. From 0, all
    alike; higher is more diverse, and is highest for noise: it is to be read beside the same number of real images.
    """

    needs = frozenset({"fake:features"})
    lower_is_better: Mapping[str, bool] = {"perceptual_diversity": False}
    limits: Mapping[str, tuple[float, float]] = {"perceptual_diversity": (0, math.inf)}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        if evidence.fake.features is None:
            raise UsageError("the evidence holds no features", hint="name an extractor")
        return {"perceptual_diversity": mean_squared_distance(evidence.fake.features)}


def ms_ssim_diversity(
    images: Images, label: npt.ArrayLike | Tensor | None = None, *, pairs: int = 100, seed: int = 0
) -> float:
    """Mean MS-SSIM of `pairs` random pairs of each class of images (N, C, H, W), averaged over classes; in [0, 1].

    Without `label` (N,) all images are of one class. Classes of one image are left out, with a warning.

    Raises
    ------
    UsageError : no class has two images, or not one label an image.
    DataError : images that are not finite.
    """
    x = stack(images, "fake", at_least=2)
    classes = stack_labels(np.zeros(len(x), dtype=np.int64) if label is None else label, len(x), "fake").numpy()
    rng = np.random.default_rng(seed)
    left, right, alone = [], [], 0
    for k in np.unique(classes):
        members = np.flatnonzero(classes == k)
        if len(members) < 2:
            alone += 1
            continue
        i = rng.integers(len(members), size=pairs)
        j = (i + rng.integers(1, len(members), size=pairs)) % len(members)  # any other one
        left.append(members[i])
        right.append(members[j])
    if not left:
        raise UsageError("no class has two images", hint="sample more")
    if alone:
        warnings.warn(f"{len(x)} samples are few: {alone} classes have one image, and no pair")
    chosen = (torch.from_numpy(np.concatenate(side)) for side in (left, right))
    # As many pairs in each class, so the mean over all is the mean over classes.
    return float(ms_ssim_of_pairs(x, x, *chosen).mean())


def mean_squared_distance(features: Features) -> float:
    """Mean of |x_i - x_j|^2 over all pairs of different rows of features (N, D): twice the trace of the covariance.

    Raises
    ------
    UsageError : fewer than 2 rows.
    DataError : NaN or infinite values.
    """
    x = rows(features, "fake features", at_least=2)
    centre = x.mean(axis=0, dtype=np.float64)
    total = sum(float(((x[part] - centre) ** 2).sum()) for part in blocks(*x.shape))
    return 2 * total / (len(x) - 1)
