"""Repeating textile motifs drawn by code: a stand-in for batik cloth, of which there are few free pictures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from ganvas.parts import dataset, image_spec
from ganvas.shelves.data.reading.store import Prepared, StoredImages, digest_array, digest_of
from ganvas.types import DataSpec

Plane = NDArray[np.float32]
Factors = dict[str, NDArray[Any]]

KINDS = ("kawung", "parang", "ceplok", "truntum")
"""Families of batik: crossed almonds, diagonal blades, rosettes, scattered stars."""

MIN_SIDE = 16  # pixels: below, a motif has too few of them to be told apart
REPEATS = (2, 3, 4)  # motifs along a side
PALETTE = np.array(
    [(245, 230, 200), (120, 70, 35), (30, 40, 90), (60, 30, 20), (190, 120, 50), (150, 40, 40)], dtype=np.float32
)
"""Cream, soga brown, indigo, dark brown, ochre and morinda red, in sRGB from 0 to 255."""

TEST_SEED = 1_000_003  # added for the test split: far from the seeds that people choose
_CHUNK_PIXELS = 512 * 32 * 32  # of the images that are worked on at once


def random_factors(count: int, seed: int) -> Factors:
    """Independent uniform factors (count,) each: `kind`, `repeats`, `x`, `y`, `scale`, `ground` and `ink`.

    Image i has the same factors whatever `count` is. x and y are the place of a motif in units of its distance to the
    next one, scale is its size relative to the usual one, ground and ink are different colours of `PALETTE`.
    """
    random = np.random.RandomState(seed)  # its streams are frozen, unlike those of default_rng
    u = random.random_sample((count, 7))  # row by row: a longer table begins with the shorter one

    def one_of(column: int, n: int) -> NDArray[np.int64]:
        return np.floor(u[:, column] * n).astype(np.int64)

    ground = one_of(5, len(PALETTE))
    return {
        "kind": one_of(0, len(KINDS)),
        "repeats": np.array(REPEATS)[one_of(1, len(REPEATS))],
        "x": u[:, 2],
        "y": u[:, 3],
        "scale": 0.85 + 0.3 * u[:, 4],
        "ground": ground,
        "ink": (ground + 1 + one_of(6, len(PALETTE) - 1)) % len(PALETTE),
    }


def draw(factors: Factors, side: int) -> NDArray[np.uint8]:
    """Pictures (N, 3, side, side) uint8 of the given factors, with antialiased edges; each can be laid as a tile."""
    count = len(factors["kind"])
    pictures = np.empty((count, 3, side, side), dtype=np.uint8)
    rows = max(1, _CHUNK_PIXELS // side**2)
    for start in range(0, count, rows):
        piece = {key: values[start : start + rows] for key, values in factors.items()}
        cover = np.empty((len(piece["kind"]), side, side), dtype=np.float32)
        for kind in range(len(KINDS)):
            at = piece["kind"] == kind
            cover[at] = _cover(kind, {key: values[at] for key, values in piece.items()}, side)
        ground, ink = PALETTE[piece["ground"]][:, :, None, None], PALETTE[piece["ink"]][:, :, None, None]
        pictures[start : start + rows] = np.rint(ground + cover[:, None] * (ink - ground)).astype(np.uint8)
    return pictures


def _cover(kind: int, factors: Factors, side: int) -> Plane:
    """How much of each pixel (N, side, side) the motif's ink covers, 0..1."""
    repeats, x, y, scale = (
        factors[key].astype(np.float32)[:, None, None] for key in ("repeats", "x", "y", "scale")
    )  # (N, 1, 1) each
    place = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    u = repeats * place[None, None, :] - x  # (N, 1, side): in distances between motifs
    v = repeats * place[None, :, None] - y  # (N, side, 1)
    pixels = np.float32(side) / repeats  # of a distance
    inside: Plane = np.float32(0.5) - _outline(kind, u, v, scale) * pixels
    return inside.clip(0, 1)


def _from_middle(u: Plane) -> Plane:
    """Where in its cell a place is: -1/2 to 1/2, 0 in the middle."""
    place: Plane = u - np.floor(u + np.float32(0.5))
    return place


def _outline(kind: int, u: Plane, v: Plane, scale: Plane) -> Plane:
    """About the distance to the outline, negative inside, of motifs that repeat in u and v with period 1."""
    p, q = _from_middle(u), _from_middle(v)
    half_root = np.float32(0.5**0.5)
    outline: Plane
    if kind == 0:  # four almonds towards the corners, with a seed in their midst
        along, across = half_root * (np.abs(p) + np.abs(q)), half_root * (np.abs(p) - np.abs(q))
        almond = 0.13 * (np.hypot((along - 0.36) / 0.25, across / 0.13) - scale)
        outline = np.minimum(almond, np.hypot(p, q) - 0.07 * scale)
    elif kind == 1:  # a band along the diagonal whose edge is a row of blades, and a thread between bands
        wave = 0.06 * np.sin(np.float32(2 * np.pi) * (2 * v - u))
        band = np.abs(_from_middle(u + v))  # its shadow on an axis, √2 as long as it is wide
        outline = half_root * np.minimum(band - 0.2 * scale - wave, np.abs(band - 0.42) - 0.035)
    elif kind == 2:  # a rosette of eight petals in a ring
        radius, angle = np.hypot(p, q), np.arctan2(q, p)
        petals = radius - scale * (0.2 + 0.07 * np.cos(8 * angle))
        outline = np.minimum(petals, np.abs(radius - 0.38 * scale) - 0.03)
    else:  # a star of six rays in every middle, and one in every corner
        stars = []
        for shift in (np.float32(0), np.float32(0.5)):
            a, b = _from_middle(u - shift), _from_middle(v - shift)
            stars.append(np.hypot(a, b) - scale * (0.13 + 0.08 * np.cos(6 * np.arctan2(b, a))))
        outline = np.minimum(*stars)
    return outline


@dataset("motifs", tiny={"count": 64})
class Motifs(StoredImages):
    """Drawn textile motifs that repeat over the picture and beyond its edges; the family of motifs is the label.

    RGB, two colours a picture. They stand in for batik in the study of Diffusion-StyleGAN2-ADA, and show whether a
    generator gets periods and edges right. Image i depends on (seed, i) alone.

    Parameters
    ----------
    count : how many images.
    size : pixels of a side.
    seed : chooses the factors.
    split : test has the same distribution, drawn independently.

    Attributes
    ----------
    factors : arrays (N,) by name, see `random_factors`.
    """

    def __init__(
        self,
        *,
        count: Annotated[int, Ge(2)] = 500,
        size: Annotated[int, Ge(MIN_SIDE)] = 32,
        seed: Annotated[int, Ge(0)] = 0,
        split: Literal["train", "test"] = "train",
    ) -> None:
        self.factors = random_factors(count, (seed + (TEST_SEED if split == "test" else 0)) % 2**32)
        pixels = draw(self.factors, size)
        content = {"content": digest_array(pixels), "labels": digest_array(self.factors["kind"])}
        super().__init__(Prepared(pixels, self.factors["kind"], KINDS), digest_of(content), flip=False)

    @classmethod
    def preview(cls, *, size: int = 32, **_: object) -> DataSpec:
        """What these keys promise."""
        return image_spec((3, size, size), num_classes=len(KINDS))
