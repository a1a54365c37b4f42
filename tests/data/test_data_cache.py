"""The cache: used when whole, never when half-written, and never left untidy."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganvas.errors import DataError
from ganvas.shelves.data.reading import cache, prepare
from ganvas.shelves.data.reading.options import ImageOptions
from ganvas.shelves.data.reading.store import Prepared
from ganvas.shelves.data.sets import folder as folder_module
from ganvas.shelves.data.sets.folder import Folder

Write = Callable[..., list[np.ndarray]]
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), dtype=np.uint8)


@pytest.fixture(autouse=True)
def always_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "WORTH_CACHING", 0)


def described(count: int) -> Prepared:
    return Prepared(PIXELS[:0], np.arange(count), tuple("abcde"), ("x.png",), 3)


def chunks() -> Iterator[np.ndarray]:
    yield PIXELS[:2]
    yield PIXELS[2:]


def test_what_is_saved_is_loaded(cache_folder: Path) -> None:
    assert cache.load("key") is None
    cache.save("key", (3, 4, 6), chunks(), described)
    found = cache.load("key")
    assert found is not None
    assert np.array_equal(found.pixels, PIXELS)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 3, 4]
    assert (found.class_names, found.skipped, found.ignored) == (tuple("abcde"), ("x.png",), 3)
    assert sorted(each.name for each in (cache_folder / "data" / "key").iterdir()) == ["images.npy", "index.json"]
    assert np.array_equal(np.load(cache_folder / "data" / "key" / "images.npy"), PIXELS)


def test_large_sets_are_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "IN_MEMORY", 10)
    cache.save("key", (3, 4, 6), chunks(), described)
    found = cache.load("key")
    assert found is not None
    assert isinstance(found.pixels, np.memmap)
    assert not found.pixels.flags.writeable


@pytest.mark.parametrize("damage", ["no index", "cut", "empty index", "other format", "longer"])
def test_a_damaged_entry_does_not_exist(cache_folder: Path, damage: str) -> None:
    cache.save("key", (3, 4, 6), chunks(), described)
    images, index = (cache_folder / "data" / "key" / name for name in ("images.npy", "index.json"))
    if damage == "no index":
        index.unlink()
    elif damage == "cut":
        images.write_bytes(images.read_bytes()[:-7])
    elif damage == "longer":
        images.write_bytes(images.read_bytes() + b"x")
    elif damage == "empty index":
        index.write_text("")
    else:
        index.write_text(json.dumps({**json.loads(index.read_text()), "format": 0}))
    assert cache.load("key") is None
    cache.save("key", (3, 4, 6), chunks(), described)
    assert cache.load("key") is not None


def test_a_crash_leaves_nothing_that_is_picked_up(cache_folder: Path) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield PIXELS[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.save("key", (3, 4, 6), failing(), described)
    assert list((cache_folder / "data").iterdir()) == []
    assert cache.load("key") is None


def test_many_writers_of_one_entry_do_not_disturb_each_other() -> None:
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(cache.save, "key", (3, 4, 6), chunks(), described) for _ in range(24)]:
            done.result()
    found = cache.load("key")
    assert found is not None
    assert np.array_equal(found.pixels, PIXELS)


def test_old_leftovers_are_swept_and_young_ones_kept(cache_folder: Path) -> None:
    place = cache_folder / "data" / "key"
    place.mkdir(parents=True)
    old, young = place / "images.npy.1-a.tmp", place / "images.npy.2-b.tmp"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * cache.STALE,) * 2)
    cache.save("key", (3, 4, 6), chunks(), described)
    assert not old.exists()
    assert young.exists()
    assert cache.load("key") is not None


def test_a_second_start_does_not_decode(tmp_path: Path, write_images: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "set", "cat/1.png", "dog/1.png", "dog/2.png")
    options = ImageOptions(size=4)
    first = Folder(path=tmp_path / "set", images=options)

    def never(data: bytes) -> Any:
        raise AssertionError("decoded again")

    monkeypatch.setattr(folder_module, "decoded", never)
    again = Folder(path=tmp_path / "set", images=options)
    mirrored = Folder(path=tmp_path / "set", images=ImageOptions(size=4, flip=True))  # flips do not shape the entry
    assert again.fingerprint == first.fingerprint != mirrored.fingerprint
    indices, rng = np.arange(3), np.random.default_rng(0)
    assert (again.batch(indices, rng).data == first.batch(indices, rng).data).all()
    assert again.class_names == ("cat", "dog")
    with pytest.raises(AssertionError, match="decoded again"):
        Folder(path=tmp_path / "set", images=ImageOptions(size=5))


def test_skipped_images_are_remembered(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "set", "1.png", "2.png", "3.png")
    (tmp_path / "set" / "2.png").write_bytes(b"no")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"2\.png"):
            assert len(Folder(path=tmp_path / "set", corrupt="skip")) == 2


def test_an_error_leaves_no_entry(tmp_path: Path, write_images: Write, cache_folder: Path) -> None:
    write_images(tmp_path / "set", "1.png", "2.png", "3.png")
    (tmp_path / "set" / "3.png").write_bytes(b"no")
    with pytest.raises(DataError):
        Folder(path=tmp_path / "set")
    assert [each for each in cache_folder.rglob("*") if each.is_file()] == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, write_images: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("GANVAS_CACHE", str(blocked))
    write_images(tmp_path / "set", "1.png", "2.png")
    assert len(Folder(path=tmp_path / "set")) == 2, "small sets do without"
    monkeypatch.setattr(cache, "IN_MEMORY", 10)
    with pytest.raises(DataError, match="cannot be written") as caught:
        Folder(path=tmp_path / "set")
    assert "GANVAS_CACHE" in caught.value.hint


def test_a_mapped_set_gives_writable_batches(
    tmp_path: Path, write_images: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "IN_MEMORY", 10)
    write_images(tmp_path / "set", "1.png", "2.png")
    data = Folder(path=tmp_path / "set", images=ImageOptions(flip=True))
    batch = data.batch(np.array([1, 0, 1]), np.random.default_rng(0))
    batch.data.zero_()
    assert data.batch(np.array([1]), np.random.default_rng(0)).data.abs().sum() > 0
