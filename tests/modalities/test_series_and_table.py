"""Series and tables: units, categories, files and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ganvas import parts
from ganvas.errors import BadValue, DataError

SERIES = {"use": "series", "columns": ["heat", "load"], "low": [-10.0, 0.0], "high": [30.0, 2.0], "rate": 5.0}
TABLE = {
    "use": "table", "columns": ["age", "city", "code"], "ranges": {"age": [20.0, 60.0]},
    "names": {"city": ["Bonn", "Köln, linksrheinisch", "Ulm"], "code": ["1", "2"]},
}  # fmt: skip


def file_of(kind: str, folder: Path) -> Path:
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet files need the extra 'tables'")
    return folder / f"data.{kind}"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_series_are_written_in_their_units_and_come_back(kind: str, tmp_path: Path) -> None:
    modality, file = parts.modality_of(SERIES), file_of(kind, tmp_path)
    data = modality.draw(1, (2, 6), torch.Generator().manual_seed(0))
    data[0, :, 0] = torch.tensor([-1.0, 1.0])
    modality.write(data, [file])
    if kind == "csv":
        assert file.read_text(encoding="utf-8").splitlines()[:2] == ["heat,load", "-10,2"]
    torch.testing.assert_close(modality.read(file, (2, 6)), data[0], rtol=0, atol=1e-6)
    with pytest.raises(DataError, match="6 rows, not 5"):
        modality.read(file, (2, 5))
    assert torch.equal(modality.restored(modality.rounded(data)), data)


def test_a_series_shows_each_column_as_a_line() -> None:
    modality = parts.modality_of(SERIES)
    flat = np.asarray(modality.show(torch.zeros(4, 2, 9), 2))
    moving = np.asarray(modality.show(torch.linspace(-1, 1, 9).expand(4, 2, 9), 2))
    assert flat.shape == moving.shape
    assert not np.array_equal(flat, moving)
    assert parts.modality_of(SERIES) == modality
    assert modality.rate == 5
    assert set(modality.arrays(torch.zeros(1, 2, 3))) == {"data", "columns", "low", "high"}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_hold_real_values_and_the_names_of_categories(kind: str, tmp_path: Path) -> None:
    modality, file = parts.modality_of(TABLE), file_of(kind, tmp_path)
    data = torch.tensor([[-0.5, -1, 1, -1, 1, -1], [0.25, 1, -1, -1, -1, 1]])
    modality.write(data, [tmp_path / "all.csv"])  # one file takes all rows
    assert (tmp_path / "all.csv").read_text(encoding="utf-8").splitlines() == [
        "age,city,code", '30,"Köln, linksrheinisch",1', "45,Bonn,2",
    ]  # fmt: skip
    modality.write(data[:1], [file])
    torch.testing.assert_close(modality.read(file, (6,)), data[0])
    with pytest.raises(DataError, match="2 rows, not one"):
        modality.read(tmp_path / "all.csv", (6,))
    blurred = data + 0.3 * torch.tensor([0, 1, -1, 1, -1, 1])
    assert torch.equal(modality.rounded(blurred), data)
    assert torch.equal(modality.rounded(modality.rounded(blurred)), modality.rounded(blurred))
    assert parts.modality_of(modality.node()) == modality


def test_foreign_values_are_named_with_their_line(tmp_path: Path) -> None:
    modality, file = parts.modality_of(TABLE), tmp_path / "row.csv"
    for content, problem, line in (
        ("age,city,code\n30,Rom,1\n", "no category 'Rom'", ":2"),
        ("age,city,code\nold,Ulm,1\n", "'old', which is no finite number", ":2"),
        ("age,city,code\n30,Ulm,1\n30,Ulm\n", "2 values, the header 3", ":3"),
        ("age,city\n30,Ulm\n", "no column 'code'", ""),
        ("age,age,code\n30,Ulm,1\n", "a name of its own", ":1"),
        ("age,city,code\n", "no rows", ""),
    ):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=problem) as refused:
            modality.read(file, (6,))
        assert refused.value.where == f"{file}{line}"


def test_a_file_of_another_kind_is_no_table_whatever_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "row.npz"
    np.savez(file, values=np.full(6, 1.7))
    with pytest.raises(DataError, match="it is no table") as refused:
        parts.modality_of(TABLE).read(file, (6,))
    assert refused.value.hint == "tables are .csv or .parquet files"
    file = tmp_path / "row.csv"
    file.write_bytes("age,city,code\n30,Köln,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read") as refused:
        parts.modality_of(TABLE).read(file, (6,))
    assert refused.value.hint == "save it as UTF-8 CSV"


def test_a_histogram_shows_how_often_values_come() -> None:
    modality = parts.modality_of(TABLE)
    few = modality.show(modality.rounded(torch.zeros(4, 6)))
    many = modality.show(modality.draw(400, (6,), torch.Generator().manual_seed(0)))
    assert few.size == many.size
    assert not np.array_equal(np.asarray(few), np.asarray(many))


def test_keys_that_do_not_fit_are_refused() -> None:
    for wrong in (
        {**SERIES, "low": [0.0]}, {**SERIES, "high": [30.0, 0.0]}, {**SERIES, "columns": ["a", "a"]},
        {**TABLE, "columns": ["age", "city"]}, {**TABLE, "ranges": {"age": [1.0, 1.0]}},
        {**TABLE, "names": {"city": ["Ulm"], "code": ["1", "2"]}},
    ):  # fmt: skip
        with pytest.raises(BadValue):
            parts.modality_of(wrong)
