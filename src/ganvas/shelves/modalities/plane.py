"""Points of the plane: (2,) in [-1, 1], the field's toy for mode collapse."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ganvas.errors import DataError
from ganvas.files import pictures
from ganvas.parts import modality
from ganvas.types import Modality

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


@modality("plane")
class Plane(Modality):
    """Points (2,) float32 in about [-1, 1], written as CSV without rounding and shown as a scatter plot."""

    axes = ("coordinate",)
    suffixes = (".csv",)
    rows = 500  # a scatter plot takes as many points as there are

    def rounded(self, data: Tensor) -> Tensor:
        """(N, 2) float32 as they are."""
        return data.float()

    def restored(self, rounded: Tensor) -> Tensor:
        """(N, 2) as they are."""
        return rounded

    def limited(self, data: Tensor) -> Tensor:
        """All of them: a Gaussian has no edge."""
        return data

    def arrays(self, data: Tensor) -> dict[str, np.ndarray]:
        """`points` (N, 2) float32."""
        return {"points": data.float().cpu().numpy()}

    def show(self, data: Tensor, columns: int | None = None) -> Picture:
        """A scatter plot of the square [-1.2, 1.2]^2."""
        return pictures.scatter(data)

    def read(self, file: Path, shape: tuple[int, ...]) -> Tensor:
        """One line of comma-separated numbers."""
        try:
            with file.open(encoding="utf-8", newline="") as lines:
                values = [float(value) for value in next(csv.reader(lines))]
        except (OSError, ValueError, StopIteration) as error:
            raise DataError(f"it holds no numbers: {error}", where=str(file)) from None
        if (len(values),) != shape:
            raise DataError(f"it holds {len(values)} numbers, not {shape[0]}", where=str(file))
        return torch.tensor(values)

    def write(self, data: Tensor, files: Sequence[Path]) -> None:
        """One line a point, one point a file."""
        for point, file in zip(data.tolist(), files, strict=True):
            file.write_text(",".join(f"{value:.9g}" for value in point) + "\n", encoding="utf-8")
