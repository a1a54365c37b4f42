"""Rows of a table in a CSV or Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Lt
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.files.columns import described, in_order
from ganvas.files.tables import read_table
from ganvas.parts import data_spec, dataset
from ganvas.shelves.data.reading.store import digest_array, digest_of
from ganvas.shelves.data.reading.windows import Split
from ganvas.types import Batch, Dataset, label_of

_MOST = 256  # categories of a column: a name that is different in every row is no category


@dataset("table")
class Rows(Dataset):
    """Rows of a CSV or Parquet file with a header: numbers scaled to [-1, 1], and categories.

    Data are (N, width) float32, see modality `table`. Columns whose values are all numbers are numbers, others are
    categories, both as they are in the whole file, whatever the split. Parquet files need the extra `tables`.

    Parameters
    ----------
    path : the file.
    columns : these alone, in this order; None: all but the label.
    categorical : columns of numbers that are categories all the same, such as a code.
    label : the column that holds the class; None: no labels. It is no part of the data.
    split : rows to train on, rows to test with, or all; which are which is decided at random, always in the same way.
    test_share : how many rows are for testing.

    Raises
    ------
    DataError : no such file or column, an empty value, with its line, or a column of too many categories or of one.
    """

    def __init__(
        self,
        *,
        path: Path,
        columns: tuple[str, ...] | None = None,
        categorical: tuple[str, ...] = (),
        label: str | None = None,
        split: Split = "train",
        test_share: Annotated[float, Ge(0), Lt(1)] = 0.1,
    ) -> None:
        if not Path(path).expanduser().is_file():
            raise DataError("there is no such file", where=str(path), hint="check the path")
        table = read_table(Path(path).expanduser())
        names = [name for name in columns or table.columns if name != label]
        about = described(table, names, categorical, _MOST)
        rows = rows_of(len(table), split, test_share)
        self.values = about.encode(table)[rows]  # (rows, width)
        if len(rows) == 0:
            raise DataError(f"split {split!r} has no rows", where=str(path), hint="choose another data.test_share")
        self.class_names = ()
        self.labels: NDArray[np.int64] | None = None
        if label is not None:
            words = table.words(label)
            self.class_names = tuple(sorted(set(words), key=in_order))
            self.labels = np.array([self.class_names.index(word) for word in words], dtype=np.int64)[rows]
        node = {
            "use": "table", "columns": list(about.order),
            "ranges": {name: list(range_) for name, range_ in about.ranges.items()},
            "names": {name: list(categories) for name, categories in about.names.items()},
        }  # fmt: skip
        self.spec = data_spec(node, (about.width,), label_of(len(self.class_names)))
        self.fingerprint = digest_of(
            {
                "values": digest_array(self.values), "spec": node, "classes": self.class_names,
                "labels": None if self.labels is None else digest_array(self.labels),
            }
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The rows (n, width) at `indices`."""
        label = None if self.labels is None else torch.from_numpy(self.labels[indices])
        return Batch.labelled(torch.from_numpy(self.values[indices]), label, indices)


def rows_of(count: int, split: Split, test_share: float) -> NDArray[np.int64]:
    """The rows of a split in the order of the file."""
    order = np.random.RandomState(0).permutation(count)  # its streams are frozen: the choice is for ever
    cut = count - round(count * test_share)
    chosen = {"train": order[:cut], "test": order[cut:], "all": order}[split]
    return np.sort(chosen).astype(np.int64)
