"""Wavelet low-pass filters, and the filter bank that is made of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Daubechies 1992: least asymmetric orthonormal wavelets with 2 and 6 vanishing moments. Σ h = √2.
SYM2 = tuple((a + b * math.sqrt(3)) / (4 * math.sqrt(2)) for a, b in ((1, -1), (3, -1), (3, 1), (1, 1)))
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip


def _product(f: Tensor, g: Tensor) -> Tensor:
    """The coefficients of F(z) G(z)."""
    return torch.nn.functional.conv1d(f[None, None], g.flip(0)[None, None], padding=len(g) - 1)[0, 0]


def band_filters(bands: int = 4) -> Tensor:
    """Symmetric filters that split the spectrum into octaves and add up to a single 1.

    Karras et al. 2020, appendix B: with H the sym2 low-pass filter, L(z) = H(z) H(z⁻¹) / 2 and
    U(z) = H(−z) H(−z⁻¹) / 2, so that L + U = 1, the bands are

        b₁ = L(z) L(z²) … , bᵢ = U(z^(2^(bands − i))) L(z^(2^(bands − i − 1))) … L(z), …, b_bands = U(z).

    Returns
    -------
    (bands, K) float64, lowest frequencies first, K = 7, 19, 43, … for 2, 3, 4, … bands.
    """
    h = torch.tensor(SYM2, dtype=torch.float64)
    minus = h * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)  # H(-z)
    low, high = _product(h, h.flip(0)) / 2, _product(minus, minus.flip(0)) / 2  # 7 taps
    filters = [torch.ones(1, dtype=torch.float64)]
    for _ in range(bands - 1):
        wider = []
        for taps in filters:  # z -> z²: a zero between any two taps
            spread = taps.new_zeros(2 * len(taps) - 1)
            spread[::2] = taps
            wider.append(_product(spread, low))
        filters = [*wider, high]
    longest = len(filters[0])
    centred = [torch.nn.functional.pad(taps, [(longest - len(taps)) // 2] * 2) for taps in filters]
    return torch.stack(centred)
