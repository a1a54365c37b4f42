"""Two data sets side by side: each datum of one with its partner in the other, as in restoration."""

from __future__ import annotations

import copy
import os.path
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import BadValue, DataError
from ganvas.parts import Slot, dataset
from ganvas.shelves.data.reading.made_of import WithConditions, by_index, joined, with_more
from ganvas.types import Batch, ConditionSpec, Dataset, DataSpec


@dataset("paired")
class Paired(WithConditions):
    """Datum i of `data` comes with datum i of `given` as a condition, so that the second can be turned into the first.

    Super-resolution is `{use: paired, data: {use: cifar, ...}, given: {use: cifar, ..., size: 16}, name: low}`. Where
    both sets know their files, partners have the same name but for the suffix and the folder that all of a set lie in;
    sets without files are paired by their order alone, so give both the same `limit` and `labels`. Conditions of
    `given` are left aside.

    Parameters
    ----------
    data : what is to be made.
    given : what it is made from; its data need not have the same shape or modality.
    name : of the condition, as networks read it.
    match : "name" refuses partners with different file names; "order" does not look at them.

    Raises
    ------
    DataError : sets of different lengths, or partners whose names differ.
    BadValue : random flips in one of the sets alone, or a set that is read as a stream.
    """

    def __init__(
        self,
        *,
        data: Annotated[Dataset, Slot("dataset")],
        given: Annotated[Dataset, Slot("dataset")],
        name: str = "given",
        match: Literal["name", "order"] = "name",
    ) -> None:
        super().__init__(data, {name: condition_like(given.spec)}, {"paired": by_index(given, "given").fingerprint})
        self.given = given
        self.name = name
        if data.flips != given.flips:
            flips, other = ("data", "given") if data.flips else ("given", "data")
            raise BadValue(
                f"{flips!r} is flipped at random and {other!r} is not, so partners would not fit", key=f"{other}.flip",
                hint=f"set data.{other}.flip=true, or data.{flips}.flip=false",
            )  # fmt: skip
        if match == "name":
            check_partners(data, given)
        if len(data) != len(given):
            raise DataError(
                f"{len(data)} data and {len(given)} to pair them with", where="paired",
                hint="both need the same limit, split and number of files",
            )  # fmt: skip

    @classmethod
    def preview(
        cls, *, data: DataSpec | None = None, given: DataSpec | None = None, name: str = "given", **_: object
    ) -> DataSpec | None:
        """What these keys promise where both sets do."""
        return None if data is None or given is None else with_more(data, {name: condition_like(given)})

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The data at `indices` with their partners; the same draws decide about the flips of both."""
        twin = copy.deepcopy(rng)
        return joined(self.data.batch(indices, rng), **{self.name: self.given.batch(indices, twin).data})

    def unflipped(self) -> Paired:
        """The same pairs without random flips."""
        still = copy.copy(self)
        still.data, still.given, still.flips = self.data.unflipped(), self.given.unflipped(), False
        return still


def condition_like(spec: DataSpec) -> ConditionSpec:
    """What a datum looks like where it is a condition of another one."""
    return ConditionSpec(spec.shape, spec.modality.categories, spec.modality)


def check_partners(data: Dataset, given: Dataset) -> None:
    """Compare the names of partners where both sets have names.

    Raises
    ------
    DataError : two differ; says which.
    """
    ours, others = data.names(np.arange(len(data))), given.names(np.arange(len(given)))
    if ours is None or others is None:
        return
    for number, (one, other) in enumerate(zip(stems(ours), stems(others), strict=False)):
        if one != other:
            raise DataError(
                f"datum {number} is {ours[number]}, and its partner is {others[number]}", where="paired",
                hint="give partners the same names, or pair them by their order: data.match=order",
            )  # fmt: skip


def stems(names: Sequence[str]) -> list[str]:
    """Names without their suffix and without the folder that all of them lie in."""
    paths = [PurePosixPath(name).with_suffix("") for name in names]
    shared = os.path.commonpath([path.parent for path in paths]) if paths else ""
    return [str(path.relative_to(shared)) for path in paths]
