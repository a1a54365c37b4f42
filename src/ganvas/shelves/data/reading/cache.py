"""Prepared images on disk, so that a second start need not decode again.

`$GANVAS_CACHE/data/<key>/` (default `~/.cache/ganvas`) holds `images.npy` and `index.json`. The key is made of the
content and every option that shaped the pixels, so an entry never goes stale; it may be deleted at any time. The index
is written last and states the size of the array file: an entry without it, or whose array is shorter, does not exist.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ganvas.shelves.data.reading.store import Prepared
from ganvas.types import Census

FORMAT = 2  # raised whenever decoding or preparation changes what comes out

IN_MEMORY = 256 << 20
"""Up to so many bytes are held in memory. CIFAR-10 (154 MB) fits; what is larger is mapped, so that a data set never
takes a noticeable share of a laptop's memory and workers share its pages."""

STALE = 24 * 3600.0  # seconds after which a temporary file is taken for the remains of a crash


def folder(key: str) -> Path:
    """Where the entry of this key lies or would lie."""
    root = os.environ.get("GANVAS_CACHE") or Path.home() / ".cache" / "ganvas"
    return Path(root).expanduser() / "data" / key


def load(key: str) -> Prepared | None:
    """The entry of this key, or None where there is none that is whole."""
    images, index = folder(key) / "images.npy", folder(key) / "index.json"
    try:
        facts = json.loads(index.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT or images.stat().st_size != facts["bytes"]:
            return None
        mapped = np.load(images, mmap_mode="r", allow_pickle=False)
        if list(mapped.shape) != facts["shape"] or mapped.dtype != np.uint8:
            return None
        pixels = np.array(mapped) if mapped.nbytes <= IN_MEMORY else mapped
        labels = None if facts["labels"] is None else np.array(facts["labels"], dtype=np.int64)
        names = None if facts["names"] is None else tuple(facts["names"])
        class_names, skipped = tuple(facts["class_names"]), tuple(facts["skipped"])
        census = Census(**facts["census"]) if facts["census"] else None
        return Prepared(pixels, labels, class_names, skipped, int(facts["ignored"]), names, census)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # never written, half-written or damaged: it is made anew


def save(
    key: str, shape: tuple[int, ...], chunks: Iterator[NDArray[np.uint8]], described: Callable[[int], Prepared]
) -> None:
    """Write an entry; complete or not at all, also beside another process that writes the same.

    Parameters
    ----------
    shape : (C, H, W) of each image.
    chunks : arrays (n, C, H, W), written as they come so that no set has to fit into memory.
    described : called with the number of images after the last chunk; gives everything but the pixels.

    Raises
    ------
    OSError : the place cannot be written.
    """
    target = folder(key)
    target.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    try:
        _write(target, shape, chunks, described)
    except BaseException:
        with contextlib.suppress(OSError):
            target.rmdir()  # only where nothing else lies in it
        raise


def _write(
    target: Path, shape: tuple[int, ...], chunks: Iterator[NDArray[np.uint8]], described: Callable[[int], Prepared]
) -> None:
    with replacing(target / "images.npy") as file:
        count = 0
        # NumPy leaves room in the header for the first axis to grow, so it can be written twice at the same length.
        _header(file, (0, *shape))
        start = file.tell()
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk).data)
            count += len(chunk)
        size = file.tell()
        file.seek(0)
        _header(file, (count, *shape))
        if file.tell() != start:
            raise OSError("the array header grew while it was written")
    prepared = described(count)
    facts = {
        "format": FORMAT,
        "bytes": size,
        "shape": [count, *shape],
        "labels": None if prepared.labels is None else prepared.labels.tolist(),
        "class_names": prepared.class_names,
        "skipped": prepared.skipped,
        "ignored": prepared.ignored,
        "census": dataclasses.asdict(prepared.census) if prepared.census else None,
        "names": prepared.names,
    }
    with replacing(target / "index.json") as file:
        file.write(json.dumps(facts).encode())


def _header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """A temporary file in the same folder that becomes `target` once it is safely on the disk, or vanishes."""
    temporary = target.with_name(f"{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    """Remove what a crashed process left; a living one's files are younger."""
    for leftover in target.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > STALE:
                leftover.unlink()
