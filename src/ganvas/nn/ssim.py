"""Structural similarity of images, at one scale and at several; differentiable."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ganvas.errors import UsageError

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, from fine to coarse

_K1, _K2 = 0.01, 0.03  # Wang et al. 2004


def ssim(x: Tensor, y: Tensor, *, data_range: float, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Structural similarity (Wang et al. 2004, eq. 13) of each image of `x` with that of `y`, in [-1, 1], 1 if equal.

    The Gaussian window stays inside the image; its means and variances are those of a population. The mean is over
    places and channels, as scikit-image has it with `gaussian_weights=True, use_sample_covariance=False`.

    Parameters
    ----------
    x, y : floats (N, C, H, W), both on the same scale.
    data_range : the largest possible value less the smallest one.
    window : width of the window in pixels, odd.
    sigma : standard deviation of the window in pixels.

    Returns
    -------
    (N,) in the type of `x`. In float32, values differ from float64's by about 1e-5.

    Raises
    ------
    UsageError : different shapes or types, an even window, or one that is larger than the images, or a sigma or range
        that is not above 0.
    """
    _check(x, y, window, sigma, data_range)
    similarity, _ = _similarity(x, y, data_range, _gaussian(window, sigma, x))
    return similarity.mean(1)


def ms_ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float,
    window: int = 11,
    sigma: float = 1.5,
    weights: Sequence[float] = MS_SSIM_WEIGHTS,
) -> Tensor:
    """Structural similarity at several scales (Wang et al. 2003, eq. 7) of each image of `x` with that of `y`: (N,).

    Each scale halves the one before by 2 × 2 means. Contrast and structure of a scale, and similarity at the last one,
    are means over places; negative ones count as 0; channels are averaged last. In [0, 1], 1 if equal.

    Parameters
    ----------
    x, y, data_range, window, sigma : as in `ssim`.
    weights : exponent of each scale, the finest first; as many scales are looked at.

    Raises
    ------
    UsageError : as `ssim`, or images too small for so many scales.
    """
    _check(x, y, window, sigma, data_range)
    fit = scales_that_fit(min(x.shape[2:]), window)
    if not 1 <= len(weights) <= fit:
        raise UsageError(
            f"{len(weights)} scales of images of {x.shape[2]}x{x.shape[3]}: a window of {window} fits into {fit}",
            hint="give fewer weights, or a smaller window",
        )
    kernel = _gaussian(window, sigma, x)
    product = x.new_ones(x.shape[:2])
    for scale, weight in enumerate(weights):
        similarity, structure = _similarity(x, y, data_range, kernel)
        last = scale == len(weights) - 1
        product = product * (similarity if last else structure).relu() ** weight  # (N, C)
        if not last:
            x, y = _halve(x), _halve(y)
    return product.mean(1)


def scales_that_fit(side: int, window: int) -> int:
    """How many scales of images with this shorter side a window fits into."""
    scales = 0
    while side >= window:
        scales += 1
        if side == 1:
            break
        side = -(-side // 2)
    return scales


def _check(x: Tensor, y: Tensor, window: int, sigma: float, data_range: float) -> None:
    if x.shape != y.shape or x.ndim != 4:
        raise UsageError(f"images of shape {tuple(x.shape)} cannot be compared with ones of shape {tuple(y.shape)}")
    if window < 1 or window % 2 == 0 or window > min(x.shape[2:]):
        raise UsageError(
            f"a window of {window} pixels for images of {x.shape[2]}x{x.shape[3]}",
            hint="it is odd and at most the shorter side",
        )
    for name, value in (("sigma", sigma), ("data_range", data_range)):
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} is {value}", hint="it is a number above 0")
    if not x.is_floating_point() or x.dtype != y.dtype:
        raise UsageError(f"images of {x.dtype} and {y.dtype}", hint="give floats of one type: x.float()")


def _gaussian(window: int, sigma: float, like: Tensor) -> Tensor:
    place = torch.arange(window, dtype=like.dtype, device=like.device) - window // 2
    weight = (-place.square() / (2 * sigma**2)).exp()
    return weight / weight.sum()


def _similarity(x: Tensor, y: Tensor, data_range: float, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """(SSIM, contrast times structure), each a mean over places: (N, C)."""
    C1, C2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    n, c, height, width = x.shape
    maps = torch.stack([x, y, x * x, y * y, x * y]).view(-1, 1, height, width)  # (5 N C, 1, H, W)
    maps = F.conv2d(F.conv2d(maps, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    mu_x, mu_y, xx, yy, xy = maps.view(5, n, c, *maps.shape[2:])
    var_x, var_y, cov = xx - mu_x * mu_x, yy - mu_y * mu_y, xy - mu_x * mu_y
    structure = (2 * cov + C2) / (var_x + var_y + C2)
    luminance = (2 * mu_x * mu_y + C1) / (mu_x * mu_x + mu_y * mu_y + C1)
    return (luminance * structure).mean((2, 3)), structure.mean((2, 3))


def _halve(images: Tensor) -> Tensor:
    """2 × 2 means; where a side is odd, a rim of zeros is added to both of its ends."""
    return F.avg_pool2d(images, 2, padding=(images.shape[2] % 2, images.shape[3] % 2))
