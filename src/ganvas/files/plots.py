"""Small plots as pictures: lines of series, histograms of columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_INKS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 190, 207))
_WHITE, _FRAME, _TEXT = (255, 255, 255), (200, 200, 200), (60, 60, 60)
_PANEL = (192, 96)  # pixels of a plot
_GAP = 8
_LINE = 12  # pixels of a line of text
_BARS = 24


def sheet(panels: Sequence[Image.Image], columns: int | None, n: int) -> Image.Image:
    """Panels of one size side by side, row by row; `columns` in a row, about a square where it is None."""
    columns = min(columns or max(1, round(n**0.5)), max(n, 1))
    width, height = panels[0].size if panels else _PANEL
    rows = -(-len(panels) // columns)
    canvas = Image.new("RGB", (columns * (width + _GAP) + _GAP, max(rows, 1) * (height + _GAP) + _GAP), _WHITE)
    for i, panel in enumerate(panels):
        canvas.paste(panel, (_GAP + (i % columns) * (width + _GAP), _GAP + (i // columns) * (height + _GAP)))
    return canvas


def lines(series: NDArray[np.float32]) -> Image.Image:
    """One panel with the lines of (columns, steps), each in its own ink; [-1, 1] is its height."""
    panel = Image.new("RGB", _PANEL, _WHITE)
    pen = ImageDraw.Draw(panel)
    width, height = _PANEL
    pen.rectangle([0, 0, width - 1, height - 1], outline=_FRAME)
    pen.line([(0, height // 2), (width, height // 2)], fill=_FRAME)
    x = np.linspace(0, width - 1, series.shape[1])
    for row, ink in zip(series, _repeated(len(series)), strict=True):
        y = (1 - np.clip(row, -1, 1)) / 2 * (height - 1)
        points = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
        pen.line(points if len(points) > 1 else [*points, *points], fill=ink)
    return panel


def legend(names: Sequence[str], width: int) -> Image.Image:
    """The names of lines in their inks, below each other."""
    picture = Image.new("RGB", (width, _LINE * len(names) + _GAP), _WHITE)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default_imagefont()
    for i, (name, ink) in enumerate(zip(names, _repeated(len(names)), strict=True)):
        pen.text((_GAP, i * _LINE), drawable(name), fill=ink, font=font)
    return picture


def histogram(title: str, shares: Sequence[float], ends: tuple[str, str]) -> Image.Image:
    """One panel with a bar for each share, the highest one as high as the panel, and what its two ends mean."""
    width, height = _PANEL
    panel = Image.new("RGB", (width, height + 2 * _LINE), _WHITE)
    pen, font = ImageDraw.Draw(panel), ImageFont.load_default_imagefont()
    pen.text((2, 0), drawable(title), fill=_TEXT, font=font)
    highest = max([*shares, 1e-12])
    for i, share in enumerate(shares):
        left, right = i * width / len(shares), (i + 1) * width / len(shares) - 1
        top = _LINE + (1 - share / highest) * (height - 1)
        pen.rectangle([left, top, max(left, right), _LINE + height - 1], fill=_INKS[0])
    pen.line([(0, _LINE + height - 1), (width, _LINE + height - 1)], fill=_FRAME)
    left_end, right_end = map(drawable, ends)
    pen.text((2, _LINE + height), left_end, fill=_TEXT, font=font)
    pen.text((width - 2 - 6 * len(right_end), _LINE + height), right_end, fill=_TEXT, font=font)
    return panel


def shares_of(values: NDArray[np.float64], low: float, high: float) -> list[float]:
    """How much of some values lies in each of the equal bins of [low, high]; those outside count at the ends."""
    counts, _ = np.histogram(np.clip(values, low, high), bins=_BARS, range=(low, high))
    return [float(count) / max(1, len(values)) for count in counts]


def drawable(text: str) -> str:
    """A text in the characters that Pillow's own font has, those of Latin-1; `?` for others."""
    return text.encode("latin-1", "replace").decode("latin-1")


def _repeated(n: int) -> list[tuple[int, int, int]]:
    return [_INKS[i % len(_INKS)] for i in range(n)]
