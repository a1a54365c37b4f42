"""A zip archive of image files, read in place."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np

from ganvas.errors import DataError
from ganvas.parts import Flat, dataset, image_spec
from ganvas.shelves.data.reading.listing import LABEL_FILE, LabelMode, list_images, refuse_escape
from ganvas.shelves.data.reading.options import AS_THEY_ARE, ImageOptions
from ganvas.shelves.data.reading.pixels import Corrupt, Picture, decode
from ganvas.shelves.data.reading.prepare import OnCorrupt, Source, prepare
from ganvas.shelves.data.reading.store import StoredImages, digest_of, subset
from ganvas.types import DataSpec

MAX_MEMBER = 256 << 20
"""Bytes that one member may unpack to: far more than any image file, far less than a machine's memory."""

MAX_RATIO, RATIO_MATTERS = 200, 16 << 20
"""Image files hardly compress; a member that grows 200-fold to more than 16 MiB was made to fill the memory."""


@dataset("zip", tiny={"limit": 64, "size": 32})
class Zip(StoredImages):
    """Images in a zip archive, read without unpacking it.

    The archive is laid out like the `folder` data set: flat, in class folders, or with a dataset.json.

    Parameters
    ----------
    path : the archive.
    folder : only what lies in this folder of the archive, for example train.
    labels : where labels come from. auto: dataset.json where there is one, else class folders, else none.
    corrupt : what happens at an image that cannot be read: stop there, or skip it with a warning.
    images : see `ImageOptions`.

    Raises
    ------
    DataError : not a whole zip archive, an encrypted one, members that point outside or would unpack to an absurd
        size, and all that `folder` raises.
    """

    def __init__(
        self,
        *,
        path: Path,
        folder: str | None = None,
        labels: LabelMode = "auto",
        corrupt: OnCorrupt = "stop",
        images: Annotated[ImageOptions, Flat()] = AS_THEY_ARE,
    ) -> None:
        file, where = Path(path).expanduser(), str(path)
        facts = {"content": _digest(file, where), "folder": (folder or "").strip("/"), "labels": labels}
        with contextlib.ExitStack() as stack:
            prepared = prepare(
                facts,
                images,
                lambda: _open(file, where, str(facts["folder"]), labels, images, stack),
                weight=file.stat().st_size,
                corrupt=corrupt,
            )
        fingerprint = digest_of({**facts, **dataclasses.asdict(images), "corrupt": corrupt})
        super().__init__(prepared, fingerprint, flip=images.flip)

    @classmethod
    def preview(cls, *, labels: LabelMode = "auto", images: ImageOptions = AS_THEY_ARE, **_: object) -> DataSpec:
        """What these keys promise without a look at any file; two classes stand for an unknown number."""
        return image_spec(images.promised(3, 32, 32), num_classes=0 if labels == "none" else 2)


def _digest(file: Path, where: str) -> str:
    """SHA-256 of the archive."""
    if not file.exists():
        raise DataError("there is no such file", where=where, hint="check data.path")
    if file.is_dir():
        raise DataError("this is a folder, not a zip archive", where=where, hint="for a folder, set data.use=folder")
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror}", where=where, hint="check its permissions") from None


def _open(
    file: Path, where: str, folder: str, labels: LabelMode, options: ImageOptions, stack: contextlib.ExitStack
) -> Source:
    """The images of the archive; it stays open until the stack unwinds."""
    try:
        archive = stack.enter_context(zipfile.ZipFile(file))
        infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise DataError(
            f"it is not a zip archive, or it is cut off: {error}", where=where, hint="copy or download it again"
        ) from None
    prefix = folder + "/" if folder else ""
    members: dict[str, zipfile.ZipInfo] = {}
    folders: list[str] = []
    for info in infos:
        refuse_escape(info.filename, where)
        if not info.filename.startswith(prefix) or info.filename == prefix:
            continue
        name = info.filename[len(prefix) :]
        if info.is_dir():
            folders.append(name.rstrip("/"))
        elif name in members:
            raise DataError(f"{info.filename} is in it twice", where=where, hint="pack the archive again")
        else:
            members[name] = info
    if prefix and not members:
        top = sorted({info.filename.split("/")[0] for info in infos if "/" in info.filename})
        raise DataError(
            f"it has no folder {folder!r}", where=where, hint=f"its folders: {', '.join(top[:8]) or 'none'}"
        )
    place = f"{where}/{folder}" if folder else where

    def read(name: str) -> bytes:
        return _read(archive, members[name], where)

    def read_labels(name: str) -> bytes:
        try:
            return read(name)
        except Corrupt as reason:
            raise DataError(
                f"{LABEL_FILE} cannot be read: {reason}", where=f"{place}/{name}", hint="pack the archive again"
            ) from None

    listing = list_images(members, folders, read_labels, labels, where=place, splits_key="data.folder=" + prefix)
    chosen = subset(len(listing.names), listing.labels, options.limit)
    names = [listing.names[each] for each in chosen]
    for name in names:
        _refuse_bomb(members[name], where)
    chosen_labels = None if listing.labels is None else np.asarray(listing.labels[chosen])

    def picture(number: int) -> Picture:
        return decode(read(names[number]))

    return Source(place, names, picture, chosen_labels, listing.class_names, listing.ignored)


def _refuse_bomb(info: zipfile.ZipInfo, where: str) -> None:
    ratio = info.file_size / max(1, info.compress_size)
    if info.file_size > MAX_MEMBER or (info.file_size > RATIO_MATTERS and ratio > MAX_RATIO):
        raise DataError(
            f"the member {info.filename!r} would unpack to {info.file_size / 1e6:.0f} MB ({ratio:.0f} times its size)",
            where=where,
            hint="an image file is never that large; do not use this archive",
        )


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> bytes:
    """The bytes of a member; never more than it declares, which `_refuse_bomb` has bounded."""
    if info.flag_bits & 0x1:
        raise DataError(
            f"the member {info.filename!r} is encrypted", where=where, hint="pack the archive again without a password"
        )
    _refuse_bomb(info, where)
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, NotImplementedError, ValueError, RuntimeError) as error:
        raise Corrupt(str(error) or "its data end too early") from None
