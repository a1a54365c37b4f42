"""Readers × oddities: what one reader of data takes or refuses, every other does, too."""

from __future__ import annotations

import io
import json
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganvas.errors import DataError
from ganvas.shelves.data.sets.arrays import Arrays
from ganvas.shelves.data.sets.folder import Folder
from ganvas.shelves.data.sets.webdataset import WebDataset
from ganvas.shelves.data.sets.zip import Zip

Members = Mapping[str, bytes]


def png(grey: int = 90, mode: str = "RGB", pages: int = 1, kind: str = "PNG") -> bytes:
    rng = np.random.default_rng(grey)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).convert(mode) for _ in range(pages)
    ]  # fmt: skip
    buffer = io.BytesIO()
    pictures[0].save(buffer, kind, **({"save_all": True, "append_images": pictures[1:]} if pages > 1 else {}))
    return buffer.getvalue()


def in_folder(root: Path, members: Members, **keys: Any) -> Folder:
    for name, content in members.items():
        file = root / "set" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return Folder(path=root / "set", **keys)


def in_zip(root: Path, members: Members, **keys: Any) -> Zip:
    with zipfile.ZipFile(root / "set.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return Zip(path=root / "set.zip", **keys)


READERS: list[Callable[..., Any]] = [in_folder, in_zip]
FOUR = {f"{number}.png": png(number) for number in range(4)}


def labelled(labels: Any, names: Any = FOUR, encoding: str = "utf-8") -> Members:
    pairs = [[name, label] for name, label in zip(names, labels, strict=True)]
    return {**FOUR, "dataset.json": json.dumps({"labels": pairs}, ensure_ascii=False).encode(encoding)}


def labels_of(data: Any) -> list[str]:
    label = data.batch(np.arange(len(data)), np.random.default_rng(0)).label
    return [data.class_names[number] for number in label.tolist()]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("members", "classes"),
    [
        (labelled([1, 2, 1, 2]), ["1", "2", "1", "2"]),
        (labelled([0, 0, 5, 5]), ["0", "0", "5", "5"]),
        (labelled([0, 1, 0, 1], [f".\\{name}" for name in FOUR]), ["0", "1", "0", "1"]),
        (labelled([0, 1, 0, 1], encoding="utf-8-sig"), ["0", "1", "0", "1"]),
        (labelled([0, 1, 0, 1], encoding="utf-16"), ["0", "1", "0", "1"]),
        (labelled([0, 0, 0, 0]), ["0"] * 4),
    ],
    ids=["from one", "gap", "backslashes", "byte order mark", "UTF-16", "one class"],
)
def test_labels(read: Callable[..., Any], members: Members, classes: list[str], tmp_path: Path) -> None:
    data = read(tmp_path, members)
    assert labels_of(data) == classes
    assert sorted(set(classes)) == list(data.class_names), "no class is without a datum"


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("in_place", "in_file"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_in_two_forms(read: Callable[..., Any], in_place: Any, in_file: Any, tmp_path: Path) -> None:
    names = [f"é{number}.png" for number in range(4)]
    pairs = [[unicodedata.normalize(in_file, name), i % 2] for i, name in enumerate(names)]
    members = {unicodedata.normalize(in_place, name): png(i) for i, name in enumerate(names)}
    data = read(tmp_path, {**members, "dataset.json": json.dumps({"labels": pairs}).encode()})
    assert labels_of(data) == ["0", "1", "0", "1"]


@pytest.mark.parametrize("read", READERS)
def test_contradicting_labels_stop(read: Callable[..., Any], tmp_path: Path) -> None:
    pairs = [[name, 0] for name in FOUR] + [["0.png", 1]]
    with pytest.raises(DataError, match=r"0\.png has two labels, 0 and 1"):
        read(tmp_path, {**FOUR, "dataset.json": json.dumps({"labels": pairs}).encode()})


@pytest.mark.parametrize("read", READERS)
def test_what_is_named_and_missing_stops_or_is_left_out(read: Callable[..., Any], tmp_path: Path) -> None:
    members = labelled([0, 1, 0, 1, 1], [*FOUR, "gone.png"])
    with pytest.raises(DataError, match=r"missing: gone\.png"):
        read(tmp_path, members)
    with pytest.warns(UserWarning, match=r"gone\.png"):
        data = read(tmp_path, members, corrupt="skip")
    assert data.census.left_out == {"named and missing": 1}
    assert (data.census.found, data.census.used) == (5, 4)


@pytest.mark.parametrize("read", READERS)
def test_all_corrupt_files_are_told_at_once(read: Callable[..., Any], tmp_path: Path) -> None:
    members = {**FOUR, "1.png": b"no", "3.png": b""}
    with pytest.raises(DataError, match=r"2 of 4 images are corrupt: 1\.png \(.*3\.png \("):
        read(tmp_path, members)
    with pytest.warns(UserWarning, match="2 corrupt"):
        assert read(tmp_path, members, corrupt="skip").census.left_out == {"corrupt": 2}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"x.tif": png(7, pages=5, kind="TIFF")}, "1 of 5 files have several pages or frames, 5 in all, such as x.tif"),
        ({"x.png": png(7, "RGBA")}, "1 of 5 images have an alpha channel, such as x.png"),
        ({"x.gif": png(7, "P", kind="GIF"), "y.heic": b"ftyp"}, "left out: 1 .gif, 1 .heic"),
    ],
    ids=["pages", "alpha", "unread kinds"],
)
def test_what_people_do_not_expect_is_said(
    read: Callable[..., Any], more: Members, words: str, tmp_path: Path
) -> None:  # fmt: skip
    with pytest.warns(UserWarning) as caught:
        data = read(tmp_path, {**FOUR, **more})
    assert any(words in str(warning.message) for warning in caught)
    assert data.spec.shape == (3, 8, 8), "colours are RGB unless others are asked for"
    assert any(words in note for note in data.census.notes)


@pytest.mark.parametrize("read", READERS)
def test_a_single_class_folder_is_one_class(read: Callable[..., Any], tmp_path: Path) -> None:
    data = read(tmp_path, {f"cat/{name}": content for name, content in FOUR.items()}, labels="folders")
    assert data.class_names == ("cat",)
    assert data.census.classes == {"cat": 4}


def test_a_zip_of_windows_has_folders(tmp_path: Path) -> None:
    data = in_zip(tmp_path, {f"{'cat' if i % 2 else 'dog'}\\{i}.png": png(i) for i in range(4)})
    assert data.class_names == ("cat", "dog")


def test_links_to_nowhere_stop_or_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "x.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match="missing: a link to nowhere"):
        in_folder(tmp_path, FOUR)
    with pytest.warns(UserWarning, match=r"x\.png"):
        assert len(in_folder(tmp_path, FOUR, corrupt="skip")) == 4


@pytest.mark.parametrize(
    ("array", "range_"),
    [
        (np.arange(64).reshape(4, 4, 4).astype(np.uint8) % 2, "0..1"),
        (np.arange(64).reshape(4, 4, 4).astype(np.uint16) * 65, "0..4095"),
    ],
    ids=["mask", "12 bits"],
)
def test_nearly_black_arrays_are_said_and_the_remedy_works(array: np.ndarray, range_: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.warns(UserWarning, match=f"data.range={range_}"):
        Arrays(path=tmp_path / "a.npy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = Arrays(path=tmp_path / "a.npy", range_=range_).batch(np.arange(4), np.random.default_rng(0)).data
    assert (data.min(), data.max() > 0.99) == (-1, True)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_order_of_bytes_is_no_content(dtype: Any, tmp_path: Path) -> None:
    array = (np.random.default_rng(0).random((4, 5, 5)) * (1 if dtype is np.float32 else 65535)).astype(dtype)
    seen = []
    for order in "<>":
        np.save(tmp_path / f"a{order}.npy", array.astype(array.dtype.newbyteorder(order)))
        data = Arrays(path=tmp_path / f"a{order}.npy")
        seen.append((data.fingerprint, data.batch(np.arange(4), np.random.default_rng(0)).data))
    assert seen[0][0] == seen[1][0]
    assert (seen[0][1] == seen[1][1]).all()


def test_shards_with_dotted_names_and_a_folder_that_looks_like_a_pattern(tmp_path: Path) -> None:
    import tarfile

    def pack(place: Path, members: Members) -> str:
        place.mkdir()
        with tarfile.open(place / "0.tar", "w") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return str(place)

    assert len(WebDataset(path=pack(tmp_path / "a{b}", FOUR))) == 4
    dotted = pack(tmp_path / "b", {**FOUR, "photo.2021.png": png(9)})
    with pytest.raises(DataError, match=r"photo\.2021\.png"):
        WebDataset(path=dotted)
