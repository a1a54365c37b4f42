"""Files behind http(s) addresses, read forward over broken connections.

Nothing is ever run to fetch data: `pipe:` addresses and those that need a command of their own are refused.
"""

from __future__ import annotations

import io
import re
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ganvas.errors import DataError

ATTEMPTS = 5  # at one place of a file, with growing pauses
FIRST_PAUSE_SECONDS = 0.5
TIMEOUT_SECONDS = 30.0
PIECE = 1 << 20  # bytes that are asked of the connection at once

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_LATER = {408, 425, 429, 500, 502, 503, 504}  # what a server says when asking again may help


class Facts(NamedTuple):
    """What a server says of a file: its bytes, and what changes with its content."""

    size: int | None
    tag: str


def is_url(place: str) -> bool:
    """Whether a place is an http(s) address rather than a path.

    Raises
    ------
    DataError : it is an address of another kind.
    """
    match = _SCHEME.match(place)
    if match is None:
        return False
    scheme = match.group(1).lower()
    if scheme in ("http", "https"):
        return True
    if scheme == "pipe":
        raise DataError(
            "a pipe: address runs a command, which data are never allowed to", where=place,
            hint="give paths or https:// addresses; fetch the files first where a command is needed",
        )  # fmt: skip
    raise DataError(
        f"addresses of the kind {scheme}: cannot be read", where=place,
        hint="give paths, http:// or https:// addresses; buckets give out signed https:// addresses",
    )  # fmt: skip


def facts(url: str) -> Facts:
    """What the server says of a file, without fetching it."""
    file = RemoteFile(url)
    with file:
        return file.facts()


def fetch(url: str, *, most: int) -> bytes | None:
    """A small file whole, or None where there is none.

    Raises
    ------
    DataError : the server does not answer, or the file has more than `most` bytes.
    """
    try:
        with RemoteFile(url) as file:
            data = file.read(most + 1)
    except Absent:
        return None
    if len(data) > most:
        raise DataError(f"it has more than {most} bytes", where=url, hint="this is no such file")
    return data


class Absent(DataError):
    """The server says that there is no such file, or not for us."""


class RemoteFile(io.RawIOBase):
    """The bytes behind a URL. A connection that breaks is taken up where it broke.

    Raises
    ------
    DataError : the server does not answer, the file is cut off, or it has changed since it was first asked for.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._at = 0
        self._response: HTTPResponse | None = None
        self._facts: Facts | None = None

    def facts(self) -> Facts:
        if self._facts is None:
            self._connected()
        assert self._facts is not None
        return self._facts

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence)
        if start is None and (start := self.facts().size) is None:
            raise DataError("the server does not say how large it is", where=self._url, hint="download it first")
        if start + offset != self._at:
            self._drop()
            self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, fewer only at the file's end; all that is left where it is negative."""
        pieces: list[bytes] = []
        left = float("inf") if size is None or size < 0 else size
        while left > 0:
            piece = self._piece(int(min(left, PIECE)))
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self._drop()
        super().close()

    def _piece(self, size: int) -> bytes:
        total = self.facts().size
        if total is not None and self._at >= total:
            return b""
        for attempt in range(ATTEMPTS):
            try:
                data = self._connected().read(size)
                if data or total is None:
                    self._at += len(data)
                    return data
                said = f"it ends after {self._at} of {total} bytes"
            except (OSError, HTTPException) as error:
                said = str(error) or type(error).__name__
            self._drop()
            _pause(attempt)
        raise DataError(f"the connection breaks: {said}", where=self._url, hint="look at the server, then resume")

    def _connected(self) -> HTTPResponse:
        if self._response is not None:
            return self._response
        headers = {"User-Agent": "ganvas"} | ({"Range": f"bytes={self._at}-"} if self._at else {})
        said = ""
        for attempt in range(ATTEMPTS):
            try:
                response = urllib.request.urlopen(  # http(s) alone comes here, and redirects to files are refused
                    urllib.request.Request(self._url, headers=headers), timeout=TIMEOUT_SECONDS
                )
                self._response = self._placed(response)
                return self._response
            except urllib.error.HTTPError as error:
                said = f"HTTP {error.code} {error.reason}"
                error.close()
                if error.code not in _LATER:
                    raise Absent(f"the server says {said}", where=self._url, hint="check the address") from None
            except (OSError, HTTPException, ValueError) as error:
                cause = error.reason if isinstance(error, urllib.error.URLError) else error
                said = str(cause) or type(error).__name__
            _pause(attempt)
        raise DataError(f"the server cannot be reached: {said}", where=self._url, hint="check the address, then resume")

    def _placed(self, response: HTTPResponse) -> HTTPResponse:
        """The response with its next byte the one at `_at`, once it is certain that it is the same file still."""
        size = response.headers.get("Content-Length")
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        skipped = response.status == 206
        length = None if size is None else int(size) + (self._at if skipped else 0)
        if self._facts is None:
            self._facts = Facts(length, tag)
        elif self._facts != Facts(length, tag):
            response.close()
            raise DataError("it changed while it was read", where=self._url, hint="start again from a checkpoint")
        ahead = 0 if skipped else self._at  # a server without ranges begins anew
        while ahead:
            data = response.read(min(ahead, PIECE))
            if not data:
                raise OSError("it ends before the place where it broke")
            ahead -= len(data)
        return response

    def _drop(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


def _pause(attempt: int) -> None:
    if attempt + 1 < ATTEMPTS:
        time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)


def basename(place: str) -> str:
    """The last step of a path or address, without a query."""
    return (urlsplit(place).path if is_url(place) else place).rsplit("/", 1)[-1]
