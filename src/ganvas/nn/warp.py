"""Moving pixels: reflection, integer shifts, affine warps and per-image filters, differentiable any number of times.

Everything is picked by index (`index_select`, `gather`), which has derivatives of all orders on every device and is
deterministic where torch is asked to be; `grid_sample` has neither on all supported versions. Nothing flows into the
geometry: it is drawn, not learnt.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ganvas.nn.wavelets import SYM6

# ---------------------------------------------------------------------------------------------------- integer moves


def reflected(index: Tensor, size: int) -> Tensor:
    """Any integer index of a line of `size` pixels, mirrored at the centres of its first and last one."""
    if size == 1:
        return torch.zeros_like(index)
    index = index.remainder(2 * size - 2)
    return torch.minimum(index, 2 * size - 2 - index)


def pad_reflect(images: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """(N, C, H, W) -> (N, C, top + H + bottom, left + W + right); padding may be wider than the image."""
    H, W = images.shape[2:]
    rows = reflected(torch.arange(-top, H + bottom, device=images.device), H)
    columns = reflected(torch.arange(-left, W + right, device=images.device), W)
    return images.index_select(2, rows).index_select(3, columns)


def shift(images: Tensor, down: Tensor, right: Tensor, *, reflect: bool) -> Tensor:
    """Move each image by whole pixels; what comes in from outside is mirrored, or 0.

    Parameters
    ----------
    images : (N, C, H, W).
    down, right : (N,) int64, how far the content moves.
    reflect : mirror at the border pixels; otherwise fill with 0.
    """
    N, C, H, W = images.shape
    rows = torch.arange(H, device=images.device) - down[:, None]  # (N, H): where each row comes from
    columns = torch.arange(W, device=images.device) - right[:, None]  # (N, W)
    if not reflect:
        inside = ((rows >= 0) & (rows < H))[:, :, None] & ((columns >= 0) & (columns < W))[:, None, :]
        images = images.gather(2, rows.clamp(0, H - 1)[:, None, :, None].expand(N, C, H, W))
        images = images.gather(3, columns.clamp(0, W - 1)[:, None, None, :].expand(N, C, H, W))
        return images * inside[:, None]
    images = images.gather(2, reflected(rows, H)[:, None, :, None].expand(N, C, H, W))
    return images.gather(3, reflected(columns, W)[:, None, None, :].expand(N, C, H, W))


# ---------------------------------------------------------------------------------------------------- filters


def filter_separable(images: Tensor, taps: Tensor) -> Tensor:
    """Each image under its own symmetric filter along rows and columns, mirrored at the border.

    Parameters
    ----------
    images : (N, C, H, W).
    taps : (N, K), K odd.
    """
    N, K = taps.shape
    padded = pad_reflect(images, *[K // 2] * 4)  # (N, C, H + K - 1, W + K - 1)
    lines = padded.transpose(0, 1)  # (C, N, ...): the images are the groups
    lines = F.conv2d(lines, taps[:, None, None, :], groups=N)
    return F.conv2d(lines, taps[:, None, :, None], groups=N).transpose(0, 1)  # (N, C, H, W)


def _low_pass(images: Tensor) -> Tensor:
    taps = torch.tensor(SYM6, device=images.device, dtype=images.dtype)
    return taps / taps.sum()


def upsample(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W) through the sym6 low-pass filter; 0 beyond the border."""
    N, C, H, W = images.shape
    h = 2 * _low_pass(images)  # the gain makes up for the zeros in between
    lines = images.reshape(N * C, 1, H, W)
    lines = F.conv_transpose2d(lines, h[None, None, None, :], stride=(1, 2), padding=(0, 5))  # (NC, 1, H, 2W)
    lines = F.conv_transpose2d(lines, h[None, None, :, None], stride=(2, 1), padding=(5, 0))
    return lines.reshape(N, C, 2 * H, 2 * W)


def downsample(images: Tensor) -> Tensor:
    """(N, C, 2H + 10, 2W + 10) -> (N, C, H, W) through the time-reversed sym6 low-pass filter."""
    N, C, H, W = images.shape
    h = _low_pass(images)
    lines = images.reshape(N * C, 1, H, W)
    lines = F.conv2d(lines, h[None, None, None, :], stride=(1, 2))
    lines = F.conv2d(lines, h[None, None, :, None], stride=(2, 1))
    return lines.reshape(N, C, *lines.shape[2:])


# ---------------------------------------------------------------------------------------------------- affine maps


def _matrix(*rows: tuple[Tensor | float, Tensor | float, Tensor | float]) -> Tensor:
    """(3, 3) entries, each a number or (N,) -> (N, 3, 3)."""
    like = next(entry for row in rows for entry in row if isinstance(entry, Tensor))
    filled = [entry if isinstance(entry, Tensor) else like.new_full((), entry) for row in rows for entry in row]
    return torch.stack([entry.expand_as(like) for entry in filled], dim=-1).reshape(-1, 3, 3)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """(N,), (N,) -> (N, 3, 3): coordinates times (x, y)."""
    return _matrix((x, 0, 0), (0, y, 0), (0, 0, 1))


def rotation(angle: Tensor) -> Tensor:
    """(N,) radians -> (N, 3, 3): from the x axis (right) towards the y axis (down)."""
    cos, sin = angle.cos(), angle.sin()
    return _matrix((cos, -sin, 0), (sin, cos, 0), (0, 0, 1))


def translation(x: Tensor, y: Tensor) -> Tensor:
    """(N,), (N,) -> (N, 3, 3): coordinates plus (x, y)."""
    return _matrix((1, 0, x), (0, 1, y), (0, 0, 1))


def pixel_grid(inverse: Tensor, height: int, width: int, size: tuple[int, int]) -> Tensor:
    """Where the pixels of a (height, width) output lie in an input of `size`, both measured from their centres.

    Parameters
    ----------
    inverse : (N, 3, 3), output coordinates to input coordinates, in pixels.
    size : (H, W) of the input.

    Returns
    -------
    (N, height, width, 2) of (x, y) indices into the input.
    """
    like: dict[str, Any] = {"device": inverse.device, "dtype": inverse.dtype}
    x = torch.arange(width, **like) - (width - 1) / 2
    y = torch.arange(height, **like) - (height - 1) / 2
    y = y[:, None]
    M = inverse[:, :, :, None, None]  # (N, 3, 3, 1, 1); no matrix product, which may be of low precision on a GPU
    source_x = M[:, 0, 0] * x + M[:, 0, 1] * y + M[:, 0, 2] + (size[1] - 1) / 2  # (N, height, width)
    source_y = M[:, 1, 0] * x + M[:, 1, 1] * y + M[:, 1, 2] + (size[0] - 1) / 2
    return torch.stack((source_x, source_y), dim=-1)


def sample(images: Tensor, grid: Tensor, *, clamp: bool = False) -> Tensor:
    """Bilinear interpolation of (N, C, H, W) at (N, h, w, 2) indices (x, y) -> (N, C, h, w).

    Beyond the border lies 0, or with `clamp` the border itself.
    """
    N, C, H, W = images.shape
    h, w = grid.shape[1:3]
    table = images.permute(0, 2, 3, 1).reshape(N * H * W, C)  # a pixel a row
    first = (torch.arange(N, device=images.device) * (H * W))[:, None, None]
    corner = grid.floor()
    fx, fy = (grid - corner).unbind(-1)  # (N, h, w)
    x0, y0 = corner.long().unbind(-1)
    total = images.new_zeros(N * h * w, C)
    for dy, weight_y in ((0, 1 - fy), (1, fy)):
        for dx, weight_x in ((0, 1 - fx), (1, fx)):
            x, y = x0 + dx, y0 + dy
            weight = weight_x * weight_y
            if not clamp:
                weight = weight * ((x >= 0) & (x < W) & (y >= 0) & (y < H))
            rows = first + y.clamp(0, H - 1) * W + x.clamp(0, W - 1)
            total = total + table.index_select(0, rows.flatten()) * weight.reshape(-1, 1)
    return total.reshape(N, h, w, C).permute(0, 3, 1, 2)


def warp(images: Tensor, inverse: Tensor) -> Tensor:
    """Affine map of images without aliasing: mirrored border, doubled resolution, bilinear there, halved again.

    Karras et al. 2020, appendix B: the orthogonal sym6 low-pass filter on both sides, so that whole-pixel moves give
    the pixels back.

    Parameters
    ----------
    images : (N, C, H, W).
    inverse : (N, 3, 3), output coordinates to input coordinates, in pixels from the centre (x right, y down).
    """
    H, W = images.shape[2:]
    reach = len(SYM6) // 4  # of the filter, in pixels of the original resolution
    cx, cy = (W - 1) / 2, (H - 1) / 2
    # The border that is seen from the moved corners, over the whole batch; mirroring ends after one image width.
    corners = inverse.new_tensor([[-cx, -cy, 1], [cx, -cy, 1], [cx, cy, 1], [-cx, cy, 1]])
    seen = (corners @ inverse[:, :2].transpose(1, 2)).flatten(0, 1)  # (4N, 2)
    x0, y0 = (-seen).amax(0).tolist()
    x1, y1 = seen.amax(0).tolist()

    def margin(reached: float, half: float, size: int) -> int:
        return math.ceil(min(max(reached + 2 * reach - half, 0.0), size - 1.0))

    left, right = margin(x0, cx, W), margin(x1, cx, W)
    top, bottom = margin(y0, cy, H), margin(y1, cy, H)
    fine = upsample(pad_reflect(images, left, right, top, bottom))  # (N, C, 2(top + H + bottom), 2(left + W + right))
    # The centre has moved with uneven padding; then pixels of half the size, whose filter is half a pixel off centre.
    n = inverse.new_ones(len(images))
    inverse = translation(n * (left - right) / 2, n * (top - bottom) / 2) @ inverse
    inverse = scaling(2 * n, 2 * n) @ inverse @ scaling(n / 2, n / 2)
    inverse = translation(-n / 2, -n / 2) @ inverse @ translation(n / 2, n / 2)
    h, w = 2 * (H + 2 * reach), 2 * (W + 2 * reach)
    moved = sample(fine, pixel_grid(inverse, h, w, (fine.shape[2], fine.shape[3])))
    return downsample(moved[:, :, 1:-1, 1:-1])  # (N, C, H, W)
