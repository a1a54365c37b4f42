"""`ganvas train` as several processes: one run folder, any number to resume it, and what happens when one is gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import finish, start, told
from PIL import Image
from safetensors.torch import load_file

from ganvas.engine.checkpoint import Checkpoints
from ganvas.engine.distributed import SILENT_S, first_host, seat_of
from ganvas.engine.feed import Feed
from ganvas.errors import UsageError
from ganvas.files import pictures
from ganvas.files.files import read_rows
from ganvas.model import Model
from ganvas.recipe.recipe import Recipe
from ganvas.runtime import ranks
from ganvas.training.session import sample_grid
from ganvas.training.train import open_data, train

DIGITS = [
    "tiny/digits-dcgan", "train.steps=4", "train.batch=16", "train.checkpoint_every=2", "train.log_every=1",
    "train.keep=9",
]  # fmt: skip
POINTS = ["tiny/gaussians-mlp", "train.steps=100000", "train.checkpoint_every=20", "train.keep=3", "eval=~"]
GANVAS = ["-m", "ganvas.cli", "train"]


def wait_for(file: Path, seconds: float = 300) -> None:  # a busy machine takes more than a minute to begin
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end, f"{file} never came"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def by_torchrun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that torchrun started, as a user types it."""
    folder = tmp_path_factory.mktemp("torchrun")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *GANVAS, *DIGITS,
        "--out", "run",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("report   run/report.html") == 1  # told by one
    return folder / "run"


def test_one_run_folder_with_every_row_once(by_torchrun: Path) -> None:
    assert [row["step"] for row in read_rows(by_torchrun / "log.jsonl")] == [1, 2, 3, 4]
    assert len(Checkpoints(by_torchrun / "checkpoints", 9).steps()) == 2
    names = [row["metric"] for row in read_rows(by_torchrun / "scores.jsonl")]
    assert len(names) == len(set(names)) > 0
    assert json.loads((by_torchrun / "provenance.json").read_text())["processes"] == 2


def test_pictures_and_scores_of_all_ranks_are_those_of_one(by_torchrun: Path, tmp_path: Path) -> None:
    model = Model.load(by_torchrun)
    pictures.save(sample_grid(model, seed=0), tmp_path / "alone.png")
    drawn = np.asarray(Image.open(by_torchrun / "samples" / "step-0000004.png")).astype(int)
    alone = np.asarray(Image.open(tmp_path / "alone.png")).astype(int)
    # After four steps much of a picture is the grey on the border of 127 and 128, and the last bit of a sum depends on
    # the number of threads. Another latent, label or order of them would differ by far more than one level.
    assert np.abs(drawn - alone).max() <= 1
    from ganvas.evaluation.judge import judge_for
    from ganvas.evaluation.protocol import load_protocol

    judge = judge_for(load_protocol("digits"), model.recipe["data"])
    by_one = {row["metric"]: row["value"] for row in judge.score_model(model)}
    by_all = {row["metric"]: row["value"] for row in read_rows(by_torchrun / "scores.jsonl")}
    assert by_all == pytest.approx(by_one, rel=1e-4)  # of 8-bit pictures: the border again


def test_one_process_goes_on_with_what_two_began(by_torchrun: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(by_torchrun, tmp_path / "run")
    model = train(folder, "train.steps=6", out=folder, resume=True, allow_changes=True)
    assert model.step == 6
    assert [row["step"] for row in read_rows(folder / "log.jsonl")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("after", [1, 2])
def test_pieces_of_a_checkpoint_come_together_in_any_number_of_processes(after: int, tmp_path: Path) -> None:
    begun = [*GANVAS, *DIGITS, "train.parallel=sharded", "train.steps=2", "eval=~", "ema.decay=0.9", "--out", "run"]
    assert finish(start(begun, 2, tmp_path), 200) == [0, 0], told(tmp_path, 0)
    saved = tmp_path / "run" / "checkpoints" / "step-0000002"
    files = [each for each in saved.rglob("*") if each.is_file()]
    assert len([each for each in files if "shards" in each.parts]) == 2
    assert {each.suffix for each in files} == {".safetensors"}  # nothing that could run code
    state = Checkpoints(saved.parent, 9).load(2)
    averages = {f"{role}.{key}": value for role, own in state["averages"].items() for key, value in own.items()}
    result = load_file(tmp_path / "run" / "model.safetensors")
    for name, value in averages.items():
        assert torch.equal(value, result[name]), name
    resumed = [*GANVAS, "run", "train.steps=4", "--resume", "--allow-changes", "--out", "run"]
    assert finish(start(resumed, after, tmp_path), 200) == [0] * after, told(tmp_path, 0)
    rows = read_rows(tmp_path / "run" / "log.jsonl")
    assert [(row["step"], row["images"]) for row in rows] == [(1, 16), (2, 32), (3, 48), (4, 64)]


def test_a_killed_rank_ends_the_job_within_a_minute_and_it_resumes(tmp_path: Path) -> None:
    started = start([*GANVAS, *POINTS, "--out", "run"], 2, tmp_path)
    try:
        wait_for(tmp_path / "run" / "checkpoints" / "step-0000020" / "state.safetensors")
        started[1].kill()
        assert started[0].wait(60) == 2
    finally:
        finish(started, 1) if all(each.poll() is not None for each in started) else [each.kill() for each in started]
    assert "WorkerLost" in told(tmp_path, 0) and "--resume" in told(tmp_path, 0)
    assert "Traceback" not in told(tmp_path, 0)
    last = Checkpoints(tmp_path / "run" / "checkpoints", 9).steps()[-1]
    resumed = [*GANVAS, "run", f"train.steps={last + 5}", "--resume", "--allow-changes", "--out", "run"]
    assert finish(start(resumed, 2, tmp_path), 200) == [0, 0], told(tmp_path, 0)
    assert f"going on from step {last}" in told(tmp_path, 0)


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_job_within_a_minute(tmp_path: Path) -> None:
    started = start([*GANVAS, *POINTS, "--out", "run"], 2, tmp_path)
    try:
        wait_for(tmp_path / "run" / "checkpoints" / "step-0000020" / "state.safetensors")
        started[1].send_signal(signal.SIGSTOP)
        assert started[0].wait(60) == 2
    finally:
        for each in started:
            each.kill()
            each.wait()
    assert f"process 1 of 2 has not been heard of for {SILENT_S} s" in told(tmp_path, 0)


def test_an_interrupt_of_any_rank_stops_all_at_one_step(tmp_path: Path) -> None:
    started = start([*GANVAS, *POINTS, "--out", "run"], 2, tmp_path)
    try:
        wait_for(tmp_path / "run" / "checkpoints" / "step-0000020" / "state.safetensors")
        started[1].send_signal(signal.SIGINT)
        assert [each.wait(60) for each in started] == [130, 130], told(tmp_path, 0)
    finally:
        for each in started:
            each.kill()
    assert "Stopped and saved at step" in told(tmp_path, 0)
    assert told(tmp_path, 1).strip() == ""


def test_a_mistake_is_told_once_and_writes_nothing(tmp_path: Path) -> None:
    assert finish(start([*GANVAS, *DIGITS, "train.batch=15", "--out", "run"], 2, tmp_path), 100) == [2, 2]
    assert "cannot be dealt to 2 processes" in told(tmp_path, 0)
    assert told(tmp_path, 1).strip() == ""
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------------------------------- without processes


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_are_dealt_each_datum_once_whatever_their_number(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_data(Recipe.load("tiny/digits").resolve())
    monkeypatch.setattr(ranks, "world", lambda: world)

    def seen(rank: int) -> list[torch.Tensor]:
        monkeypatch.setattr(ranks, "rank", lambda: rank)
        feed = Feed(dataset, 8, 0, torch.device("cpu"), channels_last=False)
        return [next(feed).data for _ in range(3)]

    shares = [seen(rank) for rank in range(world)]
    together = [torch.stack(each, 1).flatten(0, 1) for each in zip(*shares, strict=True)]
    monkeypatch.setattr(ranks, "world", lambda: 1)
    for one, whole in zip(together, seen(0), strict=True):
        assert torch.equal(one, whole)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WORLD_SIZE": "1", "RANK": "0"}, None),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),  # the shell of an allocation
        ({"WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "7"},
         (2, 4, 0, "a", 7)),
        (
            {
                "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "12042",
                "SLURM_STEP_NODELIST": "gpu[007-010,12]",
            },
            (5, 8, 1, "gpu007", 29542),
        ),
    ],
)  # fmt: skip
def test_torchrun_and_slurm_say_who_a_process_is(environment: dict[str, str], expected: Sequence[object]) -> None:
    seat = seat_of(environment)
    assert expected is None if seat is None else (
        (seat.rank, seat.world, seat.local_rank, seat.address, seat.port) == expected
    )  # fmt: skip


def test_half_an_environment_is_a_mistake_with_a_hint() -> None:
    with pytest.raises(UsageError, match="RANK"):
        seat_of({"WORLD_SIZE": "4"})


@pytest.mark.parametrize(
    ("nodes", "first"), [("n1", "n1"), ("n1,n2", "n1"), ("gpu[03-05,9]", "gpu03"), ("a[1-2]-ib,b7", "a1-ib")]
)
def test_the_first_machine_of_a_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first
