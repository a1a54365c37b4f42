"""Drawn pictures whose factors are known."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge

from ganvas.parts import dataset, image_spec
from ganvas.shelves.data.reading.store import Prepared, StoredImages, digest_array, digest_of
from ganvas.toys.shapes import KINDS, MIN_SIDE, draw, random_factors
from ganvas.types import DataSpec

TEST_SEED = 1_000_003  # added for the test split: far from the seeds that people choose


@dataset("shapes", tiny={"count": 64})
class Shapes(StoredImages):
    """Drawn circles, squares, triangles and crosses, whose kind, place, size and colour are known.

    RGB on a dark ground; the kind is the label. `ganvas.toys.shapes.recover` finds the factors of any image again,
    which makes precision and recall of a generator exact.

    Parameters
    ----------
    count : how many images.
    size : pixels of a side.
    seed : chooses the factors.
    split : test has the same distribution, drawn independently.

    Attributes
    ----------
    factors : arrays (N,) by name: kind, colour, x, y, size; see `ganvas.toys.shapes`.
    """

    def __init__(
        self,
        *,
        count: Annotated[int, Ge(2)] = 5000,
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
