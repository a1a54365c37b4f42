"""Tensors as pictures for people."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ganvas.files.files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = (1, 3, 4)  # grey, RGB, RGBA
_MIN_CELL = 64  # pixels: an 8 × 8 digit is drawn this large, or nobody can read it
_GAPS = (2, 16)  # pixels between cells, at least and at most; between them a sixteenth of a cell
_SCATTER_BINS = 120
_GAP_GREY = 128  # told apart from black and from white images, on black and on white pages


def to_uint8(images: Tensor) -> np.ndarray:
    """(N, C, H, W) in [-1, 1] as (N, H, W, C) uint8; −1 is 0, 1 is 255."""
    scaled = ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def shown_channels(pixels: np.ndarray) -> np.ndarray:
    """(..., C) reduced to channels that a picture can have: more show their first three, two their first."""
    channels = pixels.shape[-1]
    return pixels if channels in _SHOWN else pixels[..., : 3 if channels > 3 else 1]


def picture(pixels: np.ndarray) -> Image.Image:
    """One image from (H, W, C) uint8; more channels than a picture can have show their first three."""
    pixels = shown_channels(pixels)
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)


def sheet(data: Tensor, columns: int | None = None) -> Image.Image:
    """What a person looks at: a grid of images (N, C, H, W), or a scatter plot of points (N, 2)."""
    return scatter(data) if data.dim() == 2 else grid(data, columns)


def scatter(points: Tensor) -> Image.Image:
    """Points (N, 2) of the square [-1.2, 1.2]², dark where they are dense; those outside are not seen."""
    counts, _, _ = np.histogram2d(
        -points[:, 1].numpy(), points[:, 0].numpy(), bins=_SCATTER_BINS, range=[[-1.2, 1.2], [-1.2, 1.2]]
    )
    ink = np.log1p(counts) / max(np.log1p(counts.max()), 1e-9)  # (bins, bins) in [0, 1]
    plot = Image.fromarray((255 * (1 - ink)).astype(np.uint8))
    return plot.resize((4 * _SCATTER_BINS, 4 * _SCATTER_BINS), Image.Resampling.NEAREST)


def grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images side by side, row by row, with a thin gap between them.

    Small ones are enlarged by a whole factor so that they can be read. The gap is a middle grey, which is seen on any
    page beside any image; between images with transparency it is transparent as they are.

    Parameters
    ----------
    images : (N, C, H, W) in [-1, 1].
    columns : images per row; None makes the sheet about square.
    """
    pixels = shown_channels(to_uint8(images))  # (N, H, W, C)
    n, height, width, channels = pixels.shape
    columns = columns or max(1, round((n * height / width) ** 0.5))
    rows = -(-n // columns)
    factor = -(-_MIN_CELL // max(height, width))
    height, width = height * factor, width * factor
    gap = min(max(max(height, width) // 16, _GAPS[0]), _GAPS[1])
    empty = 0 if channels == 4 else _GAP_GREY
    # Each cell carries the gap to its right and below; the outermost gaps are cut off at the end.
    cells = np.full((rows * columns, height + gap, width + gap, channels), empty, dtype=np.uint8)
    cells[:n, :height, :width] = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
    by_row = cells.reshape(rows, columns, height + gap, width + gap, channels)
    sheet = by_row.transpose(0, 2, 1, 3, 4)  # (R, H, K, W, C)
    return picture(sheet.reshape(rows * (height + gap), columns * (width + gap), channels)[:-gap, :-gap])


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def save(image: Image.Image, file: Path) -> None:
    """Write a PNG, whole or not at all."""
    write_bytes(file, png(image))
