"""Low-pass filters of a given cutoff, and a leaky ReLU between two of them that makes no aliases.

Karras et al. 2021 (StyleGAN3), section 3.2 and appendix C. A pointwise non-linearity adds frequencies without bound, so
it is applied at a higher sampling rate and what the lower rate cannot hold is filtered away before going back.
Frequencies are in cycles, and sampling rates in samples, per unit of length; any unit will do.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor, nn

from ganvas.nn.equalized import LEAKY_GAIN, leaky
from ganvas.nn.fir import Padding, upfirdn2d


# Kaiser 1974, as in appendix C.1: attenuation A = 2.285 (n - 1) pi (width / (rate / 2)) + 7.95 dB, and beta of A
def kaiser_beta(taps: int, width: float, rate: float) -> float:
    """Shape of the window of so many taps whose filter passes from band to stop within `width`."""
    attenuation = 2.285 * (taps - 1) * pi * width / (rate / 2) + 7.95
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * float((attenuation - 21) ** 0.4) + 0.07886 * (attenuation - 21)
    return 0.0


# Appendix C.1: h[k] = 2 f_c sinc(2 f_c x) w(x), scaled to a sum of 1
def lowpass_taps(taps: int, *, cutoff: float, width: float, rate: float) -> Tensor:
    """Kaiser-windowed sinc filter (taps,) float32 that is used along rows and along columns.

    Parameters
    ----------
    cutoff : where the amplitude has fallen to a half.
    width : of the transition band around it.
    rate : samples per unit at which the filter runs.
    """
    x = _places(taps, rate)
    window = torch.kaiser_window(taps, periodic=False, beta=kaiser_beta(taps, width, rate), dtype=torch.float64)
    h = torch.sinc(2 * cutoff * x) * window
    return (h / h.sum()).to(torch.get_default_dtype())


# Appendix C.2: the same with jinc(r) = J_1(2 pi f_c r) / (pi r) in place of sinc, and the window of rows and columns
def radial_taps(taps: int, *, cutoff: float, width: float, rate: float) -> Tensor:
    """Radially symmetric filter (taps, taps) float32, which has no preferred direction; else as `lowpass_taps`."""
    x = _places(taps, rate)
    r = torch.hypot(x[:, None], x).clamp_min(1e-12 / rate)  # an odd filter has a tap at r = 0, where jinc is pi f_c^2
    window = torch.kaiser_window(taps, periodic=False, beta=kaiser_beta(taps, width, rate), dtype=torch.float64)
    h: Tensor = torch.special.bessel_j1(2 * pi * cutoff * r) / (pi * r) * window * window[:, None]
    return (h / h.sum()).to(torch.get_default_dtype())


def _places(taps: int, rate: float) -> Tensor:
    """Where the taps lie, in units, around 0: (taps,) float64."""
    places: Tensor = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / rate
    return places


class FilteredLeaky(nn.Module):
    """Leaky ReLU with gain √2 at a higher sampling rate: up, ReLU, down (N, C, h, w) -> (N, C, h', w').

    Parameters
    ----------
    up_taps : (K,), or None where `up` is 1.
    down_taps : (K,), (K, K) of one that is not separable, or None where `down` is 1.
    up, down : factors of resolution.
    padding : of the map at the higher rate, before the first filter.
    clamp : outputs of the ReLU are limited to [−clamp, clamp].
    """

    up_taps: Tensor | None
    down_taps: Tensor | None

    def __init__(
        self,
        up_taps: Tensor | None,
        down_taps: Tensor | None,
        *,
        up: int,
        down: int,
        padding: Padding,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.up, self.down, self.padding, self.clamp = up, down, padding, clamp
        # Not saved: they follow from the arguments.
        self.register_buffer("up_taps", up_taps, persistent=False)
        self.register_buffer("down_taps", down_taps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # The ReLU is homogeneous: its gain goes into the first filter.
        x = _filtered(x, self.up_taps, up=self.up, padding=self.padding, gain=self.up**2 * LEAKY_GAIN)
        x = leaky(x, clamp=self.clamp)
        return x if self.down_taps is None else upfirdn2d(x, self.down_taps, down=self.down)


def _filtered(x: Tensor, taps: Tensor | None, *, up: int, padding: Padding, gain: float) -> Tensor:
    if taps is None:  # one tap: nothing but the padding is left
        taps = torch.ones(1, device=x.device, dtype=x.dtype)
    return upfirdn2d(x, taps, up=up, padding=padding, gain=gain)
