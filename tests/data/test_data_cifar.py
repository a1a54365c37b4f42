"""CIFAR's published archives, made small, and pickles that attack."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganvas.errors import DataError
from ganvas.shelves.data.sets.cifar import Cifar, unpickle

ROWS = np.random.default_rng(3).integers(0, 256, (12, 3072), dtype=np.uint8)
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def python_files(protocol: int = 2) -> dict[str, bytes]:
    files = {"batches.meta": pickle.dumps({"label_names": NAMES}, protocol)}
    for number in range(5):
        rows = ROWS[2 * number : 2 * number + 2]
        files[f"data_batch_{number + 1}"] = pickle.dumps({b"data": rows, b"labels": [number, 9]}, protocol)
    files["test_batch"] = pickle.dumps({b"data": ROWS[10:], b"labels": [3, 4]}, protocol)
    return {f"cifar-10-batches-py/{name}": data for name, data in files.items()}


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def unpack(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def check_train(data: Cifar) -> None:
    assert data.class_names == tuple(NAMES)
    batch = data.batch(np.arange(10), np.random.default_rng(0))
    pixels = ((batch.data.numpy() + 1) * 127.5).round().astype(np.uint8)
    assert np.array_equal(pixels, ROWS[:10].reshape(-1, 3, 32, 32))
    assert batch.label is not None
    assert batch.label.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]


def refused(problem: str, **keys: Any) -> None:
    with pytest.raises(DataError) as caught:
        Cifar(**keys)
    assert problem in caught.value.problem
    assert caught.value.hint
    assert caught.value.where


@pytest.mark.parametrize("protocol", [2, 4])
def test_python_version(tmp_path: Path, protocol: int) -> None:
    files = python_files(protocol)
    archive = tar(tmp_path / "cifar-10-python.tar.gz", files)
    check_train(Cifar(path=archive))
    test = Cifar(path=archive, split="test")
    assert len(test) == 2
    check_train(Cifar(path=unpack(tmp_path / "root", files)))
    check_train(Cifar(path=tmp_path / "root" / "cifar-10-batches-py"))
    assert Cifar(path=tmp_path / "root").fingerprint == Cifar(path=archive).fingerprint != test.fingerprint
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cifar-10-python.tar.gz", "root"]


def test_pickles_as_python_2_wrote_them(tmp_path: Path) -> None:
    # The published files: protocol 2, texts as byte strings, `numpy.core.multiarray`.
    raw = ROWS[:2].tobytes()
    text = lambda value: b"U" + bytes([len(value)]) + value  # noqa: E731 - SHORT_BINSTRING
    data = (
        b"\x80\x02}(" + text(b"data") + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        + text(b"b") + b"\x87R(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03"
        + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + len(raw).to_bytes(4, "little")
        + raw + b"tb"
        + text(b"labels") + b"](K\x07K\x08eu."
    )  # fmt: skip
    found = unpickle(data, "here")
    assert np.array_equal(found["data"], ROWS[:2])
    assert found["labels"] == [7, 8]


def test_binary_version(tmp_path: Path) -> None:
    files = {"batches.meta.txt": "\n".join(NAMES).encode() + b"\n\n"}
    for number in range(5):
        files[f"data_batch_{number + 1}.bin"] = b"".join(
            bytes([label]) + ROWS[2 * number + row].tobytes() for row, label in enumerate((number, 9))
        )
    check_train(Cifar(path=tar(tmp_path / "bin.tar.gz", {f"cifar-10-batches-bin/{k}": v for k, v in files.items()})))


def test_cifar_100_has_its_fine_labels(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(100)]
    content = {b"data": ROWS, b"fine_labels": list(range(88, 100)), b"coarse_labels": [1] * 12}
    files = {"train": pickle.dumps(content, 2), "meta": pickle.dumps({b"fine_label_names": names}, 2)}
    data = Cifar(path=unpack(tmp_path / "cifar-100-python", files))
    assert data.class_names == tuple(names)
    assert data.spec.num_classes == 100 == Cifar.preview(path=tmp_path / "cifar-100-python").num_classes
    binary = {"train.bin": b"".join(bytes([1, 88 + n]) + row.tobytes() for n, row in enumerate(ROWS))}
    other = Cifar(path=unpack(tmp_path / "binary", binary))
    for each in (data, other):
        label = each.batch(np.arange(12), np.random.default_rng(0)).label
        assert label is not None
        assert label.tolist() == list(range(88, 100))
    assert other.class_names[99] == "99", "numbers where the names are missing"


class Attack:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.state = (call, arguments)

    def __reduce__(self) -> Any:
        return self.state


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_hostile_pickles_do_not_run(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "ran"
    payloads = [
        Attack(os.system, f"touch {target}"),
        Attack(eval, f"open({str(target)!r}, 'w')"),
        Attack(exec, f"open({str(target)!r}, 'w')"),
        Attack(open, str(target), "w"),
        Attack(np.save, str(target), 1),
        Attack(np.memmap, str(target), "u1", "w+", 0, 10),
        Attack(getattr, "text", "upper"),
    ]
    for payload in payloads:
        with pytest.raises(DataError, match="refused"):
            unpickle(pickle.dumps({b"data": payload}, protocol), "here")
    files = {**python_files(), "cifar-10-batches-py/data_batch_3": pickle.dumps(payloads[0], protocol)}
    refused("has no place in a data set", path=tar(tmp_path / "a.tar.gz", files))
    assert not target.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        pickle.dumps([1, 2]),
        pickle.dumps({b"a": np.dtype("O")}),
        pickle.dumps({b"a": np.zeros(3)}),  # float64: not an array type of these files
        b"cnumpy\ndtype\n(S'S999999999'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        b"cnumpy\nndarray\n(I1000000000000\ntR.",
        b"cnumpy\n_core.multiarray\n.",
        b"c__builtin__\nobject.__subclasses__\n(tR.",
    ],
)
def test_foreign_pickles_are_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        unpickle(data, "here")


def test_bad_archives(tmp_path: Path) -> None:
    refused("no such file", path=tmp_path / "absent.tar.gz")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused("does not hold the train files", path=empty)
    text = tmp_path / "text.tar.gz"
    text.write_text("hello")
    refused("not a tar archive", path=text)
    whole = tar(tmp_path / "a.tar.gz", python_files()).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    refused("cut off", path=tmp_path / "cut.tar.gz")
    files = python_files()
    del files["cifar-10-batches-py/data_batch_2"]
    refused("missing: data_batch_2", path=unpack(tmp_path / "missing", files))
    refused("rows of 3073", path=unpack(tmp_path / "bin", {"test_batch.bin": bytes(100)}), split="test")
    wrong = pickle.dumps({b"data": ROWS[:, :100], b"labels": [0] * 12}, 2)
    refused("not an array of bytes", path=unpack(tmp_path / "shape", {"test_batch": wrong}), split="test")
    labels = pickle.dumps({b"data": ROWS, b"labels": [0] * 11}, 2)
    refused("11 labels for 12 images", path=unpack(tmp_path / "labels", {"test_batch": labels}), split="test")
    high = pickle.dumps({b"data": ROWS, b"labels": [10] * 12}, 2)
    refused("the label 10", path=unpack(tmp_path / "high", {"test_batch": high}), split="test")
