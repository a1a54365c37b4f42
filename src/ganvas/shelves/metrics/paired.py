"""Scores of images that each have one right answer: the i-th generated image is compared with the i-th real one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.nn.ssim import MS_SSIM_WEIGHTS, ms_ssim, scales_that_fit, ssim
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import blocks, features_of, same_width
from ganvas.shelves.metrics.images import Images, images_of, stack
from ganvas.stats.moments import Features, rows
from ganvas.types import Evidence, Metric

_RANGE = 255.0  # of bytes
_WINDOW = 11
_ROUNDING = 1 / 12  # squared error that rounding to 8 bits makes by itself
_BLOCK_VALUES = 2**21  # of a batch of images, made float64 at once


@metric("psnr")
class PSNR(Metric):
    """Peak signal-to-noise ratio of each image and its original, in decibels, averaged over the images.

    10 log10(255^2 / mean squared error) of bytes; higher is better. An error below that of rounding to 8 bits, 1/12,
    counts as that, so that an image that is its original gets 58.9 dB and not infinity.
    """

    needs = frozenset({"images", "pairs"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"psnr": False}
    limits: Mapping[str, tuple[float, float]] = {"psnr": (0, 10 * math.log10(_RANGE**2 / _ROUNDING))}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        error = squared_errors(*_images(evidence)).clamp_min(_ROUNDING)
        return {"psnr": float((10 * (_RANGE**2 / error).log10()).mean())}


@metric("ssim", paper="Wang et al. 2004, eq. 13")
class SSIM(Metric):
    """Structural similarity of each image and its original, averaged over the images: at most 1, higher is better.

    A Gaussian window of 11 pixels and standard deviation 1.5 on each channel of the bytes. Images smaller than the
    window get a smaller one, and a warning.
    """

    needs = frozenset({"images", "pairs"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"ssim": False}
    limits: Mapping[str, tuple[float, float]] = {"ssim": (-1, 1)}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        x, y = paired(*_images(evidence))
        window = _window(x)
        return {"ssim": _mean(x, y, lambda a, b: ssim(a, b, data_range=_RANGE, window=window))}


@metric("ms-ssim", paper="Wang et al. 2003, eq. 7")
class MSSSIM(Metric):
    """Structural similarity at five scales of each image and its original, averaged: in [0, 1], higher is better.

    Images too small for five scales of an 11 pixel window (161 pixels) are compared at as many as fit, with the first
    weights, scaled to the same sum, and a warning.
    """

    needs = frozenset({"images", "pairs"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"ms_ssim": False}
    limits: Mapping[str, tuple[float, float]] = {"ms_ssim": (0, 1)}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        x, y = paired(*_images(evidence))
        every = torch.arange(len(x))
        return {"ms_ssim": float(ms_ssim_of_pairs(x, y, every, every).mean())}


@metric("perceptual-distance", paper="Zhang et al. 2018, eq. 1")
class PerceptualDistance(Metric):
    """Squared feature distance of each image and its original, averaged; with the extractor `lpips` it is LPIPS.

    From 0, the same features; lower is better. In the squared unit of the extractor's features.
    """

    needs = frozenset({"features", "pairs"})
    lower_is_better: Mapping[str, bool] = {"perceptual_distance": True}
    limits: Mapping[str, tuple[float, float]] = {"perceptual_distance": (0, math.inf)}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        return {"perceptual_distance": perceptual_distance(*features_of(evidence))}


def squared_errors(real: Images, fake: Images) -> Tensor:
    """Mean squared error of each image and its original, in squared levels of a byte: (N,) float64.

    Raises
    ------
    UsageError : images that are not pairs.
    """
    x, y = paired(real, fake)
    return torch.cat([(x[i].double() - y[i].double()).square().flatten(1).mean(1) for i in _batches(x)])


def perceptual_distance(real: Features, fake: Features) -> float:
    """Mean of |x_i - y_i|^2 over the rows of features (N, D).

    Raises
    ------
    UsageError : no samples, or sides of different shapes.
    DataError : NaN or infinite values.
    """
    x, y = rows(real, "real features"), rows(fake, "fake features")
    same_width(x, y)
    _same_count(len(x), len(y))
    total = sum(float(((x[i].astype(np.float64) - y[i]) ** 2).sum()) for i in blocks(*x.shape))
    return total / len(x)


def paired(real: Images, fake: Images) -> tuple[Tensor, Tensor]:
    """Both sides as bytes (N, C, H, W) of the same shape.

    Raises
    ------
    UsageError : different counts, or images of different shapes.
    """
    x, y = stack(real, "real"), stack(fake, "fake")
    _same_count(len(x), len(y))
    if x.shape != y.shape:
        raise UsageError(
            f"real images are {_size(x)} and generated ones {_size(y)}, so no pixel has its like",
            hint="bring both to the same size and number of channels",
        )
    return x, y


def ms_ssim_of_pairs(x: Tensor, y: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """MS-SSIM of bytes x[left] with y[right], two (P,) indices, at as many scales as fit: (P,) float64."""
    window = _window(x)
    side = min(x.shape[2:])
    weights = MS_SSIM_WEIGHTS[: scales_that_fit(side, window)]
    if len(weights) < len(MS_SSIM_WEIGHTS) and window == _WINDOW:
        warnings.warn(
            f"images of {_size(x)} hold an 11 pixel window at {len(weights)} scales, not 5: the value is comparable "
            "only among images of this size"
        )
    scale = sum(MS_SSIM_WEIGHTS) / sum(weights)
    exponents = [weight * scale for weight in weights]
    similarities = []
    for i in _batches(x, len(left)):
        pair = x[left[i]].double(), y[right[i]].double()
        similarities.append(ms_ssim(*pair, data_range=_RANGE, window=window, weights=exponents))
    return torch.cat(similarities)


def _images(evidence: Evidence) -> tuple[Tensor, Tensor]:
    return images_of(evidence.real, "real"), images_of(evidence.fake, "fake")


def _same_count(n: int, m: int) -> None:
    if n != m:
        raise UsageError(
            f"{n} real and {m} generated images are no pairs",
            hint="this metric compares the i-th of both; for unpaired images take frechet-distance or the like",
        )


def _window(x: Tensor) -> int:
    side = min(x.shape[2:])
    if side >= _WINDOW:
        return _WINDOW
    window = side - (side + 1) % 2  # odd
    warnings.warn(f"images of {_size(x)} are smaller than the window of 11 pixels, which is cut to {window}")
    return window


def _mean(x: Tensor, y: Tensor, compare: Callable[[Tensor, Tensor], Tensor]) -> float:
    return float(torch.cat([compare(x[i].double(), y[i].double()) for i in _batches(x)]).mean())


def _batches(x: Tensor, count: int | None = None) -> Iterator[slice]:
    """Slices that cover range(count), such that so many of these images are at most _BLOCK_VALUES values."""
    count = len(x) if count is None else count
    step = max(1, _BLOCK_VALUES // x[0].numel())
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _size(x: Tensor) -> str:
    return "x".join(str(side) for side in x.shape[1:])
