"""Text, series and tables read from files: windows, splits, classes, errors with their line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganvas import parts
from ganvas.errors import BadValue, DataError
from ganvas.recipe.check import check_node
from ganvas.toys.grammar import DIFFERENT, LENGTH, number_of, sentences
from ganvas.types import Batch, Dataset


def opened(use: str, path: Path, **keys: Any) -> Dataset:
    return parts.build("dataset", check_node("dataset", {"use": use, "path": str(path), **keys}))


def all_of(dataset: Dataset) -> Batch:
    return dataset.batch(np.arange(len(dataset)), np.random.default_rng(0))


# --------------------------------------------------------------------------------------------------- text


def test_windows_overlap_by_their_stride(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("abcdefghij" * 3, encoding="utf-8")
    data = opened("text", file, length=6, stride=4, test_share=0.2)
    assert len(data) == (24 - 6) // 4 + 1
    show = data.spec.modality.decode
    assert [show(text) for text in all_of(data).data] == ["abcdef", "efghij", "ijabcd", "cdefgh", "ghijab"]
    test = opened("text", file, length=6, stride=4, test_share=0.2, split="test")
    assert [show(text) for text in all_of(test).data] == ["efghij"]
    assert len(opened("text", file, length=6, split="all")) == 5
    assert test.spec == data.spec
    assert len({each.fingerprint for each in (data, test, opened("text", file, length=6))}) == 3


def test_no_window_crosses_files_and_folders_are_classes(tmp_path: Path) -> None:
    for name, content in (("low/a", "aaaab"), ("low/b", "bbbb"), ("up/c", "cc"), ("up/d", "dddd")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.txt").write_text(content, encoding="utf-8")
    data = opened("text", tmp_path, length=4, split="all")
    assert [data.spec.modality.decode(text) for text in all_of(data).data] == ["aaaa", "bbbb", "dddd"]
    assert data.class_names == ("low", "up")
    assert all_of(data).label.tolist() == [0, 0, 1]
    (tmp_path / "loose.txt").write_text("eeee", encoding="utf-8")
    assert opened("text", tmp_path, length=4, split="all").spec.num_classes == 0


def test_text_that_cannot_be_used_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("ab\nabX", encoding="utf-8")
    with pytest.raises(DataError, match="no 'X'") as foreign:
        opened("text", file, length=2, vocabulary=["a", "b", "\n"])
    assert foreign.value.where == f"{file}:2"
    with pytest.raises(DataError, match="a window has 9"):
        opened("text", file, length=9)
    with pytest.raises(BadValue, match="no single character"):
        opened("text", file, length=2, vocabulary=["ab"])
    with pytest.raises(DataError, match="no such file"):
        opened("text", tmp_path / "none.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"ends in \.txt"):
        opened("text", tmp_path / "empty")


# --------------------------------------------------------------------------------------------------- series


def test_series_are_scaled_by_all_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    rows = [f"{i},{10 * math.sin(i):.6f},same" for i in range(21)]
    file.write_text("\n".join(["time,heat,note", *rows]), encoding="utf-8")
    with pytest.raises(DataError, match="'note' does not hold numbers"):
        opened("series", file, length=5)
    data = opened("series", file, columns=["heat", "time"], length=5, stride=3, rate=2.0, test_share=0.0)
    assert len(data) == (21 - 5) // 3 + 1
    assert data.spec.shape == (2, 5)
    assert data.spec.modality.rate == 2
    batch = all_of(data).data
    torch.testing.assert_close(batch[2, 1], torch.arange(6, 11) / 10 - 1.0)
    assert (float(batch[0, 1, 0]), float(all_of(opened("series", file, columns=["time"], length=21, test_share=0.0))
        .data[0, 0, -1])) == (-1, 1)  # fmt: skip
    real = data.spec.modality.in_units(batch)[2, 0]
    np.testing.assert_allclose(real, [10 * math.sin(i) for i in range(6, 11)], atol=1e-5)
    test = opened("series", file, columns=["heat", "time"], length=5, test_share=0.3, split="test")
    assert test.spec.modality == opened("series", file, columns=["heat", "time"], length=5).spec.modality


def test_a_number_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("heat\n1\n2\n\n?\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"'\?', which is no finite number") as refused:
        opened("series", file, columns=["heat"], length=2)
    assert refused.value.where == f"{file}:5"


# --------------------------------------------------------------------------------------------------- tables


@pytest.fixture
def people(tmp_path: Path) -> Path:
    file = tmp_path / "people.csv"
    rows = [
        f"{20 + i % 40},{('Ulm', 'Bonn')[i % 2]},{(3, 10)[i % 3 == 0]},{('cat', 'dog')[i % 5 == 0]}" for i in range(60)
    ]
    file.write_text("\n".join(["age,city,code,kind", *rows]), encoding="utf-8")
    return file


def test_rows_are_numbers_and_categories_with_a_label(people: Path) -> None:
    data = opened("table", people, label="kind", categorical=["code"], split="all")
    assert data.class_names == ("cat", "dog")
    assert data.spec.shape == (1 + 2 + 2,)
    assert data.spec.modality.node()["names"] == {"city": ["Bonn", "Ulm"], "code": ["3", "10"]}
    batch = all_of(data)
    assert batch.data[0].tolist() == [-1, -1, 1, -1, 1]  # 20, Ulm, 10
    assert batch.label[:6].tolist() == [1, 0, 0, 0, 0, 1]
    plain = opened("table", people, columns=["code", "age"], split="all")
    assert plain.spec.shape == (2,)
    assert plain.spec.num_classes == 0


def test_ranges_and_names_may_be_those_of_other_data(people: Path) -> None:
    keys = {"ranges": {"age": [0, 100]}, "names": {"code": ["10", "3", "7"]}}
    data = opened("table", people, columns=["age", "code", "city"], split="all", **keys)
    assert data.spec.modality.node()["ranges"] == {"age": [0.0, 100.0]}
    assert data.spec.modality.node()["names"] == {"code": ["10", "3", "7"], "city": ["Bonn", "Ulm"]}
    torch.testing.assert_close(all_of(data).data[1], torch.tensor([-0.58, -1, 1, -1, 1, -1]))  # 21, code 3, Bonn


def test_tables_of_a_folder_are_read_one_after_the_other(people: Path, tmp_path: Path) -> None:
    header, *rows = people.read_text(encoding="utf-8").splitlines()
    folder = tmp_path / "tables"
    folder.mkdir()
    for number, part in enumerate((rows[:50], rows[50:])):
        (folder / f"{number}.csv").write_text("\n".join([header, *part]), encoding="utf-8")
    whole, pieces = opened("table", people, label="kind"), opened("table", folder, label="kind")
    assert pieces.fingerprint == whole.fingerprint
    (folder / "1.csv").write_text("age,city\n20,Ulm\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column 'code'"):
        opened("table", folder)


def test_splits_share_no_row_and_one_description(people: Path) -> None:
    train, test = (opened("table", people, split=split, test_share=0.25) for split in ("train", "test"))
    assert (len(train), len(test)) == (45, 15)
    assert train.spec == test.spec
    assert train.fingerprint != test.fingerprint
    whole = sorted(map(tuple, all_of(opened("table", people, split="all")).data.tolist()))
    assert sorted(map(tuple, torch.cat([all_of(train).data, all_of(test).data]).tolist())) == whole


def test_tables_that_cannot_be_used_are_refused(people: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'wage'"):
        opened("table", people, label="wage")
    with pytest.raises(DataError, match="no such file"):
        opened("table", tmp_path / "absent.csv")
    with pytest.raises(BadValue, match="'agee' is no column"):
        opened("table", people, ranges={"agee": [0, 1]})
    with pytest.raises(BadValue, match="high is higher"):
        opened("table", people, ranges={"age": [1, 1]})
    file = tmp_path / "b.csv"
    file.write_text("a,b\nx,1\n,2\n", encoding="utf-8")
    with pytest.raises(DataError, match="'a' is empty") as empty:
        opened("table", file, split="all")
    assert empty.value.where == f"{file}:3"
    file.write_text("a,b\nx,1\nx,2\n", encoding="utf-8")
    with pytest.raises(DataError, match="1 categories"):
        opened("table", file, split="all")


# --------------------------------------------------------------------------------------------------- the grammar


def test_every_sentence_is_right_and_fits() -> None:
    texts, labels = sentences(3000, 0)
    assert [number_of(text) for text in texts] == labels.tolist()
    assert max(map(len, texts)) <= LENGTH
    assert len("every calm cloud follows every calm river.") == LENGTH
    assert 0.45 < labels.mean() < 0.55
    assert sentences(10, 0)[0] == texts[:10]
    assert len(set(texts)) > 2900
    assert DIFFERENT == 414_720


@pytest.mark.parametrize(
    "wrong",
    ["", ".", "the dog sees the owl", "the dogs sees the owl.", "the dog see the owl.", "every dogs see the owl.",
     "many dog see the owl.", "the dog the owl.", "the dog sees the owl. .", "dog sees the owl.",
     "the big sees the owl.", "the dog sees the  owl.", "the dog sees the owl calm."],
)  # fmt: skip
def test_what_is_no_sentence_is_seen(wrong: str) -> None:
    assert number_of(wrong) is None


def test_right_sentences_are_read_with_their_number() -> None:
    assert number_of("the dog sees many calm owls.   ") == 0
    assert number_of("the dogs see the owl.") == 1
    data = parts.build("dataset", check_node("dataset", {"use": "grammar", "count": 20}))
    batch = all_of(data)
    assert [number_of(data.spec.modality.decode(text)) for text in batch.data] == batch.label.tolist()
