"""Files of ours that are damaged: each kind has one reader, which says what is wrong and where, and runs nothing."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ganvas import cli
from ganvas.errors import CheckpointError, DataError, GanvasError
from ganvas.files.files import append_rows, cut_after, read_rows
from ganvas.files.reading import check_place, content_of, mapping_of, text_of
from ganvas.report.record import Record

DEEP = b"[" * 200_000
ROW = b'{"step": 1, "loss": 0.5}\n'
BAD_ROWS = {
    "not UTF-8": b"\xff\xfe\x00\n" + ROW,
    "deep": DEEP + b"\n" + ROW,
    "no JSON": b"loss 0.5\n" + ROW,
    "no row": b"[1]\n" + ROW,
    "a step of text": b'{"step": "one"}\n' + ROW,
}


@pytest.mark.parametrize("content", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_damaged_row_is_named_and_a_cut_one_is_left_out(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(content)
    for read in (read_rows, lambda place: cut_after(place, 1)):
        with pytest.raises(CheckpointError, match="line 1"):
            read(file)
    assert file.read_bytes() == content
    for half in (b'{"step": 2, "lo', b"\xff", DEEP):
        file.write_bytes(ROW + half)
        assert read_rows(file) == [{"step": 1, "loss": 0.5}]
        append_rows(file, [{"step": 2}])  # as an evaluation does after a kill
        assert read_rows(file) == [{"step": 1, "loss": 0.5}, {"step": 2}]
    with pytest.raises(CheckpointError, match="line 2 has no loss"):
        read_rows(file, "loss")


@pytest.mark.parametrize("content", [b"\xff\xfe{}", DEEP, b'{"data": ', b"[1]", b""])
def test_a_map_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        mapping_of(tmp_path / "provenance.json")


SPOILT = {"not UTF-8": b"\xff\xfe\x00\n\xff", "deep": DEEP + b"\n" + ROW, "cut": b'{"data'}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("name", ["provenance.json", "resolved.yaml", "recipe.yaml", "log.jsonl", "scores.jsonl"])
def test_no_command_takes_damage_for_a_bug(
    name: str, spoil: bytes, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every verb that reads a run says what is wrong with it, or does without; no traceback."""
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    (run / name).write_bytes(spoil)
    for line in (
        f"train --resume --out {run} --device cpu",
        f"sample {run} --n 1 --out {tmp_path / 'one.npz'}",
        f"eval {run} --best-of",
    ):
        code = cli.run(line.split())
        said = capsys.readouterr().err
        assert "Traceback" not in said and "bug of ours" not in said, said
        assert code in (0, 2)
    Record.read(run)  # a report leaves out what it cannot read


# --------------------------------------------------------------------------------------------------- no files at all


@pytest.fixture(params=["pipe", "device", "socket"])
def odd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Something in the file system that is neither a file nor a folder."""
    place = tmp_path / "odd.npy"
    if request.param == "pipe":
        os.mkfifo(place)
    elif request.param == "device":
        place.symlink_to("/dev/zero")
    else:
        monkeypatch.chdir(tmp_path)  # the path of a socket may have 107 bytes
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("odd.npy")
    return place


def test_what_is_no_file_is_not_opened(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None of these comes back where it waits for a pipe or reads a device to its end."""
    readers: tuple[Callable[[Path], object], ...] = (check_place, content_of, text_of, mapping_of, read_rows)
    for read in readers:
        with pytest.raises(GanvasError, match="not a file"):
            read(odd)
    with pytest.raises(DataError, match="not a file"):
        content_of(odd, error=DataError)
    for line in (
        f"eval {odd}", f"eval {odd} --against digits", f"eval digits --against {odd}",
        f"train folder data.use=arrays data.path={odd}", f"sample {odd}", f"inspect {odd}", f"train {odd}",
        f"eval digits --protocol {odd}", f"import {odd} --out model.safetensors", f"list --parts {odd}",
    ):  # fmt: skip
        code = cli.run(line.split())
        said = capsys.readouterr().err
        assert code == 2 and "Traceback" not in said, (line, said)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)  # a hole: no byte of it is on the disk
    with pytest.raises(CheckpointError, match="at most"):
        mapping_of(file)
    file.write_bytes(b"four")
    assert content_of(file, limit=4) == b"four"
    with pytest.raises(CheckpointError, match="4 bytes; at most 3"):
        content_of(file, limit=3)
