"""Data sets that are made of others: what they have in common."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import BadValue
from ganvas.shelves.data.reading.store import digest_of
from ganvas.types import Batch, Condition, ConditionSpec, Dataset, DataSpec, StreamedDataset


class WithConditions(Dataset):
    """A data set whose data come with more conditions than those of the set that it is made of.

    Number, order, labels, names and files are those of that set. A part overrides `batch`, and `unflipped` where it
    holds a second set.

    Parameters
    ----------
    data : the set that it is made of.
    more : the conditions that it adds.
    facts : plain values that identify what is added.

    Raises
    ------
    BadValue : a set that can only be read as a stream, or a condition that the data have already.

    Attributes
    ----------
    spec, fingerprint, class_names, flips : see `types.Dataset`.
    """

    spec: DataSpec
    fingerprint: str
    class_names: tuple[str, ...]

    def __init__(self, data: Dataset, more: Mapping[str, ConditionSpec], facts: Mapping[str, Any]) -> None:
        self.data = by_index(data, "data")
        self.spec = with_more(data.spec, more)
        self.class_names = data.class_names
        self.census = data.census
        self.flips = data.flips
        self.fingerprint = digest_of({"data": data.fingerprint, "conditions": sorted(more), **facts})

    def __len__(self) -> int:
        return len(self.data)

    def names(self, indices: NDArray[np.int64]) -> Sequence[str] | None:
        """The files of the data, as the set that it is made of names them."""
        return self.data.names(indices)

    def beside(self, name: str) -> bytes | None:
        """A file that lies with the data of the set that it is made of."""
        return self.data.beside(name)

    def unflipped(self) -> WithConditions:
        """The same data and conditions without random flips."""
        still = copy.copy(self)
        still.data = self.data.unflipped()
        still.flips = False
        return still


def by_index(data: Dataset | StreamedDataset, key: str) -> Dataset:
    """A data set that can be read by index.

    Raises
    ------
    BadValue : it cannot.
    """
    if isinstance(data, StreamedDataset):
        raise BadValue(
            f"{key!r} is read as a stream, and this data set looks its data up by their numbers", key=key,
            hint="download it and take a data set that reads by index, such as folder, zip or arrays",
        )  # fmt: skip
    return data


def with_more(spec: DataSpec, more: Mapping[str, ConditionSpec]) -> DataSpec:
    """What data look like that come with further conditions.

    Raises
    ------
    BadValue : one of that name is there.
    """
    if taken := sorted(spec.conditions.keys() & more.keys()):
        raise BadValue(
            f"the data have a condition {taken[0]!r} already", key="name", hint="give the new one another name"
        )
    return replace(spec, conditions={**spec.conditions, **more})


def joined(batch: Batch, **more: Any) -> Batch:
    """The batch with more conditions (n, ...)."""
    return batch.with_condition(Condition({**batch.condition, **more}))


def drawn(indices: NDArray[np.int64], count: int | NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random number (n,) below `count` for each of the data at `indices` (n,).

    It is a function of one draw from `rng` and of the datum's own number: a fixed `rng` gives a datum the same in
    whatever batch it is read, so that an evaluation does not depend on the size of its batches. The function is the
    output step of SplitMix64 (Steele et al. 2014, figure 17).
    """
    salt = rng.integers(2**64, dtype=np.uint64)
    z = indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + salt
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    below = np.asarray(count).astype(np.uint64)
    return ((z ^ (z >> np.uint64(31))) % below).astype(np.int64)
