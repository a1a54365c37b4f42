"""Real handwritten digits that need no download."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from ganvas.parts import Flat, dataset, image_spec
from ganvas.shelves.data.reading.options import AS_THEY_ARE, ImageOptions
from ganvas.shelves.data.reading.prepare import store_array
from ganvas.shelves.data.reading.store import StoredImages, numbered
from ganvas.types import DataSpec

HELD_OUT = 50  # test images per class


@dataset("digits", tiny={"limit": 128})
class Digits(StoredImages):
    """1,797 real handwritten digits of 8x8 grey pixels, at hand without a download.

    They come with scikit-learn (UCI "Optical Recognition of Handwritten Digits", test part). The split is fixed: 50
    images of each digit are held out as test, the other 1,297 are train.

    Parameters
    ----------
    split : train, test or all.
    images : see `ImageOptions`.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "test", "all"] = "train",
        images: Annotated[ImageOptions, Flat()] = AS_THEY_ARE,
    ) -> None:
        pixels, labels = _load()
        if split != "all":
            test = _held_out(labels)
            pixels, labels = pixels[test == (split == "test")], labels[test == (split == "test")]
        store_array(self, pixels, labels, numbered(labels), images, where=f"digits {split}")

    @classmethod
    def preview(cls, *, images: ImageOptions = AS_THEY_ARE, **_: object) -> DataSpec:
        """What these keys promise."""
        return image_spec(images.promised(1, 8, 8), num_classes=10)


def _load() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (1797, 8, 8, 1) and labels (1797,)."""
    # `import sklearn.datasets` takes 0.8 s for one table of numbers, so its file is read where it lies (0.05 s).
    spec = importlib.util.find_spec("sklearn")
    places = list(spec.submodule_search_locations or ()) if spec else []
    file = Path(places[0], "datasets", "data", "digits.csv.gz") if places else None
    if file and file.is_file():
        text = gzip.decompress(file.read_bytes()).decode("ascii")
        table = np.array(text.replace("\n", ",").rstrip(",").split(","), dtype=np.float32).reshape(-1, 65)
        values, labels = table[:, :64], table[:, 64]
    else:  # a scikit-learn that keeps it elsewhere still knows where
        from sklearn.datasets import load_digits

        values, labels = load_digits(return_X_y=True)
    pixels = np.rint(values * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
    return pixels.reshape(-1, 8, 8, 1), labels.astype(np.int64)


def _held_out(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images are test: the same for ever, as RandomState's streams are frozen."""
    test = np.zeros(len(labels), dtype=bool)
    choice = np.random.RandomState(0)
    for digit in range(10):
        test[choice.permutation(np.flatnonzero(labels == digit))[:HELD_OUT]] = True
    return test
