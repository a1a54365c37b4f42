"""Tensors as pictures for people."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ganvas.files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = (1, 3, 4)  # grey, RGB, RGBA
_MIN_CELL = 48  # pixels: an 8 × 8 digit is drawn this large, or nobody can read it


def to_uint8(images: Tensor) -> np.ndarray:
    """(N, C, H, W) in [-1, 1] as (N, H, W, C) uint8; −1 is 0, 1 is 255."""
    scaled = ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def picture(pixels: np.ndarray) -> Image.Image:
    """One image from (H, W, C) uint8; more channels than a picture can have show their first three."""
    channels = pixels.shape[2]
    if channels not in _SHOWN:
        pixels = pixels[:, :, : 3 if channels > 3 else 1]
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)


def grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images side by side, row by row; small ones are enlarged by a whole factor so that they can be read."""
    pixels = to_uint8(images)  # (N, H, W, C)
    n, height, width, channels = pixels.shape
    columns = columns or max(1, round((n * height / width) ** 0.5))
    rows = -(-n // columns)
    sheet = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    sheet[:n] = pixels
    sheet = sheet.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)  # (R, H, K, W, C)
    result = picture(sheet.reshape(rows * height, columns * width, channels))
    factor = max(1, -(-_MIN_CELL // max(height, width)))
    return result.resize((result.width * factor, result.height * factor), Image.Resampling.NEAREST)


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def save(image: Image.Image, file: Path) -> None:
    """Write a PNG, whole or not at all."""
    write_bytes(file, png(image))
