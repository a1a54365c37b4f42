"""Images in .npy, .npz and idx files."""

from __future__ import annotations

import gzip
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ganvas.errors import BadValue, DataError
from ganvas.parts import image_spec
from ganvas.shelves.data.reading import cache
from ganvas.shelves.data.reading.options import ImageOptions
from ganvas.shelves.data.sets.arrays import Arrays
from ganvas.shelves.data.sets.idx import Idx

RANDOM = np.random.default_rng(2)
RGB = RANDOM.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


def pixels_of(data: Any) -> np.ndarray:
    batch = data.batch(np.arange(len(data)), np.random.default_rng(0)).data
    return ((batch.numpy() + 1) * 127.5).round().astype(np.uint8).transpose(0, 2, 3, 1)


def refused(part: Any, problem: str, hint: str = "", **keys: Any) -> None:
    with pytest.raises(DataError) as caught:
        part(**keys)
    assert problem in caught.value.problem
    assert hint in caught.value.hint
    assert caught.value.hint
    assert caught.value.where


def idx(array: np.ndarray) -> bytes:
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def npy(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


# ---------------------------------------------------------------------------------------------------- arrays


def test_layouts(tmp_path: Path) -> None:
    for name, array, layout in (
        ("last", RGB, "auto"),
        ("first", RGB.transpose(0, 3, 1, 2), "auto"),
        ("set", RGB.transpose(0, 3, 1, 2), "nchw"),
        ("fortran", np.asfortranarray(RGB), "nhwc"),
    ):
        data = Arrays(path=npy(tmp_path / f"{name}.npy", array), layout=layout)  # type: ignore[arg-type]
        assert data.spec == image_spec((3, 5, 7))
        assert np.array_equal(pixels_of(data), RGB), name
    grey = Arrays(path=npy(tmp_path / "grey.npy", RGB[..., 0]))
    assert grey.spec.shape == (1, 5, 7)
    five = Arrays(path=npy(tmp_path / "five.npy", RANDOM.integers(0, 9, (4, 6, 6, 5), dtype=np.uint8)), layout="nhwc")
    assert five.spec.shape == (5, 6, 6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hnp.arrays(
        np.uint8, st.tuples(st.integers(2, 5), st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3, 4]))
    ),
    st.booleans(),
)
def test_arrays_round_trip(tmp_path: Path, array: np.ndarray, first: bool) -> None:
    stored = array.transpose(0, 3, 1, 2) if first else array
    file = npy(tmp_path / "a.npy", stored)
    assert np.array_equal(pixels_of(Arrays(path=file, layout="nchw" if first else "nhwc")), array)


def test_npz_with_labels(tmp_path: Path) -> None:
    for images, labels, save in (("images", "labels", np.savez), ("x", "y", np.savez_compressed)):
        save(tmp_path / "a.npz", **{images: RGB, labels: np.arange(6)[:, None] % 3})
        data = Arrays(path=tmp_path / "a.npz")
        assert data.class_names == ("0", "1", "2")
        assert np.array_equal(pixels_of(data), RGB)
    other = Arrays(path=tmp_path / "a.npz", labels=npy(tmp_path / "l.npy", np.zeros(6, dtype=np.int32)))
    assert other.spec.num_classes == 1


def test_deep_and_float_values(tmp_path: Path) -> None:
    bytes_ = RGB.astype(np.float64)
    for name, array, range_ in (
        ("u16", (RGB.astype(np.uint16) * 257), "auto"),
        ("unit", (bytes_ / 255).astype(np.float32), "auto"),
        ("both", bytes_ / 127.5 - 1, "auto"),
        ("half", (bytes_ / 255).astype(np.float16), "0..1"),
        ("bytes", bytes_, "0..255"),
    ):
        data = Arrays(path=npy(tmp_path / f"{name}.npy", array), range_=range_)  # type: ignore[arg-type]
        assert np.array_equal(pixels_of(data), RGB), name


def test_float_sets_under_two_ranges_differ(tmp_path: Path) -> None:
    file = npy(tmp_path / "a.npy", np.linspace(0, 1, 6 * 5 * 7 * 3).reshape(6, 5, 7, 3))
    one, two = Arrays(path=file), Arrays(path=file, range_="-1..1")
    assert one.fingerprint != two.fingerprint
    assert pixels_of(two).min() == 128


def test_fingerprint_of_arrays(tmp_path: Path) -> None:
    changed = RGB.copy()
    changed[3, 2, 1, 0] ^= 1
    labels = npy(tmp_path / "l.npy", np.array([0, 1, 0, 1, 0, 1]))
    other = npy(tmp_path / "m.npy", np.array([0, 1, 0, 1, 1, 1]))
    file = npy(tmp_path / "a.npy", RGB)
    prints = {
        Arrays(path=file).fingerprint,
        Arrays(path=npy(tmp_path / "b.npy", changed)).fingerprint,
        Arrays(path=file, labels=labels).fingerprint,
        Arrays(path=file, labels=other).fingerprint,
        Arrays(path=file, images=ImageOptions(limit=5)).fingerprint,
        Arrays(path=file, images=ImageOptions(size=4)).fingerprint,
    }
    assert len(prints) == 6
    assert Arrays(path=npy(tmp_path / "c.npy", RGB)).fingerprint == Arrays(path=file).fingerprint


def test_size_and_channels(tmp_path: Path) -> None:
    data = Arrays(path=npy(tmp_path / "a.npy", RGB), images=ImageOptions(size=(4, 8), channels=1, limit=3))
    assert data.spec.shape == (1, 4, 8)
    assert len(data) == 3
    five = npy(tmp_path / "five.npy", np.zeros((4, 6, 6, 5), np.uint8))
    refused(Arrays, "5 channels cannot become 3", "channels", path=five, layout="nhwc", images=ImageOptions(channels=3))


def test_a_large_npy_stays_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganvas.shelves.data.sets.arrays.IN_MEMORY", 10)
    monkeypatch.setattr(cache, "IN_MEMORY", 10)
    data = Arrays(path=npy(tmp_path / "a.npy", RGB))
    assert isinstance(data._pixels, np.memmap)
    assert np.array_equal(pixels_of(data), RGB)
    assert np.array_equal(pixels_of(Arrays(path=npy(tmp_path / "f.npy", RGB / 255.0))), RGB)


def test_bad_arrays(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    attack = npy(tmp_path / "attack.npy", np.array([Attack(), Attack()], dtype=object))
    refused(Arrays, "pickled objects", "numpy.save", path=attack)
    np.savez(tmp_path / "attack.npz", images=np.array([Attack()], dtype=object))
    refused(Arrays, "pickled objects", "numpy.save", path=tmp_path / "attack.npz")
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Attack()))
    refused(Arrays, "no NumPy file", "numpy.save", path=tmp_path / "raw.npy")
    assert not (tmp_path / "ran").exists()

    refused(Arrays, "no such file", path=tmp_path / "absent.npy")
    refused(Arrays, "this is a folder", "data.use=folder", path=tmp_path)
    whole = npy(tmp_path / "whole.npy", RGB).read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-10])
    refused(Arrays, "cut off", path=tmp_path / "cut.npy")
    (tmp_path / "head.npy").write_bytes(whole[:40])
    refused(Arrays, "cut off", path=tmp_path / "head.npy")
    np.savez(tmp_path / "a.npz", RGB)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    refused(Arrays, "cut off", path=tmp_path / "cut.npz")
    np.savez(tmp_path / "names.npz", pictures=RGB)
    refused(Arrays, "no array called images", "savez", path=tmp_path / "names.npz")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("images.npy", b"hello")
    refused(Arrays, "damaged", path=tmp_path / "text.npz")


def test_bad_values(tmp_path: Path) -> None:
    refused(
        Arrays, "not clear which axis", "data.layout=nhwc", path=npy(tmp_path / "1.npy", np.zeros((3, 3, 8, 3), "u1"))
    )
    refused(
        Arrays, "not clear which axis", "data.layout=nhwc", path=npy(tmp_path / "2.npy", np.zeros((3, 8, 8, 5), "u1"))
    )
    refused(Arrays, "images of shape", "(N, H, W)", path=npy(tmp_path / "3.npy", np.zeros((3, 8), "u1")))
    refused(Arrays, "type int64", "uint8", path=npy(tmp_path / "4.npy", np.zeros((3, 8, 8), "i8")))
    bad = np.zeros((3, 8, 8), np.float32)
    bad[1, 2, 3] = np.nan
    refused(Arrays, "image 1 holds values that are not numbers", path=npy(tmp_path / "5.npy", bad))
    bad[1, 2, 3] = 200
    refused(Arrays, "0 to 200, outside of 0..1", "data.range", path=npy(tmp_path / "6.npy", bad))
    refused(Arrays, "only one image", path=npy(tmp_path / "7.npy", np.zeros((1, 8, 8), "u1")))
    refused(Arrays, "no image", path=npy(tmp_path / "8.npy", np.zeros((0, 8, 8), "u1")))
    file = npy(tmp_path / "a.npy", RGB)
    refused(Arrays, "4 labels for 6 images", path=file, labels=npy(tmp_path / "l4.npy", np.zeros(4, int)))
    refused(Arrays, "whole number", path=file, labels=npy(tmp_path / "lf.npy", np.zeros(6)))
    refused(Arrays, "run from -1", path=file, labels=npy(tmp_path / "ln.npy", np.full(6, -1)))
    refused(Arrays, "no such file", path=file, labels=tmp_path / "absent.npy")
    with pytest.raises(BadValue) as caught:
        Arrays(path=file, range_="0..1")
    assert caught.value.key == "range"


# ---------------------------------------------------------------------------------------------------- idx


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(2, 6), st.integers(1, 9), st.integers(1, 9))), st.booleans(), st.data()
)
def test_idx_round_trip(tmp_path: Path, array: np.ndarray, zipped: bool, data: st.DataObject) -> None:
    labels = data.draw(hnp.arrays(np.uint8, len(array)))
    pack = gzip.compress if zipped else bytes
    (tmp_path / "images").write_bytes(pack(idx(array)))
    (tmp_path / "labels").write_bytes(pack(idx(labels)))
    found = Idx(path=tmp_path / "images", labels=tmp_path / "labels")
    assert np.array_equal(pixels_of(found)[..., 0], array)
    label = found.batch(np.arange(len(array)), np.random.default_rng(0)).label
    assert label is not None
    assert [int(found.class_names[number]) for number in label.tolist()] == labels.tolist()
    assert len(found.class_names) == len(set(labels.tolist())), "a class that no datum has is none"


def test_idx_resizes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(idx(np.full((10, 28, 28), 200, np.uint8)))
    data = Idx(path=tmp_path / "a", images=ImageOptions(size=32, channels=3))
    assert data.spec == Idx.preview(path=tmp_path / "a", images=ImageOptions(size=32, channels=3))
    assert (pixels_of(data) == 200).all()


def test_bad_idx(tmp_path: Path) -> None:
    images = idx(np.zeros((4, 5, 5), np.uint8))
    cases: dict[str, tuple[bytes, str]] = {
        "magic": (b"\x12\x34\x56\x78" + images[4:], "not an idx file"),
        "empty": (b"", "not an idx file"),
        "header": (images[:9], "cut off in its header"),
        "cut": (images[:-3], "100 bytes and there are only 97"),
        "long": (images + b"x", "there are more"),
        "type": (images[:2] + b"\x0d" + images[3:], "type 0x0d"),
        "labels": (idx(np.zeros(4, np.uint8)), "not images"),
        "flat": (idx(np.zeros((4, 0, 5), np.uint8)), "not images"),
        "huge": (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**15, 2**15), "declares"),
        "gzip": (gzip.compress(images)[:-12], "cut off"),
        "zipped": (gzip.compress(images[:-3]), "only 97"),
        "one": (idx(np.zeros((1, 5, 5), np.uint8)), "only one image"),
    }
    for name, (data, problem) in cases.items():
        (tmp_path / name).write_bytes(data)
        refused(Idx, problem, path=tmp_path / name)
    refused(Idx, "no such file", path=tmp_path / "absent")
    refused(Idx, "this is a folder", path=tmp_path)
    (tmp_path / "good").write_bytes(images)
    (tmp_path / "two").write_bytes(idx(np.zeros((2, 5, 5), np.uint8)))
    refused(Idx, "4 labels for 2 images", path=tmp_path / "two", labels=tmp_path / "labels")
    refused(Idx, "one whole number", path=tmp_path / "good", labels=tmp_path / "good")
