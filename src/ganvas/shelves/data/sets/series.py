"""Windows of series of measurements in CSV and Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.files.tables import SUFFIXES, read_table
from ganvas.parts import data_spec, dataset
from ganvas.shelves.data.reading.store import digest_array, digest_of
from ganvas.shelves.data.reading.windows import Split, classes_of, files_at, part_of, windows
from ganvas.types import Batch, Dataset, label_of


@dataset("series")
class Series(Dataset):
    """Windows of the numeric columns of a CSV or Parquet file with a header, or of a folder of them.

    Data are (N, columns, length) float32 in [-1, 1]. Window i of a file begins `i * stride` rows after its first.
    Folders in the folder are classes. Parquet files need the extra `tables`.

    Parameters
    ----------
    path : a file, or a folder of them.
    columns : these alone; None: all, which must be numeric then.
    length : rows of a window.
    stride : rows from one window's start to the next; None: windows lie one beside the other.
    rate : rows in a second; None: not known.
    low : what −1 stands for, of each column; None: its least value in all files, whatever the split.
    high : what 1 stands for, of each column; None: its largest value.
    split : the first part of each file to train on, its end to test with, or all of it.
    test_share : how much of each file is its end.

    Raises
    ------
    DataError : no such file or column, a value that is no number, with its line, or no file that is long enough.
    BadValue : bounds that do not fit the columns.
    """

    def __init__(
        self,
        *,
        path: Path,
        columns: tuple[str, ...] | None = None,
        length: Annotated[int, Gt(0)] = 128,
        stride: Annotated[int, Gt(0)] | None = None,
        rate: Annotated[float, Gt(0)] | None = None,
        low: tuple[float, ...] | None = None,
        high: tuple[float, ...] | None = None,
        split: Split = "train",
        test_share: Annotated[float, Ge(0), Lt(1)] = 0.1,
    ) -> None:
        files = files_at(path, SUFFIXES)
        tables = [read_table(file) for file in files]
        names = columns or tuple(tables[0].columns)
        words = [name for name in tables[0].columns if name in names and not tables[0].is_numeric(name)]
        if words and columns is None:
            raise DataError(
                f"column {words[0]!r} does not hold numbers alone", where=tables[0].where,
                hint=f"name those that do: data.columns=[{', '.join(name for name in names if name not in words)}]",
            )  # fmt: skip
        values = [np.stack([table.numbers(name) for name in names]) for table in tables]  # (columns, rows) each
        lowest = np.min([array.min(axis=1) for array in values], axis=0)
        top = np.max([array.max(axis=1) for array in values], axis=0)
        same = np.where(lowest == top, 0.5, 0)  # a column that never moves lies in the middle
        node = {
            "use": "series", "columns": list(names), "rate": rate,
            "low": list(low) if low else (lowest - same).tolist(),
            "high": list(high) if high else (top + same).tolist(),
        }  # fmt: skip
        self.class_names = classes_of(path, files)
        self.spec = data_spec(node, (len(names), length), label_of(len(self.class_names)))
        least, most = np.array(node["low"])[:, None], np.array(node["high"])[:, None]
        parts = [2 * (array - least) / (most - least) - 1 for array in values]
        pieces = [scaled[:, part_of(scaled.shape[1], split, test_share)].astype(np.float32) for scaled in parts]
        self.values = np.concatenate(pieces, axis=1)  # (columns, rows of all files)
        self.windows = windows([piece.shape[1] for piece in pieces], length, stride or length, str(path))
        self.labels = self.windows.labels(self.class_names, files)
        self.fingerprint = digest_of(
            {
                "values": digest_array(self.values), "rows": [piece.shape[1] for piece in pieces], "spec": node,
                "classes": [file.parent.name for file in files] if self.class_names else [],
                "windows": [length, stride or length], "split": [split, test_share],
            }
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.windows.starts)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The windows (n, columns, length) at `indices`."""
        rows = self.windows.rows(indices, self.spec.shape[1])  # (n, length)
        data = torch.from_numpy(self.values[:, rows].transpose(1, 0, 2).copy())
        label = None if self.labels is None else torch.from_numpy(self.labels[indices])
        return Batch.labelled(data, label, indices)
