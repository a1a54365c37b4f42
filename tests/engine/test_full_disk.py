"""A disk that fails at any moment of a save: nothing that was there is lost, and nothing half-written is picked up."""

from __future__ import annotations

import errno
import io
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from ganvas import cli
from ganvas.engine.checkpoint import Checkpoints
from ganvas.engine.trainer import Hooks, State, Trainer
from ganvas.errors import CheckpointError
from ganvas.files.files import append_rows, model_metadata, read_rows, read_tensors, write_bytes, write_tensors

Make = Callable[..., Trainer]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Disk:
    """Counts what is asked of the disk, and fails from the `first` call on: once, or for good."""

    def __init__(self, first: int, *, for_good: bool) -> None:
        self.first = first
        self.for_good = for_good
        self.calls = 0

    @property
    def failed(self) -> bool:
        return self.calls >= self.first

    def ask(self) -> None:
        self.calls += 1
        if self.calls == self.first or (self.for_good and self.failed):
            raise OSError(*FULL.args)


class HalfWriter(io.FileIO):
    """A file that keeps half of what it is given before the disk is found to be full."""

    disk: Disk

    def write(self, content: Any) -> int:
        try:
            self.disk.ask()
        except OSError:
            super().write(bytes(content)[: len(content) // 2])
            raise
        return super().write(content) or 0


@contextmanager
def failing_disk(first: int, *, for_good: bool) -> Iterator[Disk]:
    """Writes, renames, syncs and new folders ask the `Disk` first; removing always works, as on a full disk."""
    disk = Disk(first, for_good=for_good)
    plain_open = Path.open

    def open_file(self: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        if not {*mode} & {*"wax"} or "b" not in mode:
            return plain_open(self, mode, *more, **options)
        disk.ask()
        stream = HalfWriter(str(self), mode.replace("b", ""))
        stream.disk = disk
        return stream

    def asking(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            disk.ask()
            return plain(*given, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", open_file)
        for name in ("fsync", "replace", "rename", "mkdir"):
            patch.setattr(os, name, asking(getattr(os, name)))
        yield disk


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel itself refuses to make any file larger than so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def every_moment(attempt: Callable[[int], bool], limit: int = 200) -> int:
    """Call with 1, 2, ... until the disk was not asked so often; how often it was."""
    for first in range(1, limit):
        if not attempt(first):
            return first - 1
    raise AssertionError("there is no end to it")


# --------------------------------------------------------------------------------------------------- one save


@pytest.mark.parametrize("for_good", [False, True])
def test_failure_at_any_moment_of_a_save(make_trainer: Make, tmp_path: Path, for_good: bool) -> None:
    def trainer_in(folder: Path) -> Trainer:
        folder.mkdir(exist_ok=True)

        def model(step: int, state: State, best: bool) -> None:
            write_tensors(folder / "model.safetensors", state["net"], {"step": str(step)})

        return make_trainer(folder=folder, hooks=Hooks(saved=model), keep=1)

    trainer_in(tmp_path / "whole").run()
    whole = Checkpoints(tmp_path / "whole" / "checkpoints", 1).load(4)

    def attempt(first: int) -> bool:
        folder = tmp_path / f"fails-at-{first}"
        trainer = trainer_in(folder)
        while trainer.step < 3:
            trainer.take_step()
            trainer.around_the_step()
        with failing_disk(first, for_good=for_good) as disk:
            trainer.take_step()
            try:
                trainer.around_the_step()
            except CheckpointError as error:
                assert "--resume" in error.hint
            else:
                assert not disk.failed
        # Whatever happened, there are a whole checkpoint and a whole model.
        read_tensors(folder / "model.safetensors")
        found = Checkpoints(folder / "checkpoints", 1).steps()
        assert found in ([2], [4], [2, 4])
        resumed = trainer_in(folder)
        assert resumed.resume() == found[-1]
        assert list(folder.rglob(".*")) == []
        resumed.run()
        state = Checkpoints(folder / "checkpoints", 1).load(4)
        assert all(torch.equal(state["nets"]["net"][name], tensor) for name, tensor in whole["nets"]["net"].items())
        assert (folder / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()
        assert read_tensors(folder / "model.safetensors")[1]["step"] == "4"
        return disk.failed

    assert every_moment(attempt) >= 10


# --------------------------------------------------------------------------------------------------- single files


def test_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"

    def attempt(first: int) -> bool:
        file.write_bytes(b"old")
        with failing_disk(first, for_good=False) as disk:
            try:
                write_bytes(file, b"newer")
            except CheckpointError as error:
                assert error.where == str(file)
                assert "No space left" in error.problem
        assert file.read_bytes() == (b"old" if disk.failed else b"newer")
        assert [each.name for each in tmp_path.iterdir()] == ["model.bin"]
        return disk.failed

    assert every_moment(attempt) == 4  # open, write, sync, rename


def test_row_that_does_not_fit_is_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    append_rows(file, [{"step": 1}])

    def attempt(first: int) -> bool:
        with failing_disk(first, for_good=True) as disk:
            try:
                append_rows(file, [{"step": 2, "loss": 0.5}])
            except CheckpointError:
                assert file.read_text() == '{"step": 1}\n'
        return disk.failed

    every_moment(attempt)
    assert read_rows(file) == [{"step": 1}, {"step": 2, "loss": 0.5}]


def test_row_that_the_kernel_refuses_half_way_is_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    append_rows(file, [{"step": 1}])
    with largest_file(file.stat().st_size + 5), pytest.raises(CheckpointError, match="File too large"):
        append_rows(file, [{"step": 2, "loss": 0.5}])
    assert file.read_text() == '{"step": 1}\n'


def test_row_that_the_disk_takes_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.FileIO):
        def write(self, content: Any) -> int:
            return super().write(bytes(content)[:3]) or 0

    monkeypatch.setattr(Path, "open", lambda self, mode, buffering: Slow(str(self), mode.replace("b", "")))
    append_rows(tmp_path / "log.jsonl", [{"step": 1, "loss": 0.25}])
    monkeypatch.undo()
    assert read_rows(tmp_path / "log.jsonl") == [{"step": 1, "loss": 0.25}]


def test_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for write in (lambda file: write_bytes(file, b"x"), lambda file: append_rows(file, [{"step": 1}])):
        with pytest.raises(CheckpointError, match="cannot be written"):
            write(tmp_path / "file" / "log.jsonl")
    assert read_rows(tmp_path / "nowhere.jsonl") == []


# --------------------------------------------------------------------------------------------------- the whole command

ARGUMENTS = ["train", "tiny/digits", "train.steps=4", "train.checkpoint_every=2", "train.log_every=1", "eval="]


def ganvas(out: Path, *more: str) -> int:
    return cli.run([*ARGUMENTS, "--out", str(out), "--device", "cpu", *more])


def check_left_and_resume(killing: ModuleType, out: Path, whole: dict[str, Any]) -> None:
    if (out / "model.safetensors").is_file():
        model_metadata(out)
        read_tensors(out / "model.safetensors")
    text = (out / "log.jsonl").read_text() if (out / "log.jsonl").is_file() else ""
    assert text == "" or text.endswith("\n")
    begun = out.is_dir() and any(out.iterdir())  # else there is nothing to go on from
    assert ganvas(out, *(["--resume"] if begun else [])) == 0
    assert killing.differences(whole, killing.contents(out)) == []


@pytest.fixture(scope="module")
def whole(killing: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert ganvas(out) == 0
    return killing.contents(out)


@pytest.mark.parametrize("first", [1, 3, 8, 14, 19, 25, 31, 37, 44])
def test_disk_that_fills_up_during_training_ends_it_with_exit_code_2(
    killing: ModuleType, whole: dict[str, Any], tmp_path: Path, first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with failing_disk(first, for_good=True) as disk:
        code = ganvas(out)
    said = capsys.readouterr().err
    assert disk.failed
    assert code == 2, said
    assert "Traceback" not in said
    assert "No space left on device" in said
    assert "--resume" in said
    check_left_and_resume(killing, out, whole)


def test_limit_on_file_size_ends_it_with_exit_code_2(
    killing: ModuleType, whole: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with largest_file(50_000):  # a checkpoint is larger
        code = ganvas(out)
    said = capsys.readouterr().err
    assert code == 2, said
    assert "Traceback" not in said
    assert "CheckpointError" in said
    assert Checkpoints(out / "checkpoints", 2).steps() == []
    check_left_and_resume(killing, out, whole)
