"""CIFAR-10 and CIFAR-100 as they are published."""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.parts import Flat, dataset, image_spec
from ganvas.shelves.data.reading.options import AS_THEY_ARE, ImageOptions
from ganvas.shelves.data.reading.prepare import store_array
from ganvas.shelves.data.reading.store import StoredImages, checked_labels, numbered
from ganvas.types import DataSpec

PIXELS = 3 * 32 * 32
MAX_ARCHIVE = 1 << 30  # bytes that the archive may unpack to; the published ones stay under 200 MB


@dataclass(frozen=True)
class _Edition:
    """One of the published archives: which files hold what."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    label_key: str  # in pickles
    label_bytes: int  # before each image in the binary version; the last is the fine label
    classes: int

    @property
    def binary(self) -> bool:
        return self.test[0].endswith(".bin")


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
EDITIONS = (
    _Edition(_BATCHES, ("test_batch",), "batches.meta", "labels", 0, 10),
    _Edition(tuple(f"{name}.bin" for name in _BATCHES), ("test_batch.bin",), "batches.meta.txt", "", 1, 10),
    _Edition(("train",), ("test",), "meta", "fine_labels", 0, 100),
    _Edition(("train.bin",), ("test.bin",), "fine_label_names.txt", "", 2, 100),
)
KNOWN = frozenset(name for edition in EDITIONS for name in (*edition.train, *edition.test, edition.names))


@dataset("cifar")
class Cifar(StoredImages):
    """CIFAR-10 or CIFAR-100 from the published archive, Python or binary version.

    The archive's pickles are read by an unpickler that knows arrays, lists and texts only, so they cannot run code.
    CIFAR-100 comes with its 100 fine labels.

    Parameters
    ----------
    path : the .tar.gz, or the folder that it unpacks to.
    split : train (50,000 images) or test (10,000).
    images : see `ImageOptions`.

    Raises
    ------
    DataError : a missing, foreign, damaged or hostile archive.
    """

    def __init__(
        self,
        *,
        path: Path,
        split: Literal["train", "test"] = "train",
        images: Annotated[ImageOptions, Flat()] = AS_THEY_ARE,
    ) -> None:
        where = str(path)
        file = Path(path).expanduser()
        if not file.exists():
            raise DataError("there is no such file or folder", where=where, hint="check data.path")
        files = _from_folder(file, where) if file.is_dir() else _from_tar(file, where)
        edition = next((edition for edition in EDITIONS if {*getattr(edition, split)} <= files.keys()), None)
        if edition is None:
            raise DataError(
                f"it does not hold the {split} files of CIFAR-10 or CIFAR-100" + _half(files.keys(), split),
                where=where,
                hint="give the published archive, such as cifar-10-python.tar.gz, or the folder that it unpacks to",
            )
        read = _read_binary if edition.binary else _read_pickle
        parts = [read(files[name], edition, f"{where}/{name}") for name in getattr(edition, split)]
        pixels = np.concatenate([part[0] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = np.concatenate([part[1] for part in parts])
        names = _class_names(files.get(edition.names), edition, f"{where}/{edition.names}")
        if len(labels) and int(labels.max()) >= len(names):
            raise DataError(
                f"it has the label {int(labels.max())}, but {len(names)} classes", where=where, hint="download it again"
            )
        store_array(self, pixels, labels, names, images, where=where)

    @classmethod
    def preview(cls, *, path: Path = Path(), images: ImageOptions = AS_THEY_ARE, **_: object) -> DataSpec:
        """What these keys promise without a look at any file: the path's name tells 10 from 100 classes."""
        return image_spec(images.promised(3, 32, 32), num_classes=100 if "100" in Path(path).name else 10)


def _half(names: Collection[str], split: str) -> str:
    """Says what is missing where some files of an edition are there."""
    for edition in EDITIONS:
        needed = getattr(edition, split)
        missing = sorted(set(needed) - set(names))
        if missing and len(missing) < len(needed):
            return f"; missing: {', '.join(missing)}"
    return ""


def _from_folder(root: Path, where: str) -> dict[str, bytes]:
    """The known files in a folder or in the one below it that the archive makes."""
    try:
        places = [root, *sorted(entry for entry in root.iterdir() if entry.is_dir() and entry.name.startswith("cifar"))]
        for place in places:
            known = [entry for entry in place.iterdir() if entry.name in KNOWN and entry.is_file()]
            if known:
                return {entry.name: entry.read_bytes() for entry in known}
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror}", where=where, hint="check its permissions") from None
    return {}


def _from_tar(file: Path, where: str) -> dict[str, bytes]:
    """The known files of a tar archive, packed in any way; nothing is unpacked to the disk."""
    contents: dict[str, bytes] = {}
    total = 0
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                total += member.size
                if total > MAX_ARCHIVE:
                    raise DataError(
                        "it would unpack to more than 1 GB",
                        where=where,
                        hint="this is not CIFAR's archive; do not use it",
                    )
                name = PurePosixPath(member.name).name
                if member.isfile() and name in KNOWN and (stream := archive.extractfile(member)):
                    contents[name] = stream.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(
            f"it is not a tar archive, or it is cut off: {error}", where=where, hint="download it again"
        ) from None
    return contents


def _read_binary(data: bytes, edition: _Edition, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (n, 3072) and labels (n,): rows of label bytes and channel planes."""
    row = edition.label_bytes + PIXELS
    if not data or len(data) % row:
        raise DataError(
            f"its {len(data)} bytes are not rows of {row}: it is cut off", where=where, hint="download it again"
        )
    table = np.frombuffer(data, dtype=np.uint8).reshape(-1, row)
    return table[:, edition.label_bytes :], table[:, edition.label_bytes - 1].astype(np.int64)


def _read_pickle(data: bytes, edition: _Edition, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    content = unpickle(data, where)
    pixels = content.get("data")
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape[1:] == (PIXELS,)):
        raise DataError(
            f"its entry 'data' is not an array of bytes (n, {PIXELS})", where=where, hint="download it again"
        )
    return pixels, checked_labels(content.get(edition.label_key), len(pixels), where=where)


def _class_names(data: bytes | None, edition: _Edition, where: str) -> tuple[str, ...]:
    """From the archive's own list; numbers where it has none."""
    if data is None:
        return numbered(np.array([edition.classes - 1]))
    if edition.binary:
        names = tuple(line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip())
    else:
        listed = unpickle(data, where).get("label_names" if edition.classes == 10 else "fine_label_names")
        if not isinstance(listed, list):
            raise DataError("it has no list of class names", where=where, hint="download it again")
        names = tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in listed)
    if len(names) != edition.classes:
        raise DataError(f"it names {len(names)} classes, not {edition.classes}", where=where, hint="download it again")
    return names


# ------------------------------------------------------------------------------------------------ pickles, tamed


class _Stand:
    """Stands for a callable that a pickle asks for. Without attributes, so a pickle cannot change it either."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


def _dtype(name: Any, *_: Any) -> np.dtype[Any]:
    text = name.decode("ascii") if isinstance(name, bytes) else name
    if text not in ("u1", "i4", "i8"):
        raise pickle.UnpicklingError(f"the array type {text!r} does not belong here")
    return np.dtype(text, align=False, copy=True)  # a copy: the pickle sets its state


def _encode(text: Any, codec: Any) -> bytes:
    if codec not in ("latin1", "latin-1") or not isinstance(text, str):
        raise pickle.UnpicklingError(f"the codec {codec!r} does not belong here")
    return text.encode("latin-1")


class _Unpickler(pickle.Unpickler):
    """Rebuilds containers, numbers, texts and plain arrays; every other name is refused before anything is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return _Stand(lambda *_: np.empty(0, dtype=np.uint8))  # its state follows and brings shape, type and values
        if (module, name) == ("numpy", "ndarray"):
            return None  # only ever an argument of _reconstruct
        if (module, name) == ("numpy", "dtype"):
            return _Stand(_dtype)
        if (module, name) == ("_codecs", "encode"):
            return _Stand(_encode)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which has no place in a data set")


def unpickle(data: bytes, where: str) -> dict[str, Any]:
    """The dictionary in one of CIFAR's pickles; no code of the file's choosing runs.

    Raises
    ------
    DataError : it is damaged, or asks for anything but arrays.
    """
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged or hostile pickle can raise whatever the objects in it raise
        raise DataError(
            f"it is refused: {(str(error) or type(error).__name__).splitlines()[0]}",
            where=where,
            hint="this is not a file of CIFAR's archive, or a changed one: download it again",
        ) from None
    if not isinstance(content, dict):
        raise DataError("it holds no dictionary", where=where, hint="download it again")
    return {key.decode("latin-1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}
