"""Two data sets without partners, as translation between domains learns from."""

from __future__ import annotations

import copy
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from ganvas.parts import Slot, dataset
from ganvas.shelves.data.reading.made_of import WithConditions, by_index, drawn, joined, with_more
from ganvas.shelves.data.sets.paired import condition_like
from ganvas.types import Batch, Dataset, DataSpec


@dataset("unpaired")
class Unpaired(WithConditions):
    """Each datum of `data` comes with a random datum of `other` as a condition.

    The sets may differ in length, shape and modality. Partners are drawn anew for each batch; in an evaluation each
    datum keeps one, whatever the batches. Conditions of `other` are left aside.

    Parameters
    ----------
    data : the one domain, whose data are to be made.
    other : the other domain.
    name : of the condition, as networks read it.

    Raises
    ------
    BadValue : a set that is read as a stream.
    """

    def __init__(
        self,
        *,
        data: Annotated[Dataset, Slot("dataset")],
        other: Annotated[Dataset, Slot("dataset")],
        name: str = "other",
    ) -> None:
        super().__init__(data, {name: condition_like(other.spec)}, {"unpaired": by_index(other, "other").fingerprint})
        self.other = other
        self.name = name
        self.flips = data.flips or other.flips

    @classmethod
    def preview(
        cls, *, data: DataSpec | None = None, other: DataSpec | None = None, name: str = "other", **_: object
    ) -> DataSpec | None:
        """What these keys promise where both sets do."""
        return None if data is None or other is None else with_more(data, {name: condition_like(other)})

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The data at `indices`, each with one of the other set; flips of both are drawn apart."""
        partners = drawn(indices, len(self.other), rng)
        data = self.data.batch(indices, rng)
        return joined(data, **{self.name: self.other.batch(partners, rng).data})

    def unflipped(self) -> Unpaired:
        """The same two sets without random flips."""
        still = copy.copy(self)
        still.data, still.other, still.flips = self.data.unflipped(), self.other.unflipped(), False
        return still
