"""Images, archives and arrays that cannot be trained on, as a user meets them: through the command line."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def png(size: tuple[int, int] = (8, 8)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (200, 10, 30)).save(stream, "PNG")
    return stream.getvalue()


def noise() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def folder(files: dict[str, bytes]) -> None:
    Path("in").mkdir()
    for name, data in files.items():
        (Path("in") / name).parent.mkdir(parents=True, exist_ok=True)
        (Path("in") / name).write_bytes(data)


def archive(files: dict[str, bytes]) -> None:
    with zipfile.ZipFile("in.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)


def class_without_images() -> None:
    folder({"cats/a.png": png(), "cats/b.png": png()})
    (Path("in") / "dogs").mkdir()


def bomb() -> None:
    archive({"a.png": png(), "b.png": bytes(17 << 20)})


def pixel_bomb() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    folder({"a.png": png(), "b.png": b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"")})


def array(content: object, **options: bool) -> Callable[[], None]:
    return lambda: np.save("in.npy", np.asarray(content), **options)


def arrays(**content: object) -> Callable[[], None]:
    return lambda: np.savez("in.npz", **{name: np.asarray(each) for name, each in content.items()})


def raw(name: str, data: bytes) -> Callable[[], None]:
    return lambda: (Path(name).write_bytes(data), None)[1]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("harmed"),)  # type: ignore[return-value]


def hostile_cifar() -> None:
    with tarfile.open("in.tar.gz", "w:gz") as packed:
        for name in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
            data = pickle.dumps({"label_names": Bomb(), b"data": Bomb(), b"labels": [0]})
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))


PIXELS = np.zeros((4, 8, 8, 3), np.uint8)
FOLDER, ZIP = "data=folder data.path=in", "data=zip data.path=in.zip"
NPY, NPZ = "data=arrays data.path=in.npy", "data=arrays data.path=in.npz"
TWO = {"a.png": png(), "b.png": png()}

# (what it is, how it is made, what is added to `ganvas train digits`, what the DataError says)
BAD = [
    ("missing folder", lambda: None, "data=folder data.path=nowhere", ("nowhere", "there is no such folder")),
    ("missing zip", lambda: None, "data=zip data.path=nowhere.zip", ("nowhere.zip", "there is no such file")),
    ("missing array", lambda: None, "data=arrays data.path=nowhere.npz", ("nowhere.npz", "there is no such file")),
    ("a file as folder", raw("in", b"x"), FOLDER, ("this is a file, not a folder",)),
    ("a folder as zip", lambda: Path("in.zip").mkdir(), ZIP, ("this is a folder", "data.use=folder")),
    ("empty folder", lambda: folder({}), FOLDER, ("it is empty: no image found",)),
    ("no images", lambda: folder({"a.txt": b"x", "b.txt": b"y"}), FOLDER, ("no image found among 2 files", ".txt")),
    ("one image", lambda: folder({"a.png": png()}), FOLDER, ("only one image",)),
    ("class without images", class_without_images, FOLDER, ("the class folder dogs has no images",)),
    ("mixed sizes", lambda: folder({"a.png": png(), "b.png": png((9, 8))}), FOLDER,
     ("different sizes", "9x8", "data.size=64")),
    ("corrupt image", lambda: folder({**TWO, "c.png": noise()[:150]}), FOLDER, ("c.png", "data.corrupt=skip")),
    ("no image at all", lambda: folder({**TWO, "c.png": b"hello"}), FOLDER, ("c.png", "it is not a PNG")),
    ("zero bytes", lambda: folder({**TWO, "c.png": b""}), FOLDER, ("c.png", "it is empty")),
    ("too many pixels", pixel_bomb, FOLDER, ("b.png", "pixels")),
    ("images beside folders", lambda: folder({"a.png": png(), "x/b.png": png()}), FOLDER, ("a.png", "lie beside")),
    ("bad dataset.json", lambda: folder({**TWO, "dataset.json": b"{"}), FOLDER, ("dataset.json", "not valid JSON")),
    ("zip that points out", lambda: archive({**TWO, "../c.png": png()}), ZIP, ("../c.png",)),
    ("zip bomb", bomb, ZIP, ("b.png", "would unpack to 18 MB")),
    ("not a zip", raw("in.zip", b"hello" * 99), ZIP, ("it is not a zip archive",)),
    ("empty zip", lambda: archive({}), ZIP, ("it is empty: no image found",)),
    ("zip without the folder", lambda: archive(TWO), f"{ZIP} data.folder=train", ("it has no folder 'train'",)),
    ("pickle in npy", array([{"a": 1}] * 3), NPY, ("in.npy", "pickle")),
    ("npy cut short", raw("in.npy", b"\x93NUMPY\x01\x00"), NPY, ("in.npy",)),
    ("npz of no images", arrays(pixels=PIXELS), NPZ, ("no array called images",)),
    ("npz of another shape", arrays(images=np.zeros((4, 8))), NPZ, ("(4, 8)",)),
    ("npz with too few labels", arrays(images=PIXELS, labels=[0, 1]), NPZ, ("2 labels", "4 images")),
    ("npz with labels below 0", arrays(images=PIXELS, labels=[0, 1, -1, 0]), NPZ, ("-1",)),
    ("idx of another magic", raw("in.idx", b"\x01\x02\x03\x04" + bytes(64)), "data=idx data.path=in.idx", ("idx",)),
    ("idx cut short", raw("in.idx", struct.pack(">IIII", 0x0803, 9, 8, 8) + bytes(64)), "data=idx data.path=in.idx",
     ("in.idx", "576")),
    ("gzip cut short", raw("in.gz", gzip.compress(bytes(999))[:20]), "data=idx data.path=in.gz", ("in.gz",)),
    ("hostile pickle", hostile_cifar, "data=cifar data.path=in.tar.gz", ("in.tar.gz", "Path")),
    ("not CIFAR", raw("in.tar.gz", b"hello"), "data=cifar data.path=in.tar.gz", ("in.tar.gz",)),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words", "snippets"), [each[1:] for each in BAD], ids=[each[0] for each in BAD])
def test_bad_data(
    refused: Callable[..., None], make: Callable[[], None], words: str, snippets: tuple[str, ...]
) -> None:
    make()
    refused(f"train digits eval= {words} --out run", "DataError", *snippets)


def test_classes_are_asked_for_and_not_there(refused: Callable[..., None]) -> None:
    folder(TWO)
    refused(
        f"train digits eval= {FOLDER} --out run", "BadValue",
        "digits.yaml:5:", "generator.conditioning", "needs labelled data",
    )  # fmt: skip


def test_a_side_that_cannot_be_halved(refused: Callable[..., None]) -> None:
    folder({"a.png": png((18, 17)), "b.png": png((18, 17))})
    refused(f"train digits eval= {FOLDER} networks.generator.conditioning=~ --out run", "BadValue", "17")


def test_pictures_that_no_memory_holds(refused: Callable[..., None]) -> None:
    refused("train digits eval= data.size=1000000 --out run", "UsageError", "not enough memory", "data.size")


def test_images_to_score_are_looked_at_in_the_same_way(refused: Callable[..., None]) -> None:
    folder(TWO)
    archive({**TWO, "../c.png": png()})
    refused("eval in", "DataError", "--against")
    refused("eval in --against nowhere", "UsageError", "there are no images at nowhere")
    refused("eval in --against in.zip", "DataError", "../c.png")
    refused("eval in.zip --against in", "DataError", "../c.png")
    refused("eval in --against in", "UsageError", "the 3 nearest neighbours of 2 samples do not exist")
