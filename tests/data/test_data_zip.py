"""The zip data set: the same as the folder, without unpacking, and safe against hostile archives."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganvas.errors import DataError
from ganvas.shelves.data.reading import archive as module
from ganvas.shelves.data.reading.options import ImageOptions
from ganvas.shelves.data.sets.folder import Folder
from ganvas.shelves.data.sets.zip import Zip

Write = Callable[..., list[np.ndarray]]


def png(seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def pack(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def refused(problem: str, **keys: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        Zip(**keys)
    assert problem in caught.value.problem
    assert caught.value.hint
    assert caught.value.where
    return caught.value


def everything(data: Any) -> Any:
    return data.batch(np.arange(len(data)), np.random.default_rng(0))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_it_equals_the_folder(tmp_path: Path, write_images: Write, compression: int) -> None:
    root = tmp_path / "root"
    write_images(root, "dog/1.png", "cat/1.png", "cat/deep/2.png")
    files = {str(each.relative_to(root)): each.read_bytes() for each in root.rglob("*.png")}
    archive = pack(tmp_path / "a.zip", files, compression)
    ours, theirs = Zip(path=archive), Folder(path=root)
    assert ours.class_names == theirs.class_names
    assert (everything(ours).data == everything(theirs).data).all()
    assert (everything(ours).label == everything(theirs).label).all()


def test_a_folder_of_the_archive(tmp_path: Path) -> None:
    members = {f"{split}/{name}/{n}.png": png(n) for split in ("train", "test") for name in "ab" for n in range(2)}
    members["test/c/9.png"] = png(9)
    archive = pack(tmp_path / "a.zip", members)
    assert Zip(path=archive, folder="train").class_names == ("a", "b")
    assert len(Zip(path=archive, folder="test/")) == 5
    assert "data.folder=train" in refused("look like splits", path=archive).hint
    assert "test, train" in refused("no folder 'val'", path=archive, folder="val").hint
    assert Zip(path=archive, folder="train").fingerprint != Zip(path=archive, folder="test").fingerprint


def test_dataset_json_and_limit(tmp_path: Path) -> None:
    members = {f"{n:05}/img.png": png(n) for n in range(10)}
    labels = [[name, n % 2] for n, name in enumerate(members)]
    archive = pack(tmp_path / "a.zip", {**members, "dataset.json": json.dumps({"labels": labels}).encode()})
    data = Zip(path=archive, images=ImageOptions(limit=4))
    assert len(data) == 4
    assert everything(data).label.sum() == 2


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "C:/evil.png", "a\\..\\evil.png"])
def test_names_that_point_outside_are_refused(tmp_path: Path, name: str) -> None:
    archive = pack(tmp_path / "a.zip", {"a.png": png(), "b.png": png(), name: png()})
    before = sorted(tmp_path.rglob("*"))
    assert repr(name) in refused("points outside", path=archive).problem
    assert sorted(tmp_path.rglob("*")) == before


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    zeros = pack(tmp_path / "ratio.zip", {"a.png": png(), "b.png": bytes(17 << 20)}, zipfile.ZIP_DEFLATED)
    assert "'b.png'" in refused("would unpack to", path=zeros).problem
    monkeypatch.setattr(module, "MAX_MEMBER", 100)
    refused("would unpack to", path=pack(tmp_path / "size.zip", {"a.png": png(), "b.png": png()}))
    assert list(cache_folder.rglob("*")) == []


def test_a_member_never_gives_more_than_it_declares(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"a.png": png(), "b.png": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    data = archive.read_bytes()
    assert data.count(struct.pack("<I", 1 << 20)) == 2
    archive.write_bytes(data.replace(struct.pack("<I", 1 << 20), struct.pack("<I", 100)))
    refused("corrupt", path=archive)


def test_bad_archives(tmp_path: Path) -> None:
    refused("no such file", path=tmp_path / "absent.zip")
    assert "data.use=folder" in refused("this is a folder", path=tmp_path).hint
    text = tmp_path / "text.zip"
    text.write_text("hello")
    refused("not a zip archive", path=text)
    whole = pack(tmp_path / "whole.zip", {f"{n}.png": png(n) for n in range(20)})
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.read_bytes()[:-300])
    refused("cut off", path=cut)
    refused("empty", path=pack(tmp_path / "empty.zip", {}))
    refused("no image found among 1 files", path=pack(tmp_path / "text2.zip", {"a.txt": b"x"}))
    refused("only one image", path=pack(tmp_path / "one.zip", {"a.png": png()}))
    refused(
        "class folder b has no images", path=pack(tmp_path / "b.zip", {"a/1.png": png(), "c/2.png": png(), "b/": b""})
    )


def test_an_encrypted_archive(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"a.png": png(), "b.png": png()})
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(signature, at + 1)
    archive.write_bytes(data)
    refused("encrypted", path=archive)


def test_a_damaged_member(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"a.png": png(1), "b.png": png(2), "c.png": png(3)})
    data = bytearray(archive.read_bytes())
    at = data.find(png(2)[50:70])
    data[at] ^= 0xFF
    archive.write_bytes(data)
    assert refused("corrupt", path=archive).where.endswith("a.zip/b.png")
    with pytest.warns(UserWarning, match=r"b\.png"):
        assert Zip(path=archive, corrupt="skip").skipped == ("b.png",)


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    first = Zip(path=pack(tmp_path / "a.zip", {"a.png": png(1), "b.png": png(2)}))
    (tmp_path / "b.zip").write_bytes((tmp_path / "a.zip").read_bytes())
    assert Zip(path=tmp_path / "b.zip").fingerprint == first.fingerprint
    assert Zip(path=pack(tmp_path / "c.zip", {"a.png": png(1), "b.png": png(3)})).fingerprint != first.fingerprint
    assert Zip(path=tmp_path / "a.zip", labels="none").fingerprint != first.fingerprint


def test_cifar_as_jpegs_where_it_is_at_hand() -> None:
    import os

    place = Path(os.environ.get("GANVAS_DATA", Path(__file__).parents[3] / "shared" / "data"), "cifar10-jpeg.zip")
    if not place.is_file():
        pytest.skip(f"{place} is not here; set GANVAS_DATA to the folder that holds it")
    data = Zip(path=place, folder="test", images=ImageOptions(limit=100))
    assert data.spec.shape == (3, 32, 32)
    assert data.class_names[0] == "airplane"
    assert np.bincount(everything(data).label).tolist() == [10] * 10
