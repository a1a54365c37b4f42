"""Plain text in files: UTF-8, one kind of line end, characters in their composed form."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from ganvas.errors import DataError
from ganvas.files.reading import content_of


def read_text(file: Path, where: str = "") -> str:
    """The text of a UTF-8 file without its byte order mark, in Unicode's composed form (NFC).

    Line ends of every system become one newline.

    Raises
    ------
    DataError : it cannot be read, or is not UTF-8; the line is named.
    """
    place = where or str(file)
    content = content_of(file, error=DataError)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"byte 0x{content[error.start]:02x} is no UTF-8", where=f"{place}:{line}", hint="save it as UTF-8 text"
        ) from None
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
