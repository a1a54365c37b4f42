"""Classes of two sets of data are the same where they have the same name, whatever their numbers are."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ganvas.types import EvidenceSet

NOWHERE = -1  # the number of a class that the other side does not have


def composed(names: Sequence[str]) -> tuple[str, ...]:
    """Names with composed letters, as data sets have them."""
    return tuple(unicodedata.normalize("NFC", name) for name in names)


def comparable(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether names tell which classes belong together: both sides have some, and at least one is on both."""
    return bool(set(composed(names)) & set(composed(others)))


def united(names: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """The names of both, those of the first in their order, then those that only the second has."""
    ours = composed(names)
    return (*ours, *(name for name in composed(others) if name not in ours))


def renumbered(label: Tensor, names: Sequence[str], others: Sequence[str]) -> Tensor:
    """Labels (N,) that count `names`, as they count `others`; -1 for classes that are not among those."""
    place = {name: number for number, name in enumerate(composed(others))}
    table = torch.tensor([place.get(name, NOWHERE) for name in composed(names)], dtype=torch.int64)
    return table[label.long()]


def in_order_of(sets: Mapping[str, EvidenceSet], names: Sequence[str], others: Sequence[str]) -> dict[str, EvidenceSet]:
    """The same sets with labels that count `others` in the place of `names`."""
    return {
        key: images if images.label is None
        else dataclasses.replace(images, label=renumbered(images.label, names, others))
        for key, images in sets.items()
    }  # fmt: skip
