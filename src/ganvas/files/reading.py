"""How files are opened: only ordinary ones, only up to a size, and those of ours by one reader for each kind.

A named pipe, a device or a socket at a path would be waited for without end, or read until the memory is full.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganvas.errors import CheckpointError, DataError, GanvasError

LIMIT = 4 << 30
"""Bytes of a file that is read whole: more than any that is one datum, one recipe or one log."""

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)  # fmt: skip
_HINT = "copy what it holds into a file, and give that one"


def check_place(place: Path | str, error: type[GanvasError] = CheckpointError) -> None:
    """Refuse what is there and is neither a file nor a folder, before anything opens it.

    Raises
    ------
    GanvasError : of the type `error`; says what it is.
    """
    try:
        mode = Path(place).stat().st_mode
    except (OSError, ValueError):
        return  # whoever opens it says that it is not there
    for is_kind, name in _KINDS:
        if is_kind(mode):
            raise error(f"it is {name}, not a file", where=str(place), hint=_HINT)


def check_data_places(node: Any) -> None:
    """`check_place` for the paths of a data set's recipe node, also of the sets that it is made of.

    Raises
    ------
    DataError : one of them is neither a file nor a folder.
    """
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if key == "path" and isinstance(value, (str, Path)):
            check_place(value, DataError)
        check_data_places(value)


def content_of(file: Path, *, limit: int = LIMIT, error: type[GanvasError] = CheckpointError) -> bytes:
    """The bytes of an ordinary file.

    Raises
    ------
    GanvasError : of the type `error`: it is a pipe, a device, a socket or a folder, larger than `limit` bytes, or
        cannot be read.
    """
    check_place(file, error)
    try:
        size = file.stat().st_size
        if size > limit:
            raise error(
                f"it has {size:,} bytes; at most {limit:,} are read", where=str(file), hint="give a smaller one"
            )
        return file.read_bytes()
    except OSError as problem:
        raise error(
            f"it cannot be read: {problem.strerror or problem}", where=str(file), hint="check the path"
        ) from None


def text_of(file: Path) -> str:
    """The text of a file that we wrote.

    Raises
    ------
    CheckpointError : it cannot be read, or is not UTF-8.
    """
    try:
        return content_of(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(file, f"byte {error.start} is no UTF-8") from None


def mapping_of(file: Path) -> dict[str, Any]:
    """The JSON object in a file that we wrote.

    Raises
    ------
    CheckpointError : it cannot be read, is cut short, or holds something else.
    """
    content = _parsed(text_of(file), file, "it is no JSON")
    if not isinstance(content, dict):
        raise damaged(file, f"it holds a {type(content).__name__}, not a map of keys")
    return content


def rows_of(file: Path, *keys: str) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file that we wrote; none where there is no file. A cut last row is left out.

    Every row has these keys, and its step is a number where it has one.

    Raises
    ------
    CheckpointError : it cannot be read, or one of the other rows is damaged; its line is named.
    """
    if not file.exists():
        return []
    lines = content_of(file).splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.endswith(b"\n"):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                break  # a kill came while it was written
        else:
            row = _parsed(line, file, f"line {number} is no row of JSON")
        if not isinstance(row, dict) or not isinstance(row.get("step", 0), (int, float)):
            raise damaged(file, f"line {number} is no row of numbers and how they were made")
        if missing := [key for key in keys if key not in row]:
            raise damaged(file, f"line {number} has no {' and no '.join(missing)}")
        rows.append(row)
    return rows


def damaged(file: Path, problem: str) -> CheckpointError:
    """What to tell a user whose file is not as we wrote it."""
    return CheckpointError(
        f"it is damaged: {problem}", where=str(file),
        hint="copy it again from where it was whole; or move it away, and what it says is lost",
    )  # fmt: skip


def _parsed(text: str | bytes, file: Path, problem: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(file, f"{problem} ({str(error).split(':')[0]})") from None
