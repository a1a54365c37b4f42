"""The command in processes of its own: sessions that share a storage, are killed, and are interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from in_process import Go

from ganvas import cli


def command(file: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "ganvas.cli", "search", "tiny/gaussians-mlp", str(file), "--out", str(out), *more]


def start(line: list[str]) -> subprocess.Popen[str]:
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=alone)


def children_of(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task/{process}/children")
    if not tasks.is_file():
        pytest.skip("this system does not list a process's children")
    return [int(each) for each in tasks.read_text().split()]


def test_the_command_shows_the_front_and_writes_its_page(
    space_file: Callable[..., Path], go: Go, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two workers of one session: all trials are there, and each as it would be alone, since it is trained by seed."""
    file, out = space_file(4), tmp_path / "out"
    assert cli.run(["search", "tiny/gaussians-mlp", str(file), "--out", str(out), "--jobs", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((out / "search.json").read_text())
    assert [each["trial"] for each in shown["trials"]] == [0, 1, 2, 3]
    assert all(each["state"] == "complete" for each in shown["trials"])
    assert cli.run(["search", "tiny/gaussians-mlp", str(file), "--out", str(out)]) == 0
    shown_table = capsys.readouterr().out
    assert f"| {shown['front'][0]} |" in shown_table and "| trial | parameters ↓ | macs ↓ |" in shown_table
    assert "<!doctype html>" in (out / "search.html").read_text()


@pytest.mark.slow
def test_two_sessions_share_a_storage_without_a_trial_twice(space_file: Callable[..., Path], tmp_path: Path) -> None:
    file, storage = space_file(8), str(tmp_path / "both.db")
    outs = [tmp_path / "one", tmp_path / "two"]
    both = [start(command(file, out, "--storage", storage, "--json")) for out in outs]
    ended = [each.communicate(timeout=600) for each in both]
    assert [each.returncode for each in both] == [0, 0], ended
    one, two = (json.loads(out) for out, _ in ended)
    assert one == two and [each["trial"] for each in one["trials"]] == list(range(8))
    trained = [{int(folder.name) for folder in (out / "trials").iterdir()} for out in outs]
    assert trained[0] | trained[1] == set(range(8)) and not trained[0] & trained[1]


LONG = "overrides: [train.steps=4, train.checkpoint_every=2, train.log_every=2]"


def long_space(space_file: Callable[..., Path]) -> Path:
    file = space_file(2)
    steps = "overrides: [train.steps=1500, train.checkpoint_every=50, train.log_every=500, train.sample_every=1500]"
    file.write_text(file.read_text().replace(LONG, steps))
    return file


def wait_for(what: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["worker", "session", "session, politely"])
def test_whoever_is_killed_the_search_ends_as_if_nothing_had_been(
    who: str, space_file: Callable[..., Path], go: Go, tmp_path: Path
) -> None:
    file, out = long_space(space_file), tmp_path / "out"
    begun = start(command(file, out, "--json"))
    checkpoints = out / "trials" / "0" / "seed-0" / "checkpoints"
    wait_for(lambda: any(checkpoints.glob("step-*/state.safetensors")))
    workers = children_of(begun.pid)
    if who == "worker":
        for worker in workers:
            if b"resource_tracker" not in Path(f"/proc/{worker}/cmdline").read_bytes():
                os.kill(worker, signal.SIGKILL)
    elif who == "session":
        begun.kill()
    else:
        begun.send_signal(signal.SIGINT)
    out_text, err = begun.communicate(timeout=600)
    if who == "worker":
        assert begun.returncode == 0 and "retry 1 of" in err
    else:
        assert begun.returncode == (130 if "politely" in who else -signal.SIGKILL), err
        wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
        assert not (out / "search.json").exists()
        saved = max(checkpoints.glob("step-*"))
        if "politely" in who:
            assert "Stopped with 0 of 2 done" in err
        stood = (saved / "state.safetensors").stat().st_mtime_ns
        again = start(command(file, out, "--json"))
        wait_for(lambda: any(each > saved for each in checkpoints.glob("step-*")))
        assert not saved.exists() or (saved / "state.safetensors").stat().st_mtime_ns == stood
        out_text, err = again.communicate(timeout=600)
        assert again.returncode == 0, err
    undisturbed = go(file, tmp_path / "whole")
    assert json.loads(out_text) == undisturbed
    model = Path("trials", "0", "seed-0", "model.safetensors")
    assert (out / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()
