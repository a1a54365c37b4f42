"""A zip archive as a place of data: its members by name, none of which leads outside or fills the memory."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ganvas.errors import DataError
from ganvas.shelves.data.reading.listing import LABEL_FILE, refuse_escape
from ganvas.shelves.data.reading.names import spelled
from ganvas.shelves.data.reading.pixels import Corrupt

MAX_MEMBER = 256 << 20
"""Bytes that one member may unpack to: far more than any file that is one datum, far less than a machine's memory."""

MAX_RATIO, RATIO_MATTERS = 200, 16 << 20
"""Pictures and sound hardly compress; a member that grows 200-fold to more than 16 MiB was made to fill the memory."""


@dataclass(frozen=True)
class Members:
    """What lies in a folder of an archive.

    Attributes
    ----------
    where : the archive and the folder, for errors.
    files : the members by their path below the folder, with `/` between steps.
    folders : paths of folders that are listed as such; they matter where they are empty.
    read : the bytes of one of `files`; raises `Corrupt`.
    """

    where: str
    files: Mapping[str, zipfile.ZipInfo]
    folders: Sequence[str]
    read: Callable[[str], bytes]

    def read_labels(self, name: str) -> bytes:
        """The bytes of a label file.

        Raises
        ------
        DataError : it is damaged.
        """
        try:
            return self.read(name)
        except Corrupt as reason:
            raise DataError(
                f"{LABEL_FILE} cannot be read: {reason}", where=f"{self.where}/{name}", hint="pack the archive again"
            ) from None


def digest_of_file(file: Path, where: str) -> str:
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


def open_members(file: Path, where: str, folder: str, stack: contextlib.ExitStack) -> Members:
    """What lies in a folder of an archive, "" for all of it; it stays open until the stack unwinds.

    Raises
    ------
    DataError : not a whole archive, no such folder, a member that is there twice or points outside.
    """
    try:
        archive = stack.enter_context(zipfile.ZipFile(file))
        infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise DataError(
            f"it is not a zip archive, or it is cut off: {error}", where=where, hint="copy or download it again"
        ) from None
    prefix = spelled(folder) + "/" if folder else ""
    members: dict[str, zipfile.ZipInfo] = {}
    folders: list[str] = []
    for info in infos:
        refuse_escape(info.filename, where)
        whole = _name_of(info)
        if not whole.startswith(prefix) or whole == prefix:
            continue
        name = whole[len(prefix) :]
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        elif name in members:
            raise DataError(f"{whole} is in it twice", where=where, hint="pack the archive again")
        else:
            members[name] = info
    if prefix and not members:
        top = sorted({_name_of(info).split("/")[0] for info in infos if "/" in _name_of(info)})
        raise DataError(
            f"it has no folder {folder!r}", where=where, hint=f"its folders: {', '.join(top[:8]) or 'none'}"
        )

    def read(name: str) -> bytes:
        return _read(archive, members[name], where)

    return Members(f"{where}/{folder}" if folder else where, members, folders, read)


def _name_of(info: zipfile.ZipInfo) -> str:
    """A member's path as it is `spelled`; those of Windows tools have `\\` in them.

    Many tools write UTF-8 without the flag that says so, and what is no UTF-8 is in the code page of old DOS.
    """
    name = info.filename
    if not info.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return spelled(name)


def refuse_bomb(info: zipfile.ZipInfo, where: str) -> None:
    """Refuse a member that was made to fill the memory.

    Raises
    ------
    DataError : it would unpack to an absurd size.
    """
    ratio = info.file_size / max(1, info.compress_size)
    if info.file_size > MAX_MEMBER or (info.file_size > RATIO_MATTERS and ratio > MAX_RATIO):
        raise DataError(
            f"the member {info.filename!r} would unpack to {info.file_size / 1e6:.0f} MB ({ratio:.0f} times its size)",
            where=where,
            hint="a file that is one datum is never that large; do not use this archive",
        )


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> bytes:
    """The bytes of a member; never more than it declares, which `refuse_bomb` has bounded."""
    if info.flag_bits & 0x1:
        raise DataError(
            f"the member {info.filename!r} is encrypted", where=where, hint="pack the archive again without a password"
        )
    refuse_bomb(info, where)
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, NotImplementedError, ValueError, RuntimeError) as error:
        raise Corrupt(str(error) or "its data end too early") from None
