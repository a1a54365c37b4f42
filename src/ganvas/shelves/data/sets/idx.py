"""MNIST's file format."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO, Annotated

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.parts import Flat, dataset, image_spec
from ganvas.shelves.data.reading.names import classes_in
from ganvas.shelves.data.reading.options import AS_THEY_ARE, ImageOptions
from ganvas.shelves.data.reading.prepare import store_array
from ganvas.shelves.data.reading.store import StoredImages, checked_labels
from ganvas.types import DataSpec

UNSIGNED_BYTE = 0x08  # the type code of every image and label file of the MNIST family

MAX_UNPACKED = 4 << 30
"""Bytes that a header may declare: far beyond MNIST. More is a damaged header, or made to fill the memory."""


@dataset("idx")
class Idx(StoredImages):
    """Images in MNIST's idx format (MNIST, Fashion-MNIST, EMNIST, KMNIST), gzipped or not.

    Parameters
    ----------
    path : the file of images, (N, H, W) or (N, H, W, C) bytes.
    labels : the file of labels; None: no labels.
    images : see `ImageOptions`.

    Raises
    ------
    DataError : a missing file, a wrong or cut off one, or labels that do not fit the images.
    """

    def __init__(
        self,
        *,
        path: Path,
        labels: Path | None = None,
        images: Annotated[ImageOptions, Flat()] = AS_THEY_ARE,
    ) -> None:
        pixels = read_idx(Path(path).expanduser(), str(path))
        if pixels.ndim not in (3, 4) or 0 in pixels.shape[1:]:
            raise DataError(
                f"it holds an array of shape {pixels.shape}, not images",
                where=str(path),
                hint="data.path is the file of images (…-images-idx3-ubyte), data.labels the one of labels",
            )
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        classes = None
        if labels is not None:
            classes = checked_labels(read_idx(Path(labels).expanduser(), str(labels)), len(pixels), where=str(labels))
        store_array(self, pixels, *classes_in(classes), images, where=str(path))

    @classmethod
    def preview(cls, *, labels: Path | None = None, images: ImageOptions = AS_THEY_ARE, **_: object) -> DataSpec:
        """What these keys promise without a look at any file: MNIST's form."""
        return image_spec(images.promised(1, 28, 28), num_classes=0 if labels is None else 10)


def read_idx(file: Path, where: str) -> NDArray[np.uint8]:
    """The array in an idx file.

    Raises
    ------
    DataError
    """
    if not file.exists():
        raise DataError("there is no such file", where=where, hint="check the path")
    if file.is_dir():
        raise DataError(
            "this is a folder, not an idx file", where=where, hint="give the file, such as train-images-idx3-ubyte.gz"
        )
    try:
        with file.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped:
                return _read(raw, where)
            with gzip.GzipFile(fileobj=raw) as stream:
                return _read(stream, where)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"it is damaged or cut off: {error}", where=where, hint="download it again") from None


def _read(stream: IO[bytes] | gzip.GzipFile, where: str) -> NDArray[np.uint8]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[3] == 0:
        raise DataError("this is not an idx file", where=where, hint="idx files start with the bytes 00 00 08 03")
    if magic[2] != UNSIGNED_BYTE:
        raise DataError(
            f"its values have type 0x{magic[2]:02x}",
            where=where,
            hint="only unsigned bytes (0x08) are images or labels",
        )
    header = stream.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise DataError("it is cut off in its header", where=where, hint="download it again")
    shape = tuple(int(side) for side in np.frombuffer(header, dtype=">u4"))
    size = math.prod(shape)
    if size > MAX_UNPACKED:
        raise DataError(
            f"its header declares {size / 1e9:.0f} GB", where=where, hint="is this an idx file? download it again"
        )
    data = stream.read(size)
    if len(data) < size or stream.read(1):
        has = "more" if len(data) == size else f"only {len(data)}"
        raise DataError(f"its header declares {size} bytes and there are {has}", where=where, hint="download it again")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
