"""Tables in files: CSV with a header, without any extra, and Parquet through pyarrow."""

from __future__ import annotations

import csv
import importlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError, MissingExtra
from ganvas.files.files import write_bytes
from ganvas.files.reading import content_of

SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Table:
    """Columns of a file by name, in its order: text where it is CSV, else whatever the file holds.

    Attributes
    ----------
    where : the file.
    lines : of each row in the file, counted from 1; of Parquet, the number of the row.
    """

    columns: Mapping[str, Sequence[Any]]
    where: str
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str) -> Sequence[Any]:
        """The values of a column.

        Raises
        ------
        DataError : there is none of this name.
        """
        if name not in self.columns:
            raise DataError(
                f"it has no column {name!r}", where=self.where, hint=f"its columns are {', '.join(self.columns)}"
            )
        return self.columns[name]

    def words(self, name: str) -> list[str]:
        """The values of a column as text.

        Raises
        ------
        DataError : one is empty; its line is named.
        """
        texts = ["" if value is None else str(value).strip() for value in self.column(name)]
        if "" in texts:
            raise DataError(f"column {name!r} is empty", where=f"{self.where}:{self.lines[texts.index('')]}")
        return texts

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The values of a column as numbers.

        Raises
        ------
        DataError : one is none, or is not finite; its line is named.
        """
        values = self.column(name)
        numbers = np.array([number(value) for value in values], dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            raise DataError(
                f"column {name!r} holds {values[bad[0]]!r}, which is no finite number",
                where=f"{self.where}:{self.lines[bad[0]]}", hint="mend the row, or leave the column out",
            )  # fmt: skip
        return numbers

    def is_numeric(self, name: str) -> bool:
        """Whether every value of a column is a finite number."""
        return all(math.isfinite(number(value)) for value in self.column(name))


def number(value: Any) -> float:
    """A value as a number; NaN where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def read_table(file: Path) -> Table:
    """The table in a CSV or Parquet file.

    Raises
    ------
    DataError : it cannot be read, has no header or no rows, or rows of other lengths; the line is named.
    MissingExtra : it is Parquet, and pyarrow is not installed.
    """
    table = _read_parquet(file) if file.suffix.lower() == ".parquet" else _read_csv(file)
    if not len(table):
        raise DataError("it has no rows", where=str(file), hint="give a table with a header and rows")
    return table


def joined(tables: Sequence[Table], where: str) -> Table:
    """The rows of several tables, one after the other, with the columns of the first.

    Raises
    ------
    DataError : another one lacks a column.
    """
    columns = {name: [value for table in tables for value in table.column(name)] for name in tables[0].columns}
    return Table(columns, where, range(1, sum(map(len, tables)) + 1))


def write_table(file: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal lengths; floats as short as they can be read again exactly in float32.

    Raises
    ------
    MissingExtra : it is Parquet, and pyarrow is not installed.
    """
    if file.suffix.lower() == ".parquet":
        arrow, parquet = _arrow(file), importlib.import_module("pyarrow.parquet")
        sink = arrow.BufferOutputStream()
        parquet.write_table(arrow.table({name: list(values) for name, values in columns.items()}), sink)
        write_bytes(file, sink.getvalue().to_pybytes())
        return
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    rows.writerows([_plain(value) for value in row] for row in zip(*columns.values(), strict=True))
    write_bytes(file, text.getvalue().encode())


def _plain(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _read_csv(file: Path) -> Table:
    try:
        content = content_of(file, error=DataError).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if file.suffix.lower() not in SUFFIXES:
            raise DataError(
                "it is no table", where=str(file), hint=f"tables are {' or '.join(SUFFIXES)} files"
            ) from None
        raise DataError(f"it cannot be read: {error}", where=str(file), hint="save it as UTF-8 CSV") from None
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    header: list[str] = []
    rows, lines = [], []
    try:
        for row in reader:
            if not row:
                continue
            if not header:
                header = [name.strip() for name in row]
                continue
            if len(row) != len(header):
                raise DataError(
                    f"the row has {len(row)} values, the header {len(header)}", where=f"{file}:{reader.line_num}",
                    hint="mend the row",
                )  # fmt: skip
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"it is no CSV: {error}", where=f"{file}:{reader.line_num}", hint="save it again") from None
    if not header or "" in header or len(set(header)) < len(header):
        raise DataError(
            "its first line does not name every column by a name of its own", where=f"{file}:1", hint="add a header"
        )
    return Table({name: [row[i] for row in rows] for i, name in enumerate(header)}, str(file), lines)


def _read_parquet(file: Path) -> Table:
    arrow, parquet = _arrow(file), importlib.import_module("pyarrow.parquet")
    try:
        arrow_table = parquet.read_table(file)
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"it is no Parquet file: {error}", where=str(file), hint="save it again") from None
    columns = {name: arrow_table[name].to_pylist() for name in arrow_table.column_names}
    return Table(columns, str(file), range(1, arrow_table.num_rows + 1))


def _arrow(file: Path) -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingExtra(
            f"Parquet files need the package pyarrow ({error})", where=str(file),
            hint="pip install 'ganvas[tables]', or give CSV",
        ) from None  # fmt: skip
