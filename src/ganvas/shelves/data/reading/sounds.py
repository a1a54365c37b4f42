"""Sounds in memory, and how they are brought to one form."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray

from ganvas.parts import data_spec
from ganvas.shelves.data.reading.store import digest_array, digest_of
from ganvas.types import Batch, Dataset, DataSpec, label_of

FULL_SCALE = 32768  # the 16-bit number that would stand for 1


def resampled(values: NDArray[np.float32], rate: int, new_rate: int) -> NDArray[np.float32]:
    """Sound (channels, samples) of one rate at another, by a polyphase low-pass filter; as it is where they agree."""
    if rate == new_rate:
        return values
    from scipy.signal import resample_poly

    common = gcd(rate, new_rate)
    sound: NDArray[np.float32] = resample_poly(values, new_rate // common, rate // common, axis=1).astype(np.float32)
    return sound


def fitted(values: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """Sound (channels, any) of just so many samples: its end is cut off, or followed by silence."""
    return np.pad(values[:, :samples], ((0, 0), (0, max(0, samples - values.shape[1]))))


def at_peak(values: NDArray[np.float32], peak: float | None) -> NDArray[np.float32]:
    """Sound whose largest magnitude is `peak`; silence, and sound without a wish, as it is."""
    loudest = float(np.abs(values).max())
    return values if peak is None or loudest == 0 else values * np.float32(peak / loudest)


def sixteen_bit(values: NDArray[np.float32]) -> NDArray[np.int16]:
    """Sound in [-1, 1] as 16-bit numbers, which is what is kept of it."""
    return np.clip(np.rint(values * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def sound_spec(channels: int, samples: int, rate: int, num_classes: int) -> DataSpec:
    """What sounds (channels, samples) with so many classes look like."""
    return data_spec({"use": "audio", "rate": rate}, (channels, samples), label_of(num_classes))


class StoredSounds(Dataset):
    """Sounds (N, channels, samples) int16 in memory, with labels (N,) or None.

    Attributes
    ----------
    spec, fingerprint, class_names : see `types.Dataset`.
    """

    def __init__(
        self,
        values: NDArray[np.int16],
        rate: int,
        labels: NDArray[np.int64] | None,
        class_names: tuple[str, ...],
        files: Sequence[str] | None = None,
    ) -> None:
        self.spec = sound_spec(values.shape[1], values.shape[2], rate, len(class_names))
        self.class_names = class_names
        self.fingerprint = digest_of(
            {
                "content": digest_array(values), "rate": rate, "class_names": class_names,
                "labels": None if labels is None else labels.tolist(),
            }
        )  # fmt: skip
        self._values = values
        self._labels = labels
        self._files = files

    def __len__(self) -> int:
        return len(self._values)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The sounds at `indices` (n,): data (n, channels, samples) float32 in [-1, 1], label (n,) int64 or None."""
        data = torch.from_numpy(self._values[indices]).float() / FULL_SCALE
        label = None if self._labels is None else torch.from_numpy(self._labels[indices])
        return Batch.labelled(data, label, indices)

    def names(self, indices: NDArray[np.int64]) -> Sequence[str] | None:
        """The files of the sounds at `indices`; None where they do not come from files."""
        return None if self._files is None else [self._files[int(index)] for index in indices]
