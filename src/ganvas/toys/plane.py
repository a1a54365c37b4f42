"""Geometry of the toy mixtures in the plane: where their modes are, and how many of them samples have found."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ganvas.errors import BadValue

RADIUS = 0.8  # of the ring, and half the side of the grid


def centres(modes: int, layout: Literal["ring", "grid"]) -> np.ndarray:
    """(modes, 2) float64 in [-1, 1]².

    Raises
    ------
    BadValue : a grid of a number that is no square.
    """
    if layout == "ring":
        angle = 2 * np.pi * np.arange(modes) / modes
        return RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    side = round(modes**0.5)
    if side * side != modes:
        raise BadValue(f"{modes} modes make no square grid", key="modes", hint="data.modes=25")
    line = np.linspace(-RADIUS, RADIUS, side) if side > 1 else np.zeros(1)
    across, down = np.meshgrid(line, line)
    return np.stack([across.ravel(), down.ravel()], axis=1)


def modes_found(points: np.ndarray, where: np.ndarray, std: float, *, share: float = 0.2) -> tuple[int, float]:
    """(modes covered, share of high-quality points) of (N, 2) points.

    A point is of high quality within three standard deviations of a mode (Srivastava et al. 2017). A mode is covered
    where it has at least `share` of the points that it would have if all modes were met equally.
    """
    distance = np.linalg.norm(points[:, None] - where[None], axis=2)  # (N, modes)
    nearest = distance.argmin(1)
    good = distance.min(1) <= 3 * std
    counts = np.bincount(nearest[good], minlength=len(where))
    return int((counts >= share * len(points) / len(where)).sum()), float(good.mean())
