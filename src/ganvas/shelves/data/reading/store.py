"""Images in memory or mapped from a file, and batches of them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.parts import image_spec
from ganvas.types import Batch, Census, Dataset, DataSpec

MAX_CLASSES = 100_000  # far beyond any labelled image set; a label like 10^9 is a wrong column, not a class


@dataclass(frozen=True)
class Prepared:
    """Images (N, C, H, W) uint8 in their final form, labels (N,) or None, and what was left out on the way."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()  # corrupt images, by name
    ignored: int = 0  # files that are no images
    names: tuple[str, ...] | None = None  # the images' files; None where they are not in files
    census: Census | None = None


class StoredImages(Dataset):
    """What every image data set is: a `types.Dataset` over one uint8 array.

    Attributes
    ----------
    spec, fingerprint, class_names, flips : see `types.Dataset`.
    skipped : names of corrupt images that were left out.
    ignored : how many files beside the images were not looked at.
    """

    spec: DataSpec
    fingerprint: str
    class_names: tuple[str, ...]

    def __init__(self, prepared: Prepared, fingerprint: str, *, flip: bool) -> None:
        shape = prepared.pixels.shape[1:]
        self.spec = image_spec(shape, num_classes=len(prepared.class_names))
        self.fingerprint = fingerprint
        self.class_names = prepared.class_names
        self.skipped = prepared.skipped
        self.ignored = prepared.ignored
        self.census = prepared.census
        self._pixels = prepared.pixels
        self._labels = prepared.labels
        self._names = prepared.names
        self.flips = flip

    def __len__(self) -> int:
        return len(self._pixels)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The images at `indices` (n,): data (n, C, H, W) float32 in [-1, 1], label (n,) int64 or None.

        With `flip`, each image is mirrored or not by its own draw from `rng`.
        """
        import torch

        chosen = np.asarray(self._pixels[indices])
        if self.flips:
            mirrored = rng.random(len(chosen)) < 0.5
            chosen[mirrored] = chosen[mirrored][..., ::-1]
        data = torch.from_numpy(np.ascontiguousarray(chosen)).to(torch.float32).div_(127.5).sub_(1.0)
        label = None if self._labels is None else torch.from_numpy(self._labels[indices])
        return Batch.labelled(data, label, indices)

    def names(self, indices: NDArray[np.int64]) -> Sequence[str] | None:
        """The files of the images at `indices`, relative to the folder or archive; None where they are not in files."""
        return None if self._names is None else [self._names[int(index)] for index in indices]

    def unflipped(self) -> StoredImages:
        """The same images, which stay in the same memory, without random flips."""
        still = copy.copy(self)
        still.flips = False
        return still


def subset(count: int, labels: NDArray[np.int64] | None, limit: int | None) -> NDArray[np.int64]:
    """The indices that `limit` leaves, ascending: as even over the classes as can be, and nested in larger limits."""
    if limit is None or limit >= count:
        return np.arange(count, dtype=np.int64)
    order = np.random.RandomState(0).permutation(count)  # RandomState's streams are frozen: the choice is for ever
    if labels is not None:
        # Deal the classes out in turn: an image's round is its place among those of its class.
        by_class = order[np.argsort(labels[order], kind="stable")]
        starts = np.searchsorted(labels[by_class], labels[by_class], side="left")
        rounds = np.arange(count) - starts
        order = by_class[np.argsort(rounds, kind="stable")]
    return np.sort(order[:limit]).astype(np.int64)


def checked_labels(values: Any, count: int, *, where: str) -> NDArray[np.int64]:
    """Class labels (N,) as int64.

    Raises
    ------
    DataError : they are not `count` whole numbers from 0.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.empty(0, dtype=object)  # ragged
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"labels must be one whole number per image, not {array.dtype} of shape {array.shape}",
            where=where,
            hint="store class numbers 0, 1, 2, ...",
        )
    if len(array) != count:
        raise DataError(
            f"{len(array)} labels for {count} images", where=where, hint="give the labels that belong to these images"
        )
    if count and (int(array.min()) < 0 or int(array.max()) >= MAX_CLASSES):
        raise DataError(
            f"labels run from {int(array.min())} to {int(array.max())}",
            where=where,
            hint=f"class numbers start at 0 and stay below {MAX_CLASSES}",
        )
    return array.astype(np.int64)


def numbered(labels: NDArray[np.int64] | None) -> tuple[str, ...]:
    """Class names where there are only numbers: "0", "1", ... up to the largest."""
    return () if labels is None or not len(labels) else tuple(str(label) for label in range(int(labels.max()) + 1))


def require_two(count: int, *, where: str, word: str = "image") -> None:
    """Nothing can be learnt from a single datum, an image unless `word` says otherwise.

    Raises
    ------
    DataError
    """
    if count < 2:
        count_said = f"no {word}" if count == 0 else f"only one {word}"
        raise DataError(
            f"{count_said} found; at least 2 are needed", where=where, hint=f"add {word}s or choose another place"
        )


def digest_array(array: NDArray[Any]) -> str:
    """SHA-256 of an array's shape, type and values, read in pieces so that a mapped file is never held whole."""
    sha = hashlib.sha256(f"{array.shape} {array.dtype.str}".encode())
    rows = max(1, (16 << 20) // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        sha.update(np.ascontiguousarray(array[start : start + rows]).data)
    return sha.hexdigest()


def digest_of(facts: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, the same for the same values in any order of keys."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode("utf-8", "surrogateescape")).hexdigest()
