"""Films in memory, and clips of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ganvas.parts import data_spec
from ganvas.shelves.data.reading.store import digest_array, digest_of
from ganvas.types import Batch, Dataset, DataSpec, label_of

Film = NDArray[np.uint8]


def film_spec(shape: tuple[int, int, int, int], rate: float, num_classes: int) -> DataSpec:
    """What films (channels, frames, height, width) with so many classes look like."""
    return data_spec({"use": "video", "rate": rate}, shape, label_of(num_classes))


class StoredFilms(Dataset):
    """Clips of films (T, H, W, C) uint8 in memory, with labels (N,) or None.

    Parameters
    ----------
    films : of one size and as many channels; of any lengths that hold a clip.
    frames, stride : a clip is so many frames, each `stride` behind the one before.
    rate : frames of a clip in a second.
    anywhere : whether a clip begins at a random frame whenever it is read, or at the first.
    flip : mirror each clip left to right with probability 1/2 whenever it is read.

    Attributes
    ----------
    spec, fingerprint, class_names, flips : see `types.Dataset`.
    """

    def __init__(
        self,
        films: Sequence[Film],
        labels: NDArray[np.int64] | None,
        class_names: tuple[str, ...],
        *,
        frames: int,
        stride: int = 1,
        rate: float = 25.0,
        anywhere: bool = False,
        flip: bool = False,
        files: Sequence[str] | None = None,
    ) -> None:
        H, W, C = films[0].shape[1:]
        self.spec = film_spec((C, frames, H, W), rate, len(class_names))
        self.class_names = class_names
        self.flips = flip
        self.fingerprint = digest_of(
            {
                "content": [digest_array(film) for film in films], "frames": frames, "stride": stride, "rate": rate,
                "anywhere": anywhere, "flip": flip, "class_names": class_names,
                "labels": None if labels is None else labels.tolist(),
            }
        )  # fmt: skip
        self._films = films
        self._labels = labels
        self._span = span_of(frames, stride)
        self._stride = stride
        self._anywhere = anywhere
        self._files = files

    def __len__(self) -> int:
        return len(self._films)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The films at `indices` (n,): data (n, C, T, H, W) float32 in [-1, 1], label (n,) int64 or None.

        Where a clip begins and whether it is mirrored is decided by `rng`.
        """
        films = [self._films[int(index)] for index in indices]
        starts = np.zeros(len(films), dtype=np.int64)
        if self._anywhere:
            starts = rng.integers([len(film) - self._span + 1 for film in films])
        clips = np.stack(
            [film[start : start + self._span : self._stride] for film, start in zip(films, starts, strict=True)]
        )  # (n, T, H, W, C)
        if self.flips:
            mirrored = rng.random(len(clips)) < 0.5
            clips[mirrored] = clips[mirrored][:, :, :, ::-1]
        data = torch.from_numpy(np.ascontiguousarray(clips.transpose(0, 4, 1, 2, 3))).float().div_(127.5).sub_(1.0)
        return Batch.labelled(data, None if self._labels is None else torch.from_numpy(self._labels[indices]), indices)

    def names(self, indices: NDArray[np.int64]) -> Sequence[str] | None:
        """The files, or folders of frames, of the films at `indices`; None where they do not come from files."""
        return None if self._files is None else [self._files[int(index)] for index in indices]

    def unflipped(self) -> StoredFilms:
        """The same films without chance: not mirrored, and each clip from the first frame on."""
        still = copy.copy(self)
        still.flips = still._anywhere = False
        return still


def span_of(frames: int, stride: int) -> int:
    """How many frames of a film a clip reaches over."""
    return (frames - 1) * stride + 1
