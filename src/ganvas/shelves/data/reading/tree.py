"""A folder as a place of data: the files below it by their path."""

from __future__ import annotations

import os
from pathlib import Path

from ganvas.errors import DataError


def files_below(root: Path, where: str) -> tuple[list[str], list[str]]:
    """Files and folders below `root`, as relative paths with `/`. Links are followed, circles are not.

    A link to nowhere counts as a file: whoever reads it is told that it cannot be. Pipes, sockets and devices are left
    out, for reading one may never end.

    Raises
    ------
    DataError : one of them cannot be listed.
    """
    files: list[str] = []
    folders: list[str] = []

    def visit(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir():
                    status = entry.stat()
                    if (status.st_dev, status.st_ino) in above:
                        continue
                    folders.append(name)
                    visit(Path(entry.path), name + "/", (*above, (status.st_dev, status.st_ino)))
                elif entry.is_file() or is_dangling(Path(entry.path)):
                    files.append(name)

    try:
        status = root.stat()
        visit(root, "", ((status.st_dev, status.st_ino),))
    except OSError as error:
        raise DataError(
            f"it cannot be listed: {error.strerror}", where=error.filename or where, hint="check its permissions"
        ) from None
    return files, folders


def is_dangling(path: Path) -> bool:
    """Whether a path is a link to something that is not there."""
    return path.is_symlink() and not path.exists()


def read_file(root: Path, name: str, where: str) -> bytes:
    """The bytes of a file by its path below the folder.

    Raises
    ------
    DataError : it cannot be read.
    """
    try:
        return (root / name).read_bytes()
    except OSError as error:
        raise DataError(
            f"it cannot be read: {error.strerror}", where=f"{where}/{name}", hint="check its permissions"
        ) from None
