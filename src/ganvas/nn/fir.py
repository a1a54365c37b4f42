"""Resampling by finite impulse response filters: zero insertion, filter, decimation in one strided pass.

`upfirdn2d` has the semantics that StyleGAN's code bases share. Zeros that would be inserted are never multiplied: going
up is a transposed depthwise convolution, going down a strided one, so every output costs only its own phase of the
filter. Both have derivatives of all orders, which gradient penalties need.

A short filter runs in one two-dimensional pass, a long one in a pass along rows and one along columns. Measured on one
CPU thread, forward and backward, 16 x 256 maps of 16 x 16 pixels: 4 taps 3.1 ms in one pass and 3.9 ms in two, 8 taps
3.9 and 4.1, 12 taps 6.7 and 4.4. Matrix products with the filter's band, shifted sums and pixel shuffling were slower
at 32 pixels and above.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

LONGEST_IN_ONE_PASS = 8  # taps

Padding = tuple[int, int, int, int]  # left, right, top, bottom; a negative one crops


def filter_taps(taps: Sequence[float]) -> Tensor:
    """Taps scaled to a sum of 1, (K,) float32: a filter that keeps a constant image."""
    h = torch.tensor(taps, dtype=torch.float64)
    return (h / h.sum()).to(torch.get_default_dtype())


def upfirdn2d(
    x: Tensor, taps: Tensor, *, up: int = 1, down: int = 1, padding: Padding = (0, 0, 0, 0), gain: float = 1.0
) -> Tensor:
    """Insert zeros, pad with zeros, convolve, keep every `down`-th pixel.

    (N, C, H, W) -> (N, C, H', W') with H' = ceil((H · up + top + bottom − K + 1) / down), W' alike.

    Parameters
    ----------
    x : feature maps or images.
    taps : (K,) of a separable filter, or (K, K). It is convolved with: it need not be symmetric.
    up : each pixel is followed by up − 1 zeros in either direction.
    padding : after zero insertion.
    gain : of the whole; up² keeps the brightness of a filter that sums to 1.
    """
    taps = taps.to(x.device) * (gain if taps.dim() == 2 else gain**0.5)
    left, right, top, bottom = padding
    if taps.dim() == 1 and len(taps) > LONGEST_IN_ONE_PASS:
        x = _pass(x, taps[None, :], (1, up), (1, down), (left, right, 0, 0))
        return _pass(x, taps[:, None], (up, 1), (down, 1), (0, 0, top, bottom))
    square = taps if taps.dim() == 2 else taps[:, None] * taps
    return _pass(x, square, (up, up), (down, down), padding)


def _pass(x: Tensor, taps: Tensor, up: tuple[int, int], down: tuple[int, int], padding: Padding) -> Tensor:
    """`upfirdn2d` with taps (Kh, Kw) and other factors along columns and rows, (vertical, horizontal)."""
    C = x.shape[1]
    Kh, Kw = taps.shape
    left, right, top, bottom = padding
    if up == (1, 1):
        kernel = taps.flip((0, 1)).expand(C, 1, Kh, Kw)
        if left == right >= 0 and top == bottom >= 0:
            return F.conv2d(x, kernel, padding=(top, left), stride=down, groups=C)
        return F.conv2d(F.pad(x, padding), kernel, stride=down, groups=C)
    # The transposed convolution gives what zero insertion, padding by K − 1 in front and by K − up behind, and the
    # filter give; what is left to do is to crop to the padding that was asked for.
    crop = (Kw - 1 - left, Kw - up[1] - right, Kh - 1 - top, Kh - up[0] - bottom)
    across, along = max(0, min(crop[:2])), max(0, min(crop[2:]))
    out = F.conv_transpose2d(x, taps.expand(C, 1, Kh, Kw), stride=up, padding=(along, across), groups=C)
    remaining = (across - crop[0], across - crop[1], along - crop[2], along - crop[3])
    if any(remaining):
        out = F.pad(out, remaining)
    return out if down == (1, 1) else out[:, :, :: down[0], :: down[1]]


def filter2d(x: Tensor, taps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H, W) smoothed by taps (K,)."""
    K = taps.shape[-1]
    before, behind = K // 2, (K - 1) // 2
    return upfirdn2d(x, taps, padding=(before, behind, before, behind))


def upsample2d(x: Tensor, taps: Tensor, factor: int = 2) -> Tensor:
    """(N, C, H, W) -> (N, C, factor · H, factor · W) through taps (K,); brightness is kept."""
    K = taps.shape[-1]
    before, behind = (K + factor - 1) // 2, (K - factor) // 2
    return upfirdn2d(x, taps, up=factor, padding=(before, behind, before, behind), gain=factor**2)


def downsample2d(x: Tensor, taps: Tensor, factor: int = 2) -> Tensor:
    """(N, C, factor · H, factor · W) -> (N, C, H, W) through taps (K,)."""
    K = taps.shape[-1]
    before, behind = (K - factor + 1) // 2, (K - factor) // 2
    return upfirdn2d(x, taps, down=factor, padding=(before, behind, before, behind))


def conv2d_resample(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    taps: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolution and resampling in the cheaper order: pixels that are dropped or inserted are not convolved.

    (N, I, H, W) -> (N, O, up · H / down, up · W / down). Going up, a true convolution (the flipped correlation) runs
    transposed and is smoothed after, as in StyleGAN2; going down, the map is smoothed and the convolution is strided.
    Convolutions of one pixel commute with the filter and run on the smaller map.

    Parameters
    ----------
    weight : (O, I / groups, k, k), k odd.
    bias : (O,), added at the end.
    taps : (K,) of the resampling filter; needed where up or down is above 1, of which one is 1.
    padding : of the convolution by itself; None keeps the size.
    """
    k = weight.shape[-1]
    padding = k // 2 if padding is None else padding
    if up == down == 1:
        return F.conv2d(x, weight, bias, padding=padding, groups=groups)
    assert taps is not None
    assert up == 1 or down == 1
    K = taps.shape[-1]
    if down > 1:
        before, behind = padding + (K - down + 1) // 2, padding + (K - down) // 2
        edges = (before, behind, before, behind)
        if k == 1:
            return F.conv2d(upfirdn2d(x, taps, down=down, padding=edges), weight, bias, groups=groups)
        return F.conv2d(upfirdn2d(x, taps, padding=edges), weight, bias, stride=down, groups=groups)
    before, behind = padding + (K + up - 1) // 2, padding + (K - up) // 2
    if k == 1:
        x = upfirdn2d(
            F.conv2d(x, weight, groups=groups), taps, up=up, padding=(before, behind, before, behind), gain=up**2
        )
    else:
        before, behind = before - (k - 1), behind - (k - up)  # what the transposed convolution brings already
        crop = max(min(-before, -behind), 0)
        x = F.conv_transpose2d(x, _transposed(weight, groups), stride=up, padding=crop, groups=groups)
        before, behind = before + crop, behind + crop
        x = upfirdn2d(x, taps, padding=(before, behind, before, behind), gain=up**2)
    return x if bias is None else x + bias[:, None, None]


def _transposed(weight: Tensor, groups: int) -> Tensor:
    """(O, I / groups, k, k) -> (I, O / groups, k, k), as transposed convolutions want it."""
    out, per_group, kh, kw = weight.shape
    parted = weight.view(groups, out // groups, per_group, kh, kw).transpose(1, 2)  # (groups, I / groups, ...)
    return parted.reshape(groups * per_group, out // groups, kh, kw)
