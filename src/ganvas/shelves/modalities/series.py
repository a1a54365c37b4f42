"""Series: (columns, steps) in [-1, 1], in the units of their files in CSV and Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from annotated_types import Gt
from PIL import Image as PILImage
from torch import Tensor

from ganvas.errors import BadValue, DataError
from ganvas.files import plots
from ganvas.files.tables import SUFFIXES, read_table, write_table
from ganvas.parts import modality
from ganvas.types import Modality

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


@modality("series")
class Series(Modality):
    """Measurements of several columns at equal times, (columns, steps) float32, not rounded.

    Files hold a column of numbers for each name, in its own unit u = low + (x + 1) (high − low) / 2, and a row a step.
    Parquet files need the extra `tables`.

    Parameters
    ----------
    columns : their names.
    low : what −1 stands for, of each column.
    high : what 1 stands for, of each column.
    rate : steps in a second; None: their distance is not known.

    Raises
    ------
    BadValue : not one low and one higher high for each column, or a name that is there twice.
    """

    axes = ("column", "step")
    suffixes = SUFFIXES
    rows = 3

    def __init__(
        self,
        *,
        columns: tuple[str, ...],
        low: tuple[float, ...],
        high: tuple[float, ...],
        rate: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        if not columns or len(set(columns)) < len(columns):
            raise BadValue("each column has a name of its own", key="columns")
        if not len(columns) == len(low) == len(high) or any(a >= b for a, b in zip(low, high, strict=True)):
            raise BadValue("each column has one low and one higher high", key="low")
        self.columns = columns
        self.low = low
        self.high = high
        self.rate = rate
        self._low = torch.tensor(low, dtype=torch.float64)[:, None]  # (columns, 1)
        self._half = (torch.tensor(high, dtype=torch.float64)[:, None] - self._low) / 2

    def node(self) -> dict[str, Any]:
        return {
            "use": self.part_name, "columns": list(self.columns), "low": list(self.low), "high": list(self.high),
            "rate": self.rate,
        }  # fmt: skip

    def reading(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Columns, their bounds and the length."""
        return {"length": shape[1], **{key: value for key, value in self.node().items() if key != "use"}}

    def unlike(self, other: Modality) -> dict[str, tuple[Any, Any]]:
        """The kind, the columns and their bounds: files do not say the rate."""
        return {key: values for key, values in super().unlike(other).items() if key != "rate"}

    # ------------------------------------------------------------------ units

    def scaled(self, values: Tensor) -> Tensor:
        """Values (..., columns, steps) in their units as data."""
        return ((values.double() - self._low) / self._half - 1).float()

    def in_units(self, data: Tensor) -> Tensor:
        """Data (..., columns, steps) in the units of their files, float64."""
        return self._low + (data.double().cpu() + 1) * self._half

    # ------------------------------------------------------------------ what every modality does

    def rounded(self, data: Tensor) -> Tensor:
        """(N, columns, steps) float32 as they are."""
        return data.float()

    def restored(self, rounded: Tensor) -> Tensor:
        """(N, columns, steps) as they are."""
        return rounded

    def show(self, data: Tensor, columns: int | None = None) -> Picture:
        """A small plot of lines for each datum, and the names of the lines below."""
        plot = plots.sheet([plots.lines(series) for series in data.float().cpu().numpy()], columns, len(data))
        names = plots.legend(self.columns, plot.width)
        picture = PILImage.new("RGB", (plot.width, plot.height + names.height))
        picture.paste(plot, (0, 0))
        picture.paste(names, (0, plot.height))
        return picture

    def read(self, file: Path, shape: tuple[int, ...]) -> Tensor:
        """A table with these columns, among others, and as many rows as the shape has steps."""
        table = read_table(file)
        values = np.stack([table.numbers(name) for name in self.columns])  # (columns, steps)
        if values.shape != tuple(shape):
            raise DataError(f"it has {values.shape[1]} rows, not {shape[1]}", where=str(file), hint="cut it")
        return self.scaled(torch.from_numpy(values))

    def write(self, data: Tensor, files: Sequence[Path]) -> None:
        """Tables in their units, one datum a file."""
        for values, file in zip(self.in_units(data).numpy(), files, strict=True):
            write_table(file, {name: row.tolist() for name, row in zip(self.columns, values, strict=True)})

    def arrays(self, data: Tensor) -> dict[str, np.ndarray]:
        """The data, and what their values mean."""
        return {
            **super().arrays(data), "columns": np.array(self.columns), "low": np.array(self.low),
            "high": np.array(self.high),
        }  # fmt: skip
