"""Rows of tables in CSV and Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Lt
from numpy.typing import NDArray

from ganvas.errors import BadValue, DataError
from ganvas.files.columns import Columns, described, in_order
from ganvas.files.tables import SUFFIXES, joined, read_table
from ganvas.parts import data_spec, dataset
from ganvas.shelves.data.reading.store import digest_array, digest_of
from ganvas.shelves.data.reading.windows import Split, files_at
from ganvas.types import Batch, Dataset, label_of

_MOST = 256  # categories of a column: a name that is different in every row is no category


@dataset("table")
class Rows(Dataset):
    """Rows of a CSV or Parquet file with a header, or of a folder of them: numbers scaled to [-1, 1], and categories.

    Data are (N, width) float32, see modality `table`. Columns whose values are all numbers are numbers, others are
    categories, both as they are in the whole file, whatever the split, unless `ranges` or `names` say otherwise.
    Parquet files need the extra `tables`.

    Parameters
    ----------
    path : the file, or a folder whose files are read one after the other in the order of their names.
    columns : these alone, in this order; None: all but the label.
    categorical : columns of numbers that are categories all the same, such as a code.
    ranges : [low, high] of columns of numbers, of which −1 and 1 stand for the ends; others have their own.
    names : the categories of columns, in their order; others have their own.
    label : the column that holds the class; None: no labels. It is no part of the data.
    split : rows to train on, rows to test with, or all; which are which is decided at random, always in the same way.
    test_share : how many rows are for testing.

    Raises
    ------
    DataError : no such file or column, an empty value or one that is no category, with its line, or a column of too
        many categories or of one.
    BadValue : a range or names of a column that is not there.
    """

    def __init__(
        self,
        *,
        path: Path,
        columns: tuple[str, ...] | None = None,
        categorical: tuple[str, ...] = (),
        ranges: Mapping[str, tuple[float, float]] = MappingProxyType({}),
        names: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
        label: str | None = None,
        split: Split = "train",
        test_share: Annotated[float, Ge(0), Lt(1)] = 0.1,
    ) -> None:
        tables = [read_table(file) for file in files_at(Path(path), SUFFIXES)]
        table = tables[0] if len(tables) == 1 else joined(tables, str(path))
        order = [name for name in columns or table.columns if name != label]
        given = {**ranges, **names}
        for key, keys in (("ranges", ranges), ("names", names)):
            if foreign := [name for name in keys if name not in order]:
                raise BadValue(
                    f"{foreign[0]!r} is no column of the data", key=key, hint=f"its columns are {', '.join(order)}"
                )
        others = described(table, [name for name in order if name not in given], categorical, _MOST)
        about = Columns(tuple(order), {**others.ranges, **ranges}, {**others.names, **names})
        words = [] if label is None else table.words(label)
        self.class_names = tuple(sorted(set(words), key=in_order))
        node = {
            "use": "table", "columns": list(about.order),
            "ranges": {name: list(range_) for name, range_ in about.ranges.items()},
            "names": {name: list(categories) for name, categories in about.names.items()},
        }  # fmt: skip
        self.spec = data_spec(node, (about.width,), label_of(len(self.class_names)))
        rows = rows_of(len(table), split, test_share)
        if len(rows) == 0:
            raise DataError(f"split {split!r} has no rows", where=str(path), hint="choose another data.test_share")
        self.values = np.concatenate([about.encode(file_table) for file_table in tables])[rows]  # (rows, width)
        self.labels: NDArray[np.int64] | None = None
        if label is not None:
            self.labels = np.array([self.class_names.index(word) for word in words], dtype=np.int64)[rows]
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
