"""Points in the plane whose distribution is known: the field's toy for mode collapse."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt

from ganvas.parts import data_spec, dataset
from ganvas.toys.plane import centres
from ganvas.types import Batch, Dataset, DataSpec, label_of


@dataset("gaussians", tiny={"count": 64})
class Gaussians(Dataset):
    """A mixture of equal Gaussians in the plane, on a ring or a grid within [-1, 1]²; the mode is the label.

    Data are (N, 2) float32. `ganvas.toys.plane.centres` gives the modes, so that coverage can be counted exactly.

    Parameters
    ----------
    modes : how many Gaussians; a square number on a grid.
    layout : where they are.
    std : standard deviation of each, in the units of the plane.
    count : how many points.
    seed : chooses them.
    """

    def __init__(
        self,
        *,
        modes: Annotated[int, Gt(0)] = 8,
        layout: Literal["ring", "grid"] = "ring",
        std: Annotated[float, Ge(0)] = 0.01,
        count: Annotated[int, Ge(2)] = 10_000,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        where = centres(modes, layout)
        self.labels = np.arange(count) % modes
        self.points = (where[self.labels] + std * rng.standard_normal((count, 2))).astype(np.float32)
        self.spec = data_spec("plane", (2,), label_of(modes))
        self.class_names = tuple(str(mode) for mode in range(modes))
        self.fingerprint = hashlib.sha256(self.points.tobytes() + self.labels.tobytes()).hexdigest()

    @classmethod
    def preview(cls, *, modes: int = 8, **_: object) -> DataSpec:
        """What these keys promise."""
        return data_spec("plane", (2,), label_of(modes))

    def __len__(self) -> int:
        return len(self.points)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Points (N, 2) and their modes (N,)."""
        return Batch.labelled(torch.from_numpy(self.points[indices]), torch.from_numpy(self.labels[indices]), indices)
