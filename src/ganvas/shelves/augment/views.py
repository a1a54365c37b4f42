"""The augmentations of two self-supervised methods, batched and differentiable.

Unlike their originals, which work on stored pictures, nothing is clipped (a clipped pixel has no gradient), hue turns
the colours about the grey axis, and the colour changes come in one fixed order: brightness, contrast, saturation, hue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.nn.warp import filter_separable, pixel_grid, sample, scaling, translation
from ganvas.parts import augment
from ganvas.types import Augment

Probability = Annotated[float, Ge(0), Le(1)]
Share = Annotated[float, Gt(0), Le(1)]
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class View(Augment):
    """Crop and resize, flip, colour jitter, grey, blur, solarisation, in this order; what the two methods share.

    `jitter` is how far brightness, contrast, saturation and hue (a part of a full turn) go.
    """

    def __init__(
        self, *, crop: tuple[float, float], jitter: tuple[float, float, float, float], blur: float, solarize: float
    ) -> None:
        if crop[0] > crop[1]:
            raise BadValue(f"crop {list(crop)} is empty", key="crop", hint="give the smaller area first")
        self.crop = crop
        self.jitter = jitter
        self.blur = blur
        self.solarize = solarize

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, C, H, W)."""
        with torch.autocast(images.device.type, enabled=False):  # half precision is no good for coordinates
            images = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
            return self.apply(images, self.draw(images))

    def draw(self, images: Tensor) -> dict[str, Tensor]:
        """What is done to each image, (N,) each; factors and shifts that change nothing where it is not done."""
        N = len(images)

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * draws.uniform("view", (N,), like=images)

        def chosen(p: float) -> Tensor:
            return draws.uniform("view", (N,), like=images) < p

        area, ratio = uniform(*self.crop), uniform(math.log(3 / 4), math.log(4 / 3)).exp()
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        brightness, contrast, saturation, hue = self.jitter
        jittered = chosen(0.8)
        return {
            "width": width,
            "height": height,
            "x": (1 - width) * uniform(-0.5, 0.5),  # of the crop's centre from the image's, as a part of its side
            "y": (1 - height) * uniform(-0.5, 0.5),
            "flip": chosen(0.5).to(images.dtype),
            "brightness": torch.where(jittered, uniform(max(1 - brightness, 0), 1 + brightness), 1.0),
            "contrast": torch.where(jittered, uniform(max(1 - contrast, 0), 1 + contrast), 1.0),
            "saturation": torch.where(jittered, uniform(max(1 - saturation, 0), 1 + saturation), 1.0),
            "hue": torch.where(jittered, 2 * math.pi * uniform(-hue, hue), 0.0),
            "grey": chosen(0.2),
            "blur": torch.where(chosen(self.blur), uniform(0.1, 2.0), 0.0),
            "solarize": chosen(self.solarize),
        }

    def apply(self, images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Do what was drawn."""
        images = cropped(images, draws)
        images = coloured(images, draws)
        images = torch.where(draws["grey"][:, None, None, None], grey(images), images)
        if self.blur > 0:
            images = filter_separable(images, gaussian(draws["blur"], images))
        if self.solarize > 0:  # what is brighter than the middle is turned round
            images = torch.where(draws["solarize"][:, None, None, None] & (images > 0), -images, images)
        return images


@augment("simclr", paper="Chen et al. 2020 (SimCLR), appendix A")
class SimClr(View):
    """SimCLR's view of an image: random crop resized to its size, flip, colour jitter, grey, blur.

    Parameters
    ----------
    strength : of the colour jitter; the paper has 1 for ImageNet and 0.5 for CIFAR-10.
    crop : the smallest and the largest area of the crop, as parts of the image's.
    blur : probability of a Gaussian blur; the paper has 0.5 for ImageNet and 0 for CIFAR-10.
    """

    def __init__(
        self,
        *,
        strength: Annotated[float, Ge(0), Le(2.5)] = 0.5,
        crop: tuple[Share, Share] = (0.08, 1.0),
        blur: Probability = 0.5,
    ) -> None:
        s = strength
        super().__init__(crop=crop, jitter=(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s), blur=blur, solarize=0.0)


@augment("byol", paper="Grill et al. 2020 (BYOL), appendix B")
class Byol(View):
    """BYOL's view of an image: as SimCLR's with milder saturation and hue, and solarisation.

    The defaults are the paper's first view; its second one has blur 0.1 and solarize 0.2.

    Parameters
    ----------
    crop : the smallest and the largest area of the crop, as parts of the image's.
    blur : probability of a Gaussian blur.
    solarize : probability that pixels above the middle are turned round.
    """

    def __init__(
        self, *, crop: tuple[Share, Share] = (0.08, 1.0), blur: Probability = 1.0, solarize: Probability = 0.0
    ) -> None:
        super().__init__(crop=crop, jitter=(0.4, 0.4, 0.2, 0.1), blur=blur, solarize=solarize)


# ---------------------------------------------------------------------------------------------------- what is done


def cropped(images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
    """The crop, flipped or not, at the size of the image, by bilinear interpolation."""
    H, W = images.shape[2:]
    place = translation(draws["x"] * W, draws["y"] * H)
    inverse = place @ scaling(draws["width"] * (1 - 2 * draws["flip"]), draws["height"])
    return sample(images, pixel_grid(inverse, H, W, (H, W)), clamp=True)


def grey(images: Tensor) -> Tensor:
    """(N, C, H, W) -> the same with equal channels: luma of three, the mean of any other number."""
    C = images.shape[1]
    weights = images.new_tensor(_LUMA if C == 3 else [1 / C] * C)[:, None, None]
    return (images * weights).sum(1, keepdim=True).expand_as(images)


def coloured(images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
    """Brightness, contrast, saturation and hue; hue only where there are three channels."""
    C = images.shape[1]
    brightness, contrast, saturation, hue = (
        draws[name][:, None, None, None] for name in ("brightness", "contrast", "saturation", "hue")
    )
    images = (images + 1) * brightness - 1  # black is -1
    mean = grey(images).mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * contrast
    images = grey(images) + (images - grey(images)) * saturation
    if C != 3:
        return images
    # Rodrigues' rotation about the grey axis, as far as it acts on what is not grey.
    middle = images.mean(1, keepdim=True)
    chroma = images - middle
    across = (chroma.roll(1, 1) - chroma.roll(-1, 1)) / math.sqrt(3)  # v × chroma
    return middle + hue.cos() * chroma + hue.sin() * across


def gaussian(sigma: Tensor, images: Tensor) -> Tensor:
    """Filters (N, K) of standard deviations sigma (N,), K about a tenth of the longer side; sigma 0 changes nothing."""
    reach = max(1, round(max(images.shape[2:]) / 20))
    x = torch.arange(-reach, reach + 1, device=sigma.device, dtype=sigma.dtype)
    taps = torch.exp(-0.5 * (x / sigma[:, None].clamp(min=1e-3)).square())
    return taps / taps.sum(1, keepdim=True)
