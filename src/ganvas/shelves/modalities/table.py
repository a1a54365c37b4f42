"""Tables: a datum is one row, (width,) in [-1, 1], of numbers and of categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ganvas.errors import BadValue, DataError
from ganvas.files import plots
from ganvas.files.columns import Columns
from ganvas.files.tables import SUFFIXES, read_table, write_table
from ganvas.parts import modality
from ganvas.types import Modality

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


@modality("table")
class Row(Modality):
    """Rows of a table, (width,) float32: a value for each number, one a category for each column of categories.

    A number u is x = 2 (u − low) / (high − low) − 1; of a column of K categories K values follow each other, 1 for the
    one that it is and −1 for the others. What a model answers between them is read as its largest value. Files hold the
    numbers and the names of categories; Parquet files need the extra `tables`.

    Parameters
    ----------
    columns : the names of all columns in their order.
    ranges : [low, high] of each column of numbers.
    names : the categories of each other column.

    Raises
    ------
    BadValue : a column that is in neither or in both, a range that is none, or a column without two categories.
    """

    axes = ("value",)
    suffixes = SUFFIXES
    rows = 200  # a histogram takes as many data as there are

    def __init__(
        self,
        *,
        columns: tuple[str, ...],
        ranges: Mapping[str, tuple[float, float]] = MappingProxyType({}),
        names: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        both = [*ranges, *names]
        if not columns or sorted(both) != sorted(set(columns)) or len(both) != len(columns):
            raise BadValue("each column has either a range or names of categories", key="columns")
        if any(low >= high for low, high in ranges.values()):
            raise BadValue("a range is [low, high], and high is higher", key="ranges")
        if any(len(set(categories)) < max(2, len(categories)) for categories in names.values()):
            raise BadValue("a column of categories has at least two, by different names", key="names")
        self.columns = Columns(columns, dict(ranges), dict(names))

    def node(self) -> dict[str, Any]:
        order, ranges, names = self.columns.order, self.columns.ranges, self.columns.names
        return {
            "use": self.part_name, "columns": list(order),
            "ranges": {name: list(ranges[name]) for name in order if name in ranges},
            "names": {name: list(names[name]) for name in order if name in names},
        }  # fmt: skip

    def reading(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Columns, their ranges and the names of categories."""
        return {key: value for key, value in self.node().items() if key != "use"}

    # ------------------------------------------------------------------ what every modality does

    def rounded(self, data: Tensor) -> Tensor:
        """(N, width) float32 with decided categories."""
        return torch.from_numpy(self.columns.decided(data.float().cpu().numpy()))

    def restored(self, rounded: Tensor) -> Tensor:
        """(N, width) as they are."""
        return rounded

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Uniform numbers and categories."""
        return self.rounded(super().draw(n, shape, generator))

    def show(self, data: Tensor, columns: int | None = None) -> Picture:
        """A histogram of each column over all data."""
        panels = []
        for name, values in self.columns.decode(data.float().cpu().numpy()).items():
            if name in self.columns.ranges:
                low, high = self.columns.ranges[name]
                shares, ends = plots.shares_of(np.array(values), low, high), (f"{low:.4g}", f"{high:.4g}")
            else:
                kinds = self.columns.names[name]
                shares, ends = [values.count(kind) / max(1, len(values)) for kind in kinds], (kinds[0], kinds[-1])
            panels.append(plots.histogram(name, shares, ends))
        return plots.sheet(panels, None, len(panels))

    def read(self, file: Path, shape: tuple[int, ...]) -> Tensor:
        """A table of one row with these columns, among others."""
        vectors = self.columns.encode(read_table(file))
        if vectors.shape != (1, *shape):
            raise DataError(f"it has {len(vectors)} rows, not one", where=str(file), hint="give one row a file")
        return torch.from_numpy(vectors[0])

    def write(self, data: Tensor, files: Sequence[Path]) -> None:
        """Tables with a header, one row a file; all rows together where there is one file."""
        vectors = data.float().cpu().numpy()
        pieces = [vectors] if len(files) == 1 else list(vectors[:, None])
        for piece, file in zip(pieces, files, strict=True):
            write_table(file, self.columns.decode(piece))
