"""How images of any size and channel count become what an extractor's network was made for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ganvas.errors import UsageError

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG and Pillow's "L" use


def check(images: Tensor) -> None:
    """Refuse what is not a stack of images.

    Raises
    ------
    UsageError : `images` is not (N, C, H, W) of floats with N, C, H, W >= 1.
    """
    if images.ndim != 4 or images.numel() == 0 or not images.is_floating_point():
        raise UsageError(
            f"an extractor takes images (N, C, H, W) of floats in [-1, 1], not {tuple(images.shape)} of {images.dtype}",
            hint="add the missing axis, or turn bytes into floats with x / 127.5 - 1",
        )


def over(images: Tensor, background: float) -> Tensor:
    """Composite away the alpha channel of (N, 2, H, W) or (N, 4, H, W) images; others are returned as they are.

    Alpha is straight (not premultiplied) and lies in [-1, 1] like every channel; `background` is the value of all
    colours where nothing is drawn, 1 for white and -1 for black.
    """
    if images.shape[1] not in (2, 4):
        return images
    colour, alpha = images[:, :-1], (images[:, -1:] + 1) / 2
    return colour * alpha + background * (1 - alpha)


def grey(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1, H, W): itself for one channel, luma for RGB, the mean for other counts."""
    if images.shape[1] == 1:
        return images
    if images.shape[1] == 3:
        weight = images.new_tensor(_LUMA).view(1, 3, 1, 1)
        return (images * weight).sum(dim=1, keepdim=True)
    return images.mean(dim=1, keepdim=True)


def rgb(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 3, H, W): itself for RGB, else three copies of the grey image."""
    return images if images.shape[1] == 3 else grey(images).expand(-1, 3, -1, -1)


def with_channels(images: Tensor, channels: int, background: float) -> Tensor:
    """(N, C, H, W) -> (N, channels, H, W): itself where it fits, else composited on the background, then grey or RGB.

    Raises
    ------
    UsageError : neither grey (1) nor RGB (3) is asked for, and the images have another number of channels.
    """
    if images.shape[1] == channels:
        return images
    if channels not in (1, 3):
        raise UsageError(
            f"images of {images.shape[1]} channels cannot be made ones of {channels}",
            hint="an extractor for grey or RGB images takes any",
        )
    opaque = over(images, background)
    return grey(opaque) if channels == 1 else rgb(opaque)


def square(images: Tensor, side: int) -> Tensor:
    """(N, C, H, W) -> (N, C, side, side) by bilinear resampling with antialiasing; untouched where it fits already.

    Other aspect ratios are squeezed, as in the usual protocols of Fréchet distances.
    """
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)


def batched(images: Tensor, limit: int = 2**22) -> list[Tensor]:
    """`images` in consecutive pieces of at most `limit` values, 512 images, and at least one image each."""
    size = max(1, min(512, limit // images[0].numel()))
    return list(torch.split(images, size))
