"""The data's own values as features, projected at random to a few."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.parts import extractor
from ganvas.types import Extractor, Modality

_SEED = 0
_AT_ONCE = 1 << 24  # values that are multiplied together


@extractor("raw")
class Raw(Extractor):
    """The values of data of any kind, projected by a fixed Gaussian matrix to at most `most` features; no logits.

    Distances between data are nearly kept (Johnson and Lindenstrauss 1984), scaled by 1 / sqrt(D) for D values a datum.
    Data of no more values than that stay as they are. Whole numbers, such as tokens, are first brought to [-1, 1], by
    their count of categories where they have one. It knows nothing of what data mean: use it where nothing better is.

    Parameters
    ----------
    most : features at most.

    Attributes
    ----------
    provenance : sha256 of the matrix's first rows, which are the same for data of any length.
    """

    name = "raw"
    classes = 0
    modalities: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, most: Annotated[int, Gt(0)] = 64) -> None:
        self.most = most
        self.categories = 0
        self.provenance: Mapping[str, str] = {
            "sha256": hashlib.sha256(projection(64, most).astype("<f4").tobytes()).hexdigest(),
            "layer": f"all values, by a Gaussian projection to {most} where there are more",
            "resizer": "none",
            "source": f"untrained, RandomState seed {_SEED}",
        }

    def suited(self, modality: Modality) -> Raw:
        """One that knows how many categories tokens have."""
        if modality.categories == self.categories:
            return self
        suited = Raw(most=self.most)
        suited.categories = modality.categories
        suited.provenance = {**suited.provenance, "resizer": f"of {modality.categories} categories to [-1, 1]"}
        return suited

    def __call__(self, data: Tensor) -> tuple[Tensor, None]:
        """(features (N, min(D, most)) float32, None) of data (N, ...) with D values each.

        Raises
        ------
        UsageError : there are no data.
        """
        if data.dim() < 2 or not data.numel():
            raise UsageError(f"an extractor takes data (N, ...), not {tuple(data.shape)}", hint="add the missing axis")
        values = data.flatten(1)  # (N, D)
        if not values.is_floating_point():
            values = values.float() * (2 / max(1, (self.categories or 256) - 1)) - 1
        D = values.shape[1]
        if self.most >= D:
            return values.float(), None
        matrix = torch.from_numpy(projection(D, self.most)).to(values.device)
        with torch.inference_mode():
            pieces = torch.split(values.float(), max(1, _AT_ONCE // D))
            return torch.cat([piece @ matrix for piece in pieces]) / D**0.5, None


@functools.lru_cache(maxsize=4)
def projection(values: int, features: int) -> np.ndarray:
    """A matrix (values, features) from N(0, 1), float32; a longer one begins with the rows of a shorter one."""
    # RandomState's streams are frozen: the features are the same for ever.
    return np.random.RandomState(_SEED).standard_normal((values, features)).astype(np.float32)
