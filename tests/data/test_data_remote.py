"""Files behind addresses: whole over broken connections, never by a command."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from serving import Server

from ganvas.errors import DataError
from ganvas.shelves.data.reading import remote

CONTENT = bytes(range(256)) * 4000  # about a megabyte


class Flaky(Server):
    ranges = True
    breaks_after: int | None = None  # bytes of each answer, then the connection is cut
    errors = 0  # so many answers are 503 before one is given
    tag = "one"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Flaky

    def do_GET(self) -> None:
        if self.path != "/file":
            self.send_error(404)
            return
        if self.server.errors:
            self.server.errors -= 1
            self.send_error(503)
            return
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.send_header("ETag", self.server.tag)
        self.end_headers()
        body = CONTENT[start:]
        self.wfile.write(body if self.server.breaks_after is None else body[: self.server.breaks_after])
        self.close_connection = True

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.001)
    server = Flaky(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def url(server: Flaky, path: str = "/file") -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


def test_it_reads_a_file_in_pieces(server: Flaky) -> None:
    with remote.RemoteFile(url(server)) as file:
        pieces = [file.read(300_000), file.read(1), file.read(), file.read(5)]
    assert b"".join(pieces) == CONTENT
    assert [len(each) for each in pieces] == [300_000, 1, len(CONTENT) - 300_001, 0]


def test_it_reads_where_it_is_told_to(server: Flaky) -> None:
    with remote.RemoteFile(url(server)) as file:
        file.seek(-7, 2)
        assert file.read() == CONTENT[-7:]
        file.seek(1000)
        assert file.read(3) == CONTENT[1000:1003]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_taken_up_where_it_broke(server: Flaky, ranges: bool) -> None:
    server.ranges = ranges
    server.breaks_after = 300_000 if ranges else None
    with remote.RemoteFile(url(server)) as file:
        begun = file.read(10)
        if not ranges:  # by hand, as without ranges every answer would break before the place
            file._drop()
        assert begun + file.read() == CONTENT


def test_a_busy_server_is_asked_again(server: Flaky) -> None:
    server.errors = 2
    assert remote.fetch(url(server), most=1 << 30) == CONTENT


def test_a_file_that_is_cut_off_is_no_end(server: Flaky) -> None:
    server.breaks_after, server.ranges = 1000, False
    with remote.RemoteFile(url(server)) as file, pytest.raises(DataError, match="the connection breaks: it ends"):
        file.read()


def test_a_file_that_changes_is_not_read_on(server: Flaky) -> None:
    with remote.RemoteFile(url(server)) as file:
        file.read(10)
        file._drop()
        server.tag = "two"
        with pytest.raises(DataError, match="it changed while it was read"):
            file.read(10)


def test_absent_and_too_large(server: Flaky) -> None:
    assert remote.fetch(url(server, "/other"), most=10) is None
    with pytest.raises(DataError, match="more than 10 bytes"):
        remote.fetch(url(server), most=10)
    with pytest.raises(DataError, match="404"):
        remote.facts(url(server, "/other"))


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.001)
    with pytest.raises(DataError, match="cannot be reached"):
        remote.facts("http://127.0.0.1:1/a.tar")


@pytest.mark.parametrize("place", ["pipe:touch /tmp/harm", "PIPE:cat x", "s3://bucket/a.tar", "file:///etc/passwd"])
def test_addresses_that_need_a_command_or_another_client_are_refused(place: str) -> None:
    with pytest.raises(DataError) as caught:
        remote.is_url(place)
    assert caught.value.hint
    assert ("runs a command" in caught.value.problem) == place.lower().startswith("pipe:")


def test_paths_are_no_addresses() -> None:
    assert not remote.is_url("shards/{000..099}.tar")
    assert not remote.is_url("C:/shards/000.tar")
    assert remote.is_url("https://host/000.tar?token=1")
    assert remote.basename("https://host/x/000.tar?token=1/2") == "000.tar"
