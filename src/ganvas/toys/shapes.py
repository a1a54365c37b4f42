"""Pictures whose truth is known: one shape on a dark ground, and the way back from a picture to its factors.

`draw` renders factors, `recover` finds the factors of any images and says which of them are valid pictures at all, and
`cell` numbers the cells of a grid over the factors. So precision and recall of a generator are exact here: precision is
the share of its samples that are valid, recall the share of the cells that real data occupy and valid samples hit.

Factors are a dictionary of arrays (N,): `kind` and `colour` (indices into `KINDS` and `COLOURS`), `x`, `y` (the centre)
and `size` (the radius), the last three as fractions of the image's side; y points down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganvas.errors import UsageError

Factors = dict[str, NDArray[Any]]
Plane = NDArray[np.float32]

KINDS = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "yellow", "green", "cyan", "blue", "magenta")
PALETTE = np.array(
    [(230, 50, 50), (235, 215, 50), (60, 195, 70), (50, 205, 215), (70, 90, 235), (220, 70, 215)], dtype=np.float32
)
GROUND = np.float32(16)  # of every channel

CENTRE = (0.31, 0.69)  # of x and y: with the largest size, even a triangle's tip stays inside
SIZE = (0.14, 0.24)
PLACE_BINS, SIZE_BINS = 3, 2
num_cells = len(KINDS) * len(COLOURS) * PLACE_BINS**2 * SIZE_BINS
"""432: with 5,000 drawn images a cell holds twelve on average."""

MIN_SIDE = 16  # pixels: below, the smallest shapes cannot be told apart

MAX_RESIDUAL = 0.15
"""Squared error of the best re-rendering over the squared contrast of the image. Clean renders stay below 0.001, with
noise of 10 grey levels nearly all below 0.15; half shapes lie above 0.27 (measured in tests/data/test_shapes.py)."""

CLEARLY, MAX_WRONG = 0.4, 0.1
"""Pixels more than 0.4 of the contrast away from the re-rendering may cover at most a tenth of the shape's area."""

MAX_COLOUR_ERROR = 0.2  # distance to the palette over the colour's contrast; half way to a neighbour is 0.29 or more
SLACK = 0.02  # how far factors may lie outside of their range, as a fraction of the side: half a pixel of 32

_CHUNK_PIXELS = 512 * 32 * 32  # of the images that are worked on at once: keeps a plane at 2 MB, near the core


def random_factors(count: int, seed: int) -> Factors:
    """Independent uniform factors; the same for the same seed on every machine."""
    random = np.random.RandomState(seed)  # its streams are frozen, unlike those of default_rng
    return {
        "kind": random.randint(len(KINDS), size=count).astype(np.int64),
        "colour": random.randint(len(COLOURS), size=count).astype(np.int64),
        "x": random.uniform(*CENTRE, size=count),
        "y": random.uniform(*CENTRE, size=count),
        "size": random.uniform(*SIZE, size=count),
    }


def draw(factors: Mapping[str, NDArray[Any]], side: int) -> NDArray[np.uint8]:
    """Pictures (N, 3, side, side) uint8 of the given factors, with antialiased edges."""
    count = len(factors["kind"])
    pictures = np.empty((count, 3, side, side), dtype=np.uint8)
    rows = max(1, _CHUNK_PIXELS // side**2)
    for start in range(0, count, rows):
        piece = {key: np.asarray(values[start : start + rows]) for key, values in factors.items()}
        place = np.stack([piece["x"], piece["y"], piece["size"]], axis=1)
        cover = np.empty((len(piece["kind"]), side, side), dtype=np.float32)
        for kind in range(len(KINDS)):
            at = piece["kind"] == kind
            cover[at] = _cover(kind, place[at], side)
        contrast = PALETTE[piece["colour"]] - GROUND
        image = GROUND + cover[:, None] * contrast[:, :, None, None]
        pictures[start : start + rows] = np.rint(image).astype(np.uint8)
    return pictures


def cell(factors: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """The cell of the factor grid (N,) in 0..num_cells-1; factors just outside of their range count to its edge."""

    def bins(values: NDArray[Any], span: tuple[float, float], count: int) -> NDArray[np.int64]:
        place = (np.asarray(values, dtype=np.float64) - span[0]) / (span[1] - span[0])
        return np.floor(place * count).clip(0, count - 1).astype(np.int64)

    number = np.asarray(factors["kind"], dtype=np.int64)
    number = number * len(COLOURS) + np.asarray(factors["colour"], dtype=np.int64)
    number = number * PLACE_BINS + bins(factors["y"], CENTRE, PLACE_BINS)
    number = number * PLACE_BINS + bins(factors["x"], CENTRE, PLACE_BINS)
    return number * SIZE_BINS + bins(factors["size"], SIZE, SIZE_BINS)


def recover(images: ArrayLike) -> tuple[Factors, NDArray[np.bool_]]:
    """The factors of images, and which images are valid: one whole shape of a known kind, colour, place and size.

    Parameters
    ----------
    images : (N, 3, S, S): uint8, or floats in [-1, 1]; a tensor on the CPU is welcome.

    Returns
    -------
    factors : the best ones, meaningless where the image is not valid.
    valid : (N,) bool.

    Raises
    ------
    UsageError : the images are not square RGB of at least 16 pixels.
    """
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[1] != 3 or array.shape[2] != array.shape[3] or array.shape[2] < MIN_SIDE:
        raise UsageError(
            f"images of shape {array.shape} are no shapes pictures",
            hint=f"they are (N, 3, S, S) with S of {MIN_SIDE} or more",
        )
    rows = max(1, _CHUNK_PIXELS // array.shape[2] ** 2)
    pieces = [_recover(array[start : start + rows]) for start in range(0, len(array), rows)]
    if not pieces:
        return random_factors(0, 0), np.zeros(0, dtype=bool)
    return {key: np.concatenate([piece[key] for piece, _ in pieces]) for key in pieces[0][0]}, np.concatenate(
        [valid for _, valid in pieces]
    )


# ------------------------------------------------------------------------------------------------ rendering

# Radii of the outlines over `size`, so that all kinds look equally large.
_SQUARE, _TRIANGLE, _BAR = 0.88, 0.6, 0.36


def _distance(kind: int, dx: Plane, dy: Plane, radius: Plane) -> Plane:
    """Signed distance to the outline, negative inside; exact along edges, which is where antialiasing looks."""
    across, along = np.abs(dx), np.abs(dy)
    bar = _BAR * radius
    distance: Plane
    if kind == 0:
        distance = np.sqrt(dx * dx + dy * dy) - radius
    elif kind == 1:
        distance = np.maximum(across, along) - _SQUARE * radius
    elif kind == 2:  # equilateral, tip up; three half-planes at the same distance from the centre
        distance = np.maximum(np.float32(np.sqrt(0.75)) * across - 0.5 * dy, dy) - _TRIANGLE * radius
    else:
        distance = np.minimum(np.maximum(across - radius, along - bar), np.maximum(across - bar, along - radius))
    return distance


def _cover(kind: int, place: ArrayLike, side: int) -> Plane:
    """How much of each pixel (N, side, side) the shape at `place` (N, 3: x, y, size) covers, 0..1."""
    middle = np.arange(side, dtype=np.float32) + np.float32(0.5)
    x, y, radius = np.moveaxis(np.asarray(place, dtype=np.float32) * np.float32(side), 1, 0)[:, :, None, None]
    cover: Plane = np.float32(0.5) - _distance(kind, middle[None, None, :] - x, middle[None, :, None] - y, radius)
    return cover.clip(0, 1)


def _unit_area(kind: int) -> float:
    """Area over the squared radius."""
    if kind == 0:
        return float(np.pi)
    if kind == 1:
        return (2 * _SQUARE) ** 2
    if kind == 2:
        return 3 * float(np.sqrt(3)) * _TRIANGLE**2
    return 8 * _BAR - 4 * _BAR**2


# ------------------------------------------------------------------------------------------------ the way back


def _recover(images: NDArray[Any]) -> tuple[Factors, NDArray[np.bool_]]:
    values = images.astype(np.float32)
    if images.dtype != np.uint8:
        values = (values + 1) * 127.5
    finite = np.asarray(np.isfinite(values).all(axis=(1, 2, 3)))
    values = np.where(finite[:, None, None, None], values, GROUND) - GROUND  # (N, 3, S, S): contrast to the ground
    values = values.clip(-255, 510)  # far off is far off; squares of wild outputs would overflow
    colour, colour_error = _nearest_colour(values)
    contrast = (PALETTE - GROUND)[colour]  # (N, 3)
    # Along the palette colour the image is a picture of the cover alone; what lies across is left to the residual.
    cover = np.einsum("nchw,nc->nhw", values, contrast) / np.square(contrast).sum(1)[:, None, None]
    total, across = np.square(values).sum((1, 2, 3)), np.square(contrast).sum(1)
    across_energy = np.maximum(total - np.square(cover).sum((1, 2)) * across, 0)
    kind, place = _fit(cover)
    side = images.shape[-1]
    rendered = _by_kind(kind, lambda k, at: _cover(k, place[at], side), cover.shape)
    residual = (np.square(cover - rendered).sum((1, 2)) * across + across_energy) / np.maximum(total, 1e-6)
    # Pixels that clearly differ, whatever their colour, over the shape's area: sees what energy forgives, such as a
    # second small shape or a rotated square, and forgives what energy sees, such as a noisy ground.
    strength = np.sqrt(np.square(values).sum(1) / across[:, None, None])
    wrong = (np.abs(strength - rendered) > CLEARLY).sum((1, 2)) / np.maximum(rendered.sum((1, 2)), 1)
    low = np.array([CENTRE[0], CENTRE[0], SIZE[0]]) - SLACK
    high = np.array([CENTRE[1], CENTRE[1], SIZE[1]]) + SLACK
    inside = ((place >= low) & (place <= high)).all(1)
    valid = finite & inside & (residual < MAX_RESIDUAL) & (wrong < MAX_WRONG) & (colour_error < MAX_COLOUR_ERROR)
    x, y, size = place.astype(np.float64).T
    return {"kind": kind, "colour": colour, "x": x, "y": y, "size": size}, valid


def _nearest_colour(values: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The palette colour of the brightest pixels, and how far off they are, relative to its contrast."""
    strength = np.square(values).sum(1)  # (N, S, S)
    # The weight falls steeply, so edges and a noisy ground hardly count.
    weight = np.where(strength > 0.4 * np.quantile(strength, 0.97, axis=(1, 2), keepdims=True), strength, 0)
    mean = np.einsum("nchw,nhw->nc", values, weight) / np.maximum(weight.sum((1, 2)), 1e-6)[:, None]
    contrast = PALETTE - GROUND
    distance = np.linalg.norm(mean[:, None] - contrast, axis=2) / np.linalg.norm(contrast, axis=1)
    nearest = distance.argmin(1)
    return nearest.astype(np.int64), distance[np.arange(len(values)), nearest]


def _fit(cover: Plane) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Kind (N,) and (x, y, size) (N, 3) of the best rendering: moments first, then Gauss–Newton."""
    side = cover.shape[-1]
    inked = np.where(cover > 0.3, np.minimum(cover, 1), 0)
    area = inked.sum((1, 2))
    middle = (np.arange(side, dtype=np.float32) + 0.5) / side
    x = (inked.sum(1) @ middle) / np.maximum(area, 1e-6)
    y = (inked.sum(2) @ middle) / np.maximum(area, 1e-6)
    starts = [
        np.stack([x, y, np.sqrt(area / _unit_area(kind)) / side], axis=1).astype(np.float32)
        for kind in range(len(KINDS))
    ]
    errors = [np.square(cover - _cover(kind, starts[kind], side)).sum((1, 2)) for kind in range(len(KINDS))]
    kind = np.argmin(errors, axis=0).astype(np.int64)
    place = np.stack(starts)[kind, np.arange(len(cover))]
    for _ in range(3):
        place = np.clip(place + _newton_steps(kind, cover, place), np.float32(0.02), np.float32(1))
    return kind, place


def _newton_steps(kind: NDArray[np.int64], cover: Plane, place: NDArray[np.float32]) -> NDArray[np.float32]:
    return _by_kind(kind, lambda k, at: _newton_step(k, cover[at], place[at]), place.shape)


def _newton_step(kind: int, cover: Plane, place: NDArray[np.float32]) -> NDArray[np.float32]:
    """The Gauss–Newton step (N, 3) of (x, y, size) towards the given cover, at most two pixels long."""
    count, side = len(cover), cover.shape[-1]
    now = _cover(kind, place, side)
    width = np.float32(0.25 / side)  # of the difference quotients: a quarter of a pixel
    slopes = np.stack(
        [(_cover(kind, place + width * unit, side) - now).reshape(count, -1) for unit in np.eye(3, dtype=np.float32)]
    )
    slopes /= width  # (3, N, S*S)
    normal = np.einsum("anp,bnp->nab", slopes, slopes).astype(np.float64) + 1e-3 * np.eye(3)
    towards = np.einsum("anp,np->na", slopes, (cover - now).reshape(count, -1)).astype(np.float64)
    step = np.linalg.solve(normal, towards[..., None])[..., 0]
    return np.clip(step, -2 / side, 2 / side).astype(np.float32)


def _by_kind(
    kind: NDArray[np.int64], make: Callable[[int, NDArray[np.int64]], NDArray[np.float32]], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """An array filled kind by kind, as each kind has its own formula."""
    filled = np.empty(shape, dtype=np.float32)
    for kind_index in range(len(KINDS)):
        at = np.flatnonzero(kind == kind_index)
        if len(at):
            filled[at] = make(kind_index, at)
    return filled
