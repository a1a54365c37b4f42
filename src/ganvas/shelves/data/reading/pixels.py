"""One image from bytes to uint8: decoding, channels, size.

Between the steps an image is an array (H, W, C): uint8, or float32 in 0..255 where the file has more than eight bits
and rounding waits until after the resize.
"""

from __future__ import annotations

import io
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Imported for their registration: `Image.open(formats=...)` looks only among the readers that are loaded.
from PIL import (
    BmpImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

__all__ = ["Corrupt", "Decoded", "decode", "decoded", "quantise", "recolour", "refit"]

FORMATS = tuple(
    plugin.format
    for plugin in (
        PngImagePlugin.PngImageFile,
        JpegImagePlugin.JpegImageFile,
        WebPImagePlugin.WebPImageFile,
        BmpImagePlugin.BmpImageFile,
        TiffImagePlugin.TiffImageFile,
    )
)

MAX_PIXELS = 89_478_485
"""Images with more pixels are refused: Pillow's own limit for a decompression bomb (a quarter of a GiB of RGB)."""

ORIENTATION = 0x0112  # the EXIF tag

# The filter of every resize. Pillow widens its support by the scale, so downsampling is antialiased; it is the one
# with which StyleGAN's dataset tool prepared the data sets that papers report on.
FILTER = Image.Resampling.LANCZOS

_OPAQUE_COLOUR = {"RGB", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"}

_WITH_FRAMES = (PngImagePlugin.PngImageFile, TiffImagePlugin.TiffImageFile, WebPImagePlugin.WebPImageFile)

Picture = NDArray[Any]


class Corrupt(Exception):
    """Bytes that are not a usable image; the text is the reason. Whoever knows the file's name makes it a DataError."""


class Decoded(NamedTuple):
    """A picture, and what its file says of it."""

    picture: Picture
    mode: str = ""  # Pillow's name of the colour mode; empty where there is no file
    frames: int = 1  # pages or frames in the file, of which the picture is the first


def decode(data: bytes) -> Picture:
    """The picture alone; see `decoded`."""
    return decoded(data).picture


def decoded(data: bytes) -> Decoded:
    """The image in a PNG, JPEG, WebP, BMP or TIFF file, upright: the first of its pages or frames.

    Returns
    -------
    its picture (H, W, C): uint8 with C in {1, 3, 4}, or float32 in 0..255 with C = 1 for 16-bit and float grey.

    Notes
    -----
    Pillow has no mode for more than eight bits of colour: of 16-bit RGB it keeps the high byte (65535 -> 255).

    Raises
    ------
    Corrupt
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Corrupt(f"{image.width}x{image.height} pixels are more than the limit of {MAX_PIXELS}")
            upright = ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
            many = image.n_frames if isinstance(image, _WITH_FRAMES) else 1
            return Decoded(_as_array(upright), image.mode, many)
    except Corrupt:
        raise
    except Image.DecompressionBombError:
        raise Corrupt(f"it has more pixels than the limit of {MAX_PIXELS}") from None
    except UnidentifiedImageError:
        raise Corrupt("it is empty" if not data else "it is not a PNG, JPEG, WebP, BMP or TIFF image") from None
    except Exception as error:  # broken bytes make Pillow's readers raise anything: OSError, SyntaxError, struct.error
        raise Corrupt(str(error) or type(error).__name__) from None


def _as_array(image: Image.Image) -> Picture:
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _deep_grey(image)
    if mode == "1":
        image = image.convert("L")
    elif mode in ("LA", "La", "PA", "RGBa") or (mode != "RGBA" and "transparency" in image.info):
        image = image.convert("RGBA")
    elif mode == "P":
        image = image.convert("RGB")
        # A grey palette is a grey image; written by tools that save grey scans with 256 entries.
        pixels = np.array(image)
        if (pixels == pixels[..., :1]).all():
            return pixels[..., :1]
        return pixels
    elif mode in _OPAQUE_COLOUR and mode != "RGB":
        image = image.convert("RGB")
    elif mode not in ("L", "RGB", "RGBA"):
        raise Corrupt(f"its colour mode {mode!r} is not supported")
    pixels = np.array(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _deep_grey(image: Image.Image) -> NDArray[np.float32]:
    """Grey with more than eight bits, scaled to 0..255."""
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise Corrupt("it holds values that are not numbers")
    low, high = float(values.min()), float(values.max())
    full = 1.0 if image.mode == "F" else 65535.0
    if low < 0 or high > full:
        raise Corrupt(f"its values run from {low:g} to {high:g}; {image.mode!r} images must lie in 0..{full:g}")
    return (values * np.float32(255.0 / full))[..., None]


def recolour(image: Picture, channels: int) -> Picture:
    """Grey, RGB and RGBA (..., C) into each other; the same array where nothing changes.

    RGBA loses its alpha on white paper; grey is Rec. 601 luma; alpha that is added is opaque.
    """
    present = image.shape[-1]
    if present == channels:
        return image
    if present == 4:
        alpha = image[..., 3:].astype(np.float32) / 255
        image = _like(image[..., :3] * alpha + 255 * (1 - alpha), image)
        present = 3
    if present == 3 and channels == 1:
        return _like(image.astype(np.float32) @ np.array([[0.299], [0.587], [0.114]], np.float32), image)
    if present == 1 and channels > 1:
        image = np.repeat(image, 3, axis=-1)
    if channels == 4:
        image = np.concatenate([image, np.full((*image.shape[:-1], 1), 255, image.dtype)], axis=-1)
    return image


def _like(values: NDArray[np.floating[Any]], original: Picture) -> Picture:
    return quantise(values) if original.dtype == np.uint8 else values.astype(np.float32, copy=False)


def quantise(image: Picture) -> NDArray[np.uint8]:
    """Values 0..255 rounded to bytes."""
    return image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255).astype(np.uint8)


def refit(image: Picture, size: tuple[int, int], fit: Literal["crop", "pad", "stretch"]) -> Picture:
    """An image (H, W, C) at another (height, width); see `ImageOptions.fit`. Float stays float."""
    height, width = image.shape[:2]
    target_height, target_width = size
    if (height, width) == size:
        return image
    if fit == "stretch":
        return _resize(image, size, (0, 0, width, height))
    if fit == "crop":
        scale = min(height / target_height, width / target_width)
        box_height, box_width = target_height * scale, target_width * scale
        left, top = (width - box_width) / 2, (height - box_height) / 2
        return _resize(image, size, (left, top, left + box_width, top + box_height))
    scale = max(height / target_height, width / target_width)
    inner = (max(1, round(height / scale)), max(1, round(width / scale)))
    small = _resize(image, inner, (0, 0, width, height))
    above, before = (target_height - inner[0]) // 2, (target_width - inner[1]) // 2
    margins = ((above, target_height - inner[0] - above), (before, target_width - inner[1] - before), (0, 0))
    return np.pad(small, margins, mode="edge")


def _resize(image: Picture, size: tuple[int, int], box: tuple[float, float, float, float]) -> Picture:
    """The part of the image in `box` (left, top, right, bottom) at `size`, antialiased."""
    extent = (size[1], size[0])
    if image.dtype == np.uint8 and image.shape[2] in (3, 4):
        # RGBA is weighted by its alpha inside Pillow, so that hidden colours do not bleed into edges.
        return np.array(Image.fromarray(np.ascontiguousarray(image)).resize(extent, FILTER, box))
    planes = [np.ascontiguousarray(image[..., channel]) for channel in range(image.shape[2])]
    return np.stack([np.array(Image.fromarray(plane).resize(extent, FILTER, box)) for plane in planes], axis=-1)
