"""Drawn films of discs that move, whose way is known."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from ganvas.parts import dataset
from ganvas.shelves.data.reading.films import StoredFilms, film_spec
from ganvas.toys.shapes import CENTRE, MIN_SIDE, draw, random_factors
from ganvas.types import DataSpec

TEST_SEED = 1_000_003  # added for the test split: far from the seeds that people choose

DIRECTIONS = {"right": (1, 0), "down": (0, 1), "left": (-1, 0), "up": (0, -1)}
"""name -> the step (x, y) of the motion, y down; in the order of the labels."""

SLOWEST = 0.5  # of the fastest speed at which a disc stays inside from the first frame to the last
_RATE = 8.0  # frames a second


@dataset("moving-shapes", tiny={"count": 16, "size": 16, "frames": 4})
class MovingShapes(StoredFilms):
    """Drawn discs that move straight on, right, down, left or up; the direction is the label.

    RGB on a dark ground. A disc keeps its colour, size and speed; it moves by at least half of the way that keeps it
    inside the picture. `ganvas.toys.shapes.recover` finds its place in any frame again.

    Parameters
    ----------
    count : how many films.
    size : pixels of a side.
    frames : of each film.
    seed : chooses the factors.
    split : test has the same distribution, drawn independently.

    Attributes
    ----------
    factors : arrays (count,) by name: kind, colour, size, x and y in the middle of the film, see `ganvas.toys.shapes`;
        and `vx`, `vy`, the velocity in sides a frame.
    """

    def __init__(
        self,
        *,
        count: Annotated[int, Ge(2)] = 1000,
        size: Annotated[int, Ge(MIN_SIDE)] = 32,
        frames: Annotated[int, Ge(2)] = 8,
        seed: Annotated[int, Ge(0)] = 0,
        split: Literal["train", "test"] = "train",
    ) -> None:
        split_seed = (seed + (TEST_SEED if split == "test" else 0)) % 2**32
        factors = random_factors(count, split_seed)
        random = np.random.RandomState((split_seed + 1) % 2**32)  # its streams are frozen, unlike those of default_rng
        labels = random.randint(len(DIRECTIONS), size=count).astype(np.int64)
        half_way = random.uniform(SLOWEST, 1, size=count) * (CENTRE[1] - CENTRE[0]) / 2  # sides, from the middle
        moves = np.array(list(DIRECTIONS.values()))[labels]  # (count, 2)
        factors["kind"] = np.zeros(count, dtype=np.int64)
        for axis, place in enumerate(("x", "y")):  # along the motion, the middle is where there is room for both halves
            low, high = (edge + sign * half_way for edge, sign in zip(CENTRE, (1, -1), strict=True))
            share = (factors[place] - CENTRE[0]) / (CENTRE[1] - CENTRE[0])
            factors[place] = np.where(moves[:, axis] != 0, low + share * (high - low), factors[place])
        velocity = moves * (half_way / ((frames - 1) / 2))[:, None]
        self.factors = {**factors, "vx": velocity[:, 0], "vy": velocity[:, 1]}
        films = [
            draw({**factors, "x": factors["x"] + velocity[:, 0] * t, "y": factors["y"] + velocity[:, 1] * t}, size)
            for t in np.arange(frames) - (frames - 1) / 2
        ]  # each (count, 3, size, size)
        stored = np.stack(films, axis=1).transpose(0, 1, 3, 4, 2)  # (count, T, H, W, C)
        super().__init__(list(np.ascontiguousarray(stored)), labels, tuple(DIRECTIONS), frames=frames, rate=_RATE)

    @classmethod
    def preview(cls, *, size: int = 32, frames: int = 8, **_: object) -> DataSpec:
        """What these keys promise."""
        return film_spec((3, frames, size, size), _RATE, len(DIRECTIONS))
