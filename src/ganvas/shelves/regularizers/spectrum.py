"""The generator's radial power spectrum held at that of real data."""

from __future__ import annotations

import functools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ganvas.parts import regularizer
from ganvas.types import Regularizer, Side, Turn

ROUNDING_POWER = (1 / 255) ** 2 / 12  # of the error of 8-bit images in [0, 1]


@functools.lru_cache(maxsize=8)
def ring_weights(height: int, width: int) -> Tensor:
    """(rings, H, W // 2 + 1): how much each frequency of `rfft2` counts in each ring, rows summing to one.

    Radii are in cycles an image side of the shorter side; a frequency between two rings counts in both by its
    distance, so that the spectrum is a smooth function of the image.
    """
    side = min(height, width)
    down = torch.fft.fftfreq(height).abs()[:, None] * side
    across = torch.fft.rfftfreq(width)[None] * side
    radius = (down.square() + across.square()).sqrt()
    rings = torch.arange(side // 2 + 1)[:, None, None]
    weights: Tensor = (1 - (radius - rings).abs()).clamp(min=0)
    # Every column but the first and the Nyquist one stands for its mirror image, too.
    twice = torch.full((width // 2 + 1,), 2.0)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    weights = weights * twice
    normed: Tensor = weights / weights.sum((1, 2), keepdim=True)
    return normed


def _rings(grey: Tensor) -> Tensor:
    """(N, H, W) -> (N, rings): mean power by radius."""
    power = torch.fft.rfft2(grey, norm="ortho").abs().square()  # (N, H, W // 2 + 1)
    return torch.einsum("nhw,rhw->nr", power, ring_weights(grey.shape[1], grey.shape[2]).to(power))


def radial_spectrum(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, rings): mean power by radius of the grey image, the log scaled to [0, 1] per image."""
    decibel = torch.log(_rings(images.float().mean(1)) + 1e-8)
    low, high = decibel.amin(1, keepdim=True), decibel.amax(1, keepdim=True)
    return (decibel - low) / (high - low + 1e-8)


def relative_spectrum(images: Tensor) -> Tensor:
    """(N, C, H, W) in [-1, 1] -> (N, rings - 1): log of the power by radius over that of the mean brightness.

    Of the grey image in [0, 1]; the power of rounding to 8 bits is added, below which nothing is meant.
    """
    rings = _rings((images.float().mean(1) + 1) / 2) + ROUNDING_POWER
    return torch.log(rings[:, 1:] / rings[:, :1].clamp(min=1e-3))


@regularizer("spectral-distribution", paper="Durall et al. 2020, eq. 9", system="spectral-upconv")
class SpectralDistribution(Regularizer):
    """Binary cross-entropy between generated radial spectra and the mean real one, with a gradient to the generator.

    The published training script takes the term on detached samples, so that nothing is learnt from it.

    Parameters
    ----------
    scale : "range", as published: the log spectrum of each image is scaled to [0, 1] by its own extremes. "brightness":
        it is taken relative to the power of the image's mean brightness, and compared by the mean absolute difference,
        whose gradient does not vanish where spectra are far apart; a weight of 5 is a good start.
    """

    side: Side = "generator"

    def __init__(self, *, scale: Literal["range", "brightness"] = "range") -> None:
        self.scale = scale

    def __call__(self, turn: Turn) -> Tensor:
        with torch.autocast(turn.real.device.type, enabled=False):
            if self.scale == "brightness":
                target = relative_spectrum(turn.real).mean(0).detach()
                return (relative_spectrum(turn.fake) - target).abs().mean()
            target = radial_spectrum(turn.real).mean(0, keepdim=True).detach()
            spectrum = radial_spectrum(turn.fake)
            return F.binary_cross_entropy(spectrum.clamp(1e-6, 1 - 1e-6), target.expand_as(spectrum))
