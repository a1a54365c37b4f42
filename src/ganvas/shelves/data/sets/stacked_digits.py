"""Three digits in one picture: a thousand equal modes that can be counted."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from ganvas.parts import dataset, image_spec
from ganvas.shelves.data.reading.options import ImageOptions, Pixels
from ganvas.shelves.data.reading.store import Prepared, StoredImages, digest_array, digest_of
from ganvas.shelves.data.sets.digits import Digits
from ganvas.types import DataSpec

MODES = 1000
TEST_SEED = 1_000_003  # added for the test split: far from the seeds that people choose


@dataset("stacked-digits", paper="Metz et al. 2017 (stacked MNIST)", tiny={"count": 64})
class StackedDigits(StoredImages):
    """Three random digits as the red, green and blue of one picture: 1,000 equally likely modes, 000 to 999.

    The label is the number that the three digits make, red first. Digits are drawn independently, each of the ten with
    probability 1/10 and then one of its images: the field's test for mode collapse at the size of `digits`. The metric
    `stacked-modes` counts the modes of samples.

    Parameters
    ----------
    count : how many pictures.
    size : pixels of a side; the digits have 8.
    seed : chooses the digits.
    split : test stacks the held-out images of `digits`, train the others.
    """

    def __init__(
        self,
        *,
        count: Annotated[int, Ge(2)] = 20_000,
        size: Pixels = 8,
        seed: Annotated[int, Ge(0)] = 0,
        split: Literal["train", "test"] = "train",
    ) -> None:
        pixels, of_digit = _planes(split, size)
        rng = np.random.Generator(np.random.PCG64(seed + (TEST_SEED if split == "test" else 0)))
        digits = rng.integers(10, size=(count, 3))
        places = rng.random((count, 3))
        chosen = np.empty((count, 3), dtype=np.int64)
        for digit, images in enumerate(of_digit):
            of_this_digit = digits == digit
            chosen[of_this_digit] = images[(places[of_this_digit] * len(images)).astype(np.int64)]
        stacked = pixels[chosen]  # (count, 3, size, size)
        labels = digits @ np.array([100, 10, 1])
        content = {"content": digest_array(stacked), "labels": digest_array(labels)}
        super().__init__(Prepared(stacked, labels, _names()), digest_of(content), flip=False)

    @classmethod
    def preview(cls, *, size: int = 8, **_: object) -> DataSpec:
        """What these keys promise."""
        return image_spec((3, size, size), num_classes=MODES)


def _names() -> tuple[str, ...]:
    return tuple(f"{mode:03d}" for mode in range(MODES))


def _planes(split: Literal["train", "test"], size: int) -> tuple[NDArray[np.uint8], list[NDArray[np.intp]]]:
    """The pixels (N, size, size) of all digits of a split, and which of them show 0, 1, ..., 9."""
    single = Digits(split=split, images=ImageOptions(size=size))
    batch = single.batch(np.arange(len(single)), np.random.default_rng(0))
    assert batch.label is not None
    pixels = ((batch.data[:, 0].numpy() + 1) * 127.5).round().astype(np.uint8)
    return pixels, [np.flatnonzero(batch.label.numpy() == digit) for digit in range(10)]
