"""Images in NumPy files."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import BadValue, DataError
from ganvas.parts import Flat, dataset, image_spec
from ganvas.shelves.data.reading.cache import IN_MEMORY
from ganvas.shelves.data.reading.names import classes_in, native
from ganvas.shelves.data.reading.options import AS_THEY_ARE, ImageOptions
from ganvas.shelves.data.reading.pixels import Picture
from ganvas.shelves.data.reading.prepare import store_array
from ganvas.shelves.data.reading.store import StoredImages, checked_labels
from ganvas.types import DataSpec

IMAGE_KEYS, LABEL_KEYS = ("images", "x", "arr_0"), ("labels", "y")

MAX_UNPACKED = 4 << 30
"""Bytes that compressed members may unpack to; a larger set belongs into a .npy, which is mapped instead of read."""

RANGES = {"0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0), "0..255": (0.0, 255.0), "0..4095": (0.0, 4095.0)}
SLACK = 1e-3  # of the range: what resizing or float16 may overshoot

Layout = Literal["auto", "nhwc", "nchw"]
Range = Literal["auto", "0..1", "-1..1", "0..255", "0..4095"]


@dataset("arrays")
class Arrays(StoredImages):
    """Images in a NumPy file: .npy, or .npz with images and labels.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W): uint8, uint16, bool or floats, which are rounded to 8 bits, in
    either order of bytes.
    In a .npz they are called images, x or arr_0, and labels (N,) are called labels or y. Pickled objects are refused.

    Parameters
    ----------
    path : the file.
    labels : a .npy file with one whole number per image; None: those in the .npz, or none.
    layout : where the channels are. auto: the axis with 1, 3 or 4 entries.
    range : what black and white are. auto: of whole numbers all that their type holds; of floats -1..1 where a value is
        negative, else 0..1. Masks of 0 and 1 are 0..1, 12-bit values 0..4095.
    images : see `ImageOptions`.

    Raises
    ------
    DataError : a missing or damaged file, an unclear layout, values that are not numbers or out of range.
    """

    def __init__(
        self,
        *,
        path: Path,
        labels: Path | None = None,
        layout: Layout = "auto",
        range_: Range = "auto",
        images: Annotated[ImageOptions, Flat()] = AS_THEY_ARE,
    ) -> None:
        where = str(path)
        arrays = read_arrays(Path(path).expanduser(), where)
        pixels = _channels_last(_pick(arrays, IMAGE_KEYS, where), layout, where)
        values = next((arrays[key] for key in LABEL_KEYS if key in arrays), None)
        label_place = where
        if labels is not None:
            label_place = str(labels)
            values = _pick(read_arrays(Path(labels).expanduser(), label_place), (*LABEL_KEYS, "arr_0"), label_place)
        classes = None if values is None else checked_labels(values, len(pixels), where=label_place)
        low, high = _range(pixels, range_, where)

        def scale(picture: NDArray[Any]) -> Picture:
            return ((picture.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))).clip(0, 255)

        exact = pixels.dtype == np.uint8 and high == 255
        usual = {"u1": "data.range=0..1 is for masks of 0 and 1", "u2": "data.range=0..4095 is for 12-bit values"}
        store_array(
            self, pixels, *classes_in(classes), images,
            where=where, scale=None if exact else scale, scaling="" if exact else f"{low}..{high}",
            darkness=f"set data.range: {usual.get(pixels.dtype.str[1:], 'or scale the array')}",
        )  # fmt: skip

    @classmethod
    def preview(cls, *, labels: Path | None = None, images: ImageOptions = AS_THEY_ARE, **_: object) -> DataSpec:
        """What these keys promise without a look at any file; two classes stand for an unknown number."""
        return image_spec(images.promised(3, 32, 32), num_classes=0 if labels is None else 2)


def read_arrays(file: Path, where: str) -> dict[str, NDArray[Any]]:
    """The arrays of a .npy (as `arr_0`) or .npz file; a large .npy stays on the disk.

    Raises
    ------
    DataError
    """
    if not file.exists():
        raise DataError("there is no such file", where=where, hint="check the path")
    if file.is_dir():
        raise DataError(
            "this is a folder, not a .npy or .npz file", where=where, hint="for a folder of images, set data.use=folder"
        )
    try:
        with file.open("rb") as stream:
            magic = stream.read(6)
        if magic == b"\x93NUMPY":
            # Mapping checks the size that the header states against the file before anything is allocated.
            mapped = np.load(file, mmap_mode="r", allow_pickle=False)
            return {"arr_0": native(np.array(mapped)) if mapped.nbytes <= IN_MEMORY else mapped}
        if magic[:2] != b"PK":
            raise DataError("this is no NumPy file", where=where, hint="save it with numpy.save or numpy.savez")
        with zipfile.ZipFile(file) as archive:
            size = sum(info.file_size for info in archive.infolist() if info.compress_size < info.file_size)
        if size > MAX_UNPACKED:
            raise DataError(
                f"it would unpack to {size / 1e9:.0f} GB", where=where, hint="save large arrays with numpy.save as .npy"
            )
        with np.load(file, allow_pickle=False) as members:
            arrays = {key: members[key] for key in members.files if key in (*IMAGE_KEYS, *LABEL_KEYS)}
        if foreign := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{foreign[0]} is not an array")  # NumPy hands out the bytes of what it does not know
        return {key: native(array) for key, array in arrays.items()}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, OverflowError, SyntaxError) as error:
        raise _damaged(error, where) from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise _damaged(error, where) from None


def _damaged(error: Exception, where: str) -> DataError:
    text = str(error)
    if any(words in text for words in ("allow_pickle", "Object arrays", "Python objects")):
        return DataError(
            "it holds pickled objects, which could run code and are never loaded",
            where=where,
            hint="save plain numbers: numpy.save(path, array.astype(numpy.uint8))",
        )
    return DataError(
        f"it is damaged or cut off: {text.splitlines()[0] if text else type(error).__name__}",
        where=where,
        hint="save or copy it again",
    )


def _pick(arrays: Mapping[str, NDArray[Any]], keys: tuple[str, ...], where: str) -> NDArray[Any]:
    for key in keys:
        if key in arrays:
            return arrays[key]
    raise DataError(
        f"it has no array called {' or '.join(keys)}",
        where=where,
        hint="save it with numpy.savez(path, images=..., labels=...)",
    )


def _channels_last(array: NDArray[Any], layout: Layout, where: str) -> NDArray[Any]:
    """A view (N, H, W, C)."""
    if array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise DataError(
            f"images of shape {array.shape}", where=where, hint="images are (N, H, W), (N, H, W, C) or (N, C, H, W)"
        )
    if array.ndim == 3:
        return array[..., None]
    if layout == "auto":
        first, last = array.shape[1] in (1, 3, 4), array.shape[3] in (1, 3, 4)
        if first == last:
            raise DataError(
                f"it is not clear which axis of {array.shape} the channels are",
                where=where,
                hint="set data.layout=nhwc (channels last) or data.layout=nchw (channels first)",
            )
        layout = "nchw" if first else "nhwc"
    return array.transpose(0, 2, 3, 1) if layout == "nchw" else array


def _range(array: NDArray[Any], range_: Range, where: str) -> tuple[float, float]:
    """The values of black and white."""
    if array.dtype.kind != "f":
        if array.dtype.kind == "b":
            return 0.0, 1.0
        if array.dtype.newbyteorder("=") not in (np.dtype(np.uint8), np.dtype(np.uint16)):
            raise DataError(f"images of type {array.dtype}", where=where, hint="save them as uint8, uint16 or float32")
        if range_ == "auto":
            return 0.0, float(np.iinfo(array.dtype).max)
        low, high = RANGES[range_]
        largest = max((int(array[start : start + 1024].max()) for start in range(0, len(array), 1024)), default=0)
        if low < 0 or largest > high:
            raise BadValue(
                f"values run up to {largest}, outside of {range_}",
                key="range",
                hint="leave data.range out, or widen it",
            )
        return low, high
    least, most = math.inf, -math.inf
    rows = max(1, (16 << 20) // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        piece = array[start : start + rows]
        if not np.isfinite(piece).all():
            number = start + int(np.flatnonzero(~np.isfinite(piece).all(axis=(1, 2, 3)))[0])
            raise DataError(
                f"image {number} holds values that are not numbers (NaN or infinity)",
                where=where,
                hint="remove or mend such images",
            )
        least, most = min(least, float(piece.min())), max(most, float(piece.max()))
    low, high = RANGES["-1..1" if least < -SLACK else "0..1"] if range_ == "auto" else RANGES[range_]
    slack = SLACK * (high - low)
    if len(array) and (least < low - slack or most > high + slack):
        raise DataError(
            f"values run from {least:g} to {most:g}, outside of {low:g}..{high:g}",
            where=where,
            hint="set data.range to 0..1, -1..1 or 0..255, or scale the array",
        )
    return low, high
