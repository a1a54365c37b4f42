"""Fine detail on its own: Fréchet distances that do not look at anything large."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import Double
from ganvas.shelves.metrics.frechet_distance import frechet_distance, frechet_distance_of_features
from ganvas.shelves.metrics.images import images_of, stack
from ganvas.types import Evidence, Metric

if TYPE_CHECKING:
    from ganvas.shelves.metrics.images import Images

CHUNK = 256  # images that are filtered, or cut into patches, at once


@metric("high-pass-distance", paper="after Cherti et al. 2023 (solar images)")
class HighPassDistance(Metric):
    """Fréchet distance between extractor features of what a Gaussian blur takes away from real and generated images.

    Each image x becomes (x - blur(x)) / 2, grey where it is flat, before the extractor sees it. In the squared unit of
    the features, from 0 without bound, lower is better.

    Parameters
    ----------
    sigma : standard deviation of the blur, in pixels; what is larger than about 3 sigma does not count.
    """

    needs = frozenset({"images", "extractor"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"high_pass_distance": True}
    limits: Mapping[str, tuple[float, float]] = {"high_pass_distance": (0, math.inf)}

    def __init__(self, *, sigma: Annotated[float, Gt(0)] = 1.0) -> None:
        self.sigma = sigma

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        extractor = evidence.extractor
        if extractor is None:
            raise UsageError("the evidence holds no extractor", hint="name one in the protocol")
        real, fake = (
            torch.cat([extractor(high_pass(piece, self.sigma))[0] for piece in torch.split(stack(side, name), CHUNK)])
            for side, name in ((images_of(evidence.real, "real"), "real"), (images_of(evidence.fake, "fake"), "fake"))
        )
        return {"high_pass_distance": frechet_distance_of_features(real, fake)}


@metric("patch-distance", paper="after Cherti et al. 2023 (solar images)")
class PatchDistance(Metric):
    """Fréchet distance between small patches of real and generated images, as pixels; no extractor.

    Gaussians are fitted to all size x size patches of a grid that overlaps by half, in units of [0, 1] pixels squared
    and summed over the patch; from 0 without bound, lower is better.

    Parameters
    ----------
    size : pixels of a side.
    """

    needs = frozenset({"images"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"patch_distance": True}
    limits: Mapping[str, tuple[float, float]] = {"patch_distance": (0, math.inf)}

    def __init__(self, *, size: Annotated[int, Gt(1)] = 4) -> None:
        self.size = size

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        sides = (patch_moments(images_of(vars(evidence)[side], side), self.size) for side in ("real", "fake"))
        (m1, S1), (m2, S2) = sides
        return {"patch_distance": frechet_distance(m1, S1, m2, S2)}


def high_pass(images: Images, sigma: float) -> Tensor:
    """(x - blur(x)) / 2 of images (N, C, H, W), float32 in [-1, 1]; edges are mirrored.

    Raises
    ------
    UsageError : no images.
    DataError : NaN, or floats outside [-1, 1].
    """
    x = stack(images, "given").float() / 127.5 - 1
    return (x - gaussian_blur(x, sigma)) / 2


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """(N, C, H, W) float convolved with a Gaussian of `sigma` pixels, cut at 4 sigma, at most at the image's side."""
    for axis in (2, 3):
        reach = min(math.ceil(4 * sigma), images.shape[axis] - 1)
        at = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
        kernel = torch.exp(-(at**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).view(1, 1, *((-1, 1) if axis == 2 else (1, -1)))
        n, c, h, w = images.shape
        margins = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        padded = F.pad(images, margins, mode="reflect")
        images = F.conv2d(padded.flatten(0, 1)[:, None], kernel).view(n, c, h, w)
    return images


def patch_moments(images: Images, size: int) -> tuple[Double, Double]:
    """Mean (D,) and unbiased covariance (D, D) of all patches of images (N, C, H, W) in [0, 1], D = C size^2.

    Sums of bytes are exact in float64, so the order of images changes nothing.

    Raises
    ------
    UsageError : no images, smaller ones than a patch, or a single patch.
    DataError : NaN, or floats outside [-1, 1].
    """
    pixels = stack(images, "given")
    if min(pixels.shape[2:]) < size:
        raise UsageError(f"patches of {size} pixels do not fit into {pixels.shape[2]}x{pixels.shape[3]} images")
    count, total, products = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for piece in torch.split(pixels, CHUNK):
        patches = F.unfold(piece.float(), size, stride=max(1, size // 2)).double()  # (n, D, L)
        rows = patches.transpose(1, 2).flatten(0, 1)  # (n L, D)
        count += len(rows)
        total = total + rows.sum(0)
        products = products + rows.T @ rows
    if count < 2:
        raise UsageError("a single patch has no covariance", hint="give more images, or take smaller patches")
    mean = total / count
    covariance = (products - count * torch.outer(mean, mean)) / (count - 1)
    return np.asarray(mean / 255), np.asarray(covariance / 255**2)
