"""Pictures inside a page, small enough that the page can be mailed."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image


@dataclass(frozen=True)
class Embedded:
    """A picture as a data URI, and the size in pixels that it has there."""

    uri: str
    width: int
    height: int


def embed(file: Path, *, width: int, most_bytes: int) -> Embedded | None:
    """A picture file of at most this width and weight; None where it cannot be read.

    A file that is light and narrow enough goes in as it is. A wider one is scaled down, and stays lossless where it
    can; photographs that are still too heavy become WebP.
    """
    try:
        content = file.read_bytes()
        image: Image.Image = Image.open(io.BytesIO(content))
        image.load()
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    if image.width <= width and len(content) <= most_bytes:
        return _embedded(content, "png", image)
    image = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGBA")
    while True:
        small = _fitted(image, width)
        for kind in ("png", "webp"):
            content = _encoded(small, kind)
            if len(content) <= most_bytes or small.width <= 64:
                return _embedded(content, kind, small)
        width = small.width * 3 // 4


def _fitted(image: Image.Image, width: int) -> Image.Image:
    if image.width <= width:
        return image
    return image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": 90} if kind == "webp" else {"optimize": True}
    image.save(buffer, kind.upper(), **options)
    return buffer.getvalue()


def _embedded(content: bytes, kind: str, image: Image.Image) -> Embedded:
    return Embedded(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", image.width, image.height)
