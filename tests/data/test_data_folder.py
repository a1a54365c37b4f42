"""The folder data set: labels, selection, order, errors."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganvas.errors import DataError
from ganvas.parts import image_spec
from ganvas.shelves.data.reading import prepare
from ganvas.shelves.data.reading.options import ImageOptions
from ganvas.shelves.data.reading.store import subset
from ganvas.shelves.data.sets.folder import Folder

Write = Callable[..., list[np.ndarray]]


def pixels_of(data: Any) -> np.ndarray:
    batch = data.batch(np.arange(len(data)), np.random.default_rng(0)).data
    return ((batch.numpy() + 1) * 127.5).round().astype(np.uint8).transpose(0, 2, 3, 1)


def refused(problem: str, hint: str, **keys: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        Folder(**keys)
    assert problem in caught.value.problem
    assert hint in caught.value.hint
    assert caught.value.where
    return caught.value


def test_a_flat_folder_round_trips_in_sorted_order(tmp_path: Path, write_images: Write) -> None:
    pixels = write_images(tmp_path, "b.png", "a.PNG", "c.png", size=(5, 7))
    data = Folder(path=tmp_path)
    assert data.spec == image_spec((3, 5, 7))
    assert data.class_names == ()
    assert np.array_equal(pixels_of(data), pixels)
    batch = data.batch(np.array([2, 0, 2]), np.random.default_rng(0))
    assert batch.label is None
    assert batch.data.shape == (3, 3, 5, 7)
    assert float(batch.data.min()) >= -1
    assert float(batch.data.max()) <= 1
    assert (batch.data[0] == batch.data[2]).all()


def test_class_folders(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "dog/1.png", "cat/1.png", "cat/deep/2.png")
    data = Folder(path=tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.spec.num_classes == 2
    label = data.batch(np.arange(3), np.random.default_rng(0)).label
    assert label is not None
    assert label.tolist() == [0, 0, 1]
    assert label.dtype.is_signed
    assert Folder(path=tmp_path, labels="none").spec.num_classes == 0


def test_a_wrapping_folder_is_no_class(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "all/dog/1.png", "all/cat/1.png")
    assert Folder(path=tmp_path).class_names == ("cat", "dog")
    write_images(tmp_path / "flat", "images/1.png", "images/2.png")
    assert Folder(path=tmp_path / "flat").class_names == ()


def test_dataset_json(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "00000/a.png", "00000/b.png", "00001/c.png")
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps({"labels": [["00000/b.png", 0], ["00000/a.png", 4], ["00001/c.png", 1]]}))
    data = Folder(path=tmp_path)
    label = data.batch(np.arange(3), np.random.default_rng(0)).label
    assert label is not None
    assert label.tolist() == [2, 0, 1]
    assert data.class_names == ("0", "1", "4")
    assert data.ignored == 0
    assert Folder(path=tmp_path, labels="folders").class_names == ("00000", "00001")
    file.write_text('{"labels": null}')
    assert Folder(path=tmp_path).class_names == ()
    refused("holds no labels", "labels=none", path=tmp_path, labels="json")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "no entry 'labels'"),
        ('{"labels": [["a.png"]]}', "not pairs"),
        ('{"labels": [["a.png", 0]]}', "1 images have no label, such as b.png"),
        ('{"labels": [["a.png", 0], ["b.png", -1]]}', "run from -1"),
        ('{"labels": [["a.png", 0.5], ["b.png", 1]]}', "whole number"),
        ('{"labels": [["a.png", [0, 1]], ["b.png", [1]]]}', "whole number"),
        ('{"labels": [["a.png", 0], ["b.png", 2000000000]]}', "2000000000"),
    ],
)
def test_a_bad_dataset_json_says_what_is_wrong(tmp_path: Path, write_images: Write, text: str, problem: str) -> None:
    write_images(tmp_path, "a.png", "b.png")
    (tmp_path / "dataset.json").write_text(text)
    assert "dataset.json" in refused(problem, "", path=tmp_path).where


def test_what_is_ignored_is_counted(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "a.png", "b.png", ".hidden.png", "__MACOSX/._a.png", ".git/c.png")
    (tmp_path / "notes.txt").write_text("x")
    data = Folder(path=tmp_path)
    assert (len(data), data.ignored) == (2, 4)


def test_bad_folders(tmp_path: Path, write_images: Write) -> None:
    refused("no such folder", "data.path", path=tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused("empty", ".png", path=empty)
    file = tmp_path / "images.zip"
    file.write_bytes(b"x")
    refused("a file, not a folder", "data.use=zip", path=file)
    (empty / "a.txt").write_text("x")
    refused("no image found among 1 files (1 .txt)", ".png", path=empty)
    write_images(empty, "one.png")
    refused("only one image", "add images", path=empty)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["empty", "images.zip"], "nothing is left behind"


def test_bad_class_folders(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "eel").mkdir()
    refused("class folder eel has no images", "remove it", path=tmp_path)
    (tmp_path / "eel" / "note.txt").write_text("x")
    refused("class folder eel has no images", "remove it", path=tmp_path)
    shutil.rmtree(tmp_path / "eel")
    write_images(tmp_path, "loose.png")
    refused("lie beside 2 folders", "labels=none", path=tmp_path)
    assert len(Folder(path=tmp_path, labels="none")) == 3
    refused("there is no dataset.json", "labels=none", path=tmp_path, labels="json")
    flat = tmp_path / "flat"
    write_images(flat, "a.png", "b.png")
    refused("not lie in class folders", "labels=none", path=flat, labels="folders")


def test_splits_are_not_taken_for_classes(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "train/1.png", "test/1.png")
    refused("look like splits", f"data.path={tmp_path}/train", path=tmp_path)
    assert Folder(path=tmp_path, labels="folders").class_names == ("test", "train")


def test_mixed_sizes_need_a_size(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "a.png", size=(8, 8))
    write_images(tmp_path, "b.png", size=(8, 12))
    error = refused("different sizes", "data.size=64", path=tmp_path)
    assert "a.png is 8x8" in error.problem
    assert "b.png is 12x8" in error.problem
    assert Folder(path=tmp_path, images=ImageOptions(size=(4, 6))).spec.shape == (3, 4, 6)


def test_colour_wins_and_transparency_is_kept_only_where_asked_for(tmp_path: Path) -> None:
    for name, mode in (("a", "L"), ("b", "RGB"), ("c", "RGBA"), ("d", "L")):
        Image.new(mode, (4, 4), 77 if mode == "L" else (77,) * len(mode)).save(tmp_path / f"{name}.png")
    with pytest.warns(UserWarning, match=r"1 of 4 images have an alpha channel, such as c\.png"):
        assert Folder(path=tmp_path).spec.shape == (3, 4, 4)
    data = Folder(path=tmp_path, images=ImageOptions(channels=4))
    assert pixels_of(data)[3, 0, 0].tolist() == [77, 77, 77, 255]
    assert Folder(path=tmp_path, images=ImageOptions(channels=1)).spec.shape == (1, 4, 4)


def test_a_corrupt_image_stops_or_is_skipped(tmp_path: Path, write_images: Write) -> None:
    pixels = write_images(tmp_path, "x/a.png", "x/b.png", "y/c.png", "y/d.png")
    (tmp_path / "x" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    error = refused("corrupt", "data.corrupt=skip", path=tmp_path)
    assert error.where.endswith("x/b.png")
    with pytest.warns(UserWarning, match=r"1 corrupt images are left out: x/b\.png"):
        data = Folder(path=tmp_path, corrupt="skip")
    assert data.skipped == ("x/b.png",)
    assert np.array_equal(pixels_of(data), [pixels[0], pixels[2], pixels[3]])
    label = data.batch(np.arange(3), np.random.default_rng(0)).label
    assert label is not None
    assert label.tolist() == [0, 1, 1]
    for name in ("x/a.png", "y/c.png", "y/d.png"):
        (tmp_path / name).write_bytes(b"no")
    refused("none of the 4 images can be read", "corrupt=stop", path=tmp_path, corrupt="skip")


def test_all_corrupt_images_are_named_in_their_order_however_many_threads(
    tmp_path: Path, write_images: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "SMALL_PIXELS", 0)
    monkeypatch.setattr(prepare, "cores", lambda: 4)
    monkeypatch.setattr(prepare, "TASK_IMAGES", 2)
    write_images(tmp_path, *[f"{number:03}.png" for number in range(40)])
    for number in (11, 12, 30):
        (tmp_path / f"{number:03}.png").write_bytes(b"no")
    problem = refused("3 of 40 images are corrupt: 011.png (", "", path=tmp_path).problem
    assert problem.index("012.png") < problem.index("030.png")


def test_threads_do_not_change_the_order(tmp_path: Path, write_images: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_images(tmp_path, *[f"{number:03}.png" for number in range(150)])
    monkeypatch.setattr(prepare, "SMALL_PIXELS", 0)
    monkeypatch.setattr(prepare, "cores", lambda: 8)
    monkeypatch.setattr(prepare, "TASK_IMAGES", 3)
    monkeypatch.setattr(prepare, "CHUNK_BYTES", 8 * 8 * 3 * 20)
    assert np.array_equal(pixels_of(Folder(path=tmp_path)), pixels)


def test_links_are_followed_and_circles_are_not(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "elsewhere", "1.png", "2.png")
    root = tmp_path / "root"
    write_images(root, "cat/1.png")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "again").symlink_to(root)
    assert Folder(path=root).class_names == ("cat", "dog")
    assert len(Folder(path=root)) == 3


def test_fingerprint(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "x/a.png", "x/b.png", "y/c.png")
    first = Folder(path=tmp_path).fingerprint
    os.utime(tmp_path / "x" / "a.png", (1, 1))
    moved = tmp_path / "copy"
    shutil.copytree(tmp_path / "x", moved / "x")
    shutil.copytree(tmp_path / "y", moved / "y")
    assert Folder(path=moved).fingerprint == first, "neither time nor place matters"
    seen = {first}
    for keys in (
        {"labels": "none"},
        {"corrupt": "skip"},
        {"images": ImageOptions(flip=True)},
        {"images": ImageOptions(size=4)},
        {"images": ImageOptions(channels=1)},
        {"images": ImageOptions(limit=2)},
        {"images": ImageOptions(fit="pad")},
    ):
        seen.add(Folder(path=moved, **keys).fingerprint)  # type: ignore[arg-type]
    (moved / "x" / "b.png").rename(moved / "y" / "b.png")
    seen.add(Folder(path=moved).fingerprint)
    with Image.open(moved / "x" / "a.png") as image:
        pixels = np.array(image)
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(moved / "x" / "a.png")
    seen.add(Folder(path=moved).fingerprint)
    assert len(seen) == 10, "every change of content or option shows"


def test_flips_are_drawn_for_each_image(tmp_path: Path) -> None:
    half = np.zeros((2, 4, 3), np.uint8)
    half[:, :2] = 255
    for name in ("a", "b"):
        Image.fromarray(half).save(tmp_path / f"{name}.png")
    data = Folder(path=tmp_path, images=ImageOptions(flip=True))
    indices = np.zeros(2000, dtype=np.int64)
    first = data.batch(indices, np.random.default_rng(5)).data
    again = data.batch(indices, np.random.default_rng(5)).data
    other = data.batch(indices, np.random.default_rng(6)).data
    assert (first == again).all()
    assert not (first == other).all()
    mirrored = first[:, 0, 0, 0] < 0
    assert 0.45 < float(mirrored.float().mean()) < 0.55
    assert (first[mirrored][:, :, :, 2:] == 1).all()
    still = Folder(path=tmp_path).batch(indices, np.random.default_rng(5)).data
    assert (still[:, 0, 0, 0] == 1).all()


def test_limit_is_even_over_the_classes_fixed_and_nested() -> None:
    labels = np.repeat([0, 1, 2], [50, 5, 45])
    for limit, counts in ((6, [2, 2, 2]), (15, [5, 5, 5]), (25, [10, 5, 10]), (99, [49, 5, 45])):
        chosen = subset(100, labels, limit)
        assert sorted(np.bincount(labels[chosen]).tolist()) == sorted(counts)
        assert (np.diff(chosen) > 0).all()
    assert set(subset(100, labels, 20)) < set(subset(100, labels, 40))
    assert set(subset(100, None, 20)) < set(subset(100, None, 40))
    assert subset(10, None, 3).tolist() == subset(10, None, 3).tolist()
    assert len(subset(10, None, 99)) == 10


def test_preview_promises_what_comes(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, "cat/1.png", "dog/1.png")
    options = ImageOptions(size=(8, 16), channels=1)
    assert Folder.preview(path=tmp_path, images=options) == Folder(path=tmp_path, images=options).spec
    assert Folder.preview(path=tmp_path / "absent") == image_spec((3, 32, 32), 2)
    assert Folder.preview(path=tmp_path, labels="none").num_classes == 0
