"""Workers that are killed, asked to stop, slow to leave or ill-configured, here and as SLURM jobs.

SLURM's part is played by submitit's own processes on this machine.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor

from ganvas import cli
from ganvas.errors import BadValue, InUse, MissingExtra, UsageError, WorkerLost
from ganvas.experiments import places, study
from ganvas.experiments.places import Call, Local, Place, Work, carry_out_all, dispatch, place_named
from ganvas.experiments.places.work import carry_out, last_saved
from ganvas.files.files import claimed, is_claimed
from ganvas.recipe.recipe import Recipe

InMidRun = Callable[..., None]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.fixture(params=["local", pytest.param("slurm", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    settings = ["cluster=local"] if request.param == "slurm" else []
    with contextlib.closing(place_named(request.param, settings, Call(tmp_path / "study", 2, 1, 2))) as one:
        yield one


@pytest.fixture
def local() -> Iterator[Local]:
    with contextlib.closing(Local()) as one:
        yield one


# --------------------------------------------------------------------------------------------------- killed workers


def test_a_killed_worker_goes_on_from_its_checkpoint_to_the_same_bits(
    place: Place, recipe: Recipe, undisturbed: dict[str, Any], killing: ModuleType, in_mid_run: InMidRun, tmp_path: Path
) -> None:
    work = Work.here(recipe, tmp_path / "study" / "run", "run", threads=1)
    in_mid_run(work.folder, kill)
    said: list[str] = []
    assert carry_out_all([work], place, tell=lambda done, total, text: said.append(f"{done}/{total} {text}")) == {}
    assert said[0] == "0/1 already there" and said[2:] == ["1/1 run"]
    assert said[1].startswith("0/1 run: its ") and "retry 1 of 2, from step " in said[1]
    assert 0 < int(said[1].rsplit(" ", 1)[1]) < 16
    assert killing.differences(undisturbed, killing.contents(work.folder)) == []
    carry_out_all([work], place, tell=lambda done, total, text: said.append(f"{done}/{total} {text}"))
    assert said[3:] == ["1/1 already there"]  # nothing is done twice


@pytest.mark.slow  # several processes that each load torch, one after the other
def test_retries_are_bounded_others_are_not_taken_along_and_the_same_call_goes_on(
    local: Local, recipe: Recipe, undisturbed: dict[str, Any], killing: ModuleType, in_mid_run: InMidRun, tmp_path: Path
) -> None:
    planned = [Work.here(recipe, tmp_path / name, name, threads=1) for name in ("unlucky", "lucky")]

    def kill_and_wait_for_the_next(pid: int) -> None:
        kill(pid)
        before = last_saved(planned[0].folder)
        in_mid_run(planned[0].folder, kill, lambda: last_saved(planned[0].folder) > before)

    local.jobs = 2
    in_mid_run(planned[0].folder, kill_and_wait_for_the_next)
    said: list[str] = []
    with pytest.raises(WorkerLost, match=r"1 of 2 .* 2 times; of the first: its worker was killed by SIGKILL") as told:
        carry_out_all(planned, local, retries=1, tell=lambda done, total, text: said.append(text))
    assert told.value.where == str(planned[0].folder)
    assert len([text for text in said if "retry" in text]) == 1 and "unlucky: its worker was killed" in "".join(said)
    assert places.finished(planned[1]) and not places.finished(planned[0])  # the others are trained nevertheless
    carry_out_all(planned, local, retries=0)
    for work in planned:
        assert killing.differences(undisturbed, killing.contents(work.folder)) == []


def test_divergence_is_a_result_and_no_loss(local: Local, recipe: Recipe, tmp_path: Path) -> None:
    work = Work.here(recipe.override("optim.lr=1e30", "optim.clip_norm=~"), tmp_path / "poison", "poison", threads=1)
    said: list[str] = []
    failed = carry_out_all([work], local, tell=lambda done, total, text: said.append(text))
    assert "not finite" in failed[work.folder] and len(said) == 2 and said[1].startswith("poison: ")
    assert carry_out_all([work], local) == failed and local.ended(0) == []


def test_a_run_without_its_model_is_not_finished(recipe: Recipe, trained_run: Path, tmp_path: Path) -> None:
    """A kill may come between the last scores and the model file."""
    done = Recipe.load("tiny/digits").override("train.steps=2", "eval=")
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    assert places.finished(Work.here(done, run, "", threads=1))
    (run / "model.safetensors").unlink()
    assert not places.finished(Work.here(done, run, "", threads=1))


def test_a_mistake_ends_the_others_with_their_state_saved(recipe: Recipe, tmp_path: Path) -> None:
    long = recipe.override("train.steps=100000", "eval=~")
    broken = recipe.override("networks.generator.from=nowhere.safetensors")
    planned = [Work.here(each, tmp_path / name, name, threads=1) for name, each in (("long", long), ("broken", broken))]
    with contextlib.closing(Local(jobs=2)) as two, pytest.raises(BadValue, match="no model at nowhere"):
        carry_out_all(planned, two)
    assert not (tmp_path / "broken").exists()


# --------------------------------------------------------------------------------------------------- asked to stop


def test_ctrl_c_saves_what_runs_starts_nothing_more_and_is_gone_on_from(
    place: Place, recipe: Recipe, undisturbed: dict[str, Any], killing: ModuleType, in_mid_run: InMidRun, tmp_path: Path
) -> None:
    place.jobs = 1
    first, second = (Work.here(recipe, tmp_path / "study" / name, name, threads=1) for name in ("first", "second"))
    workers: list[int] = []

    def interrupt(pid: int) -> None:
        workers.append(pid)
        os.kill(os.getpid(), signal.SIGINT)

    in_mid_run(first.folder, interrupt)
    said: list[str] = []
    with pytest.raises(places.Interrupted) as told:
        carry_out_all([first, second], place, tell=lambda done, total, text: said.append(text))
    assert (told.value.done, told.value.total) == (0, 2) and "save their state" in said[-1]
    assert 0 < last_saved(first.folder) < 16 and not is_claimed(first.folder) and not second.folder.exists()
    place.close()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{workers[0]}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{workers[0]}").exists()
    with contextlib.closing(Local()) as again:  # at whatever place
        carry_out_all([first], again)
    assert killing.differences(undisturbed, killing.contents(first.folder)) == []


@pytest.mark.slow  # several processes that each load torch, one after the other
def test_a_job_whose_time_is_over_saves_and_queues_itself_again(
    recipe: Recipe, undisturbed: dict[str, Any], killing: ModuleType, in_mid_run: InMidRun, tmp_path: Path
) -> None:
    seldom = recipe.override("train.checkpoint_every=1000", "eval.every=~")
    work = Work.here(seldom, tmp_path / "preempted", "preempted", threads=1)

    def preempt(pid: int) -> None:
        os.kill(pid, signal.SIGUSR2)

    in_mid_run(work.folder, preempt, (work.folder / "log.jsonl").is_file)
    said: list[str] = []
    with contextlib.closing(place_named("slurm", ["cluster=local"], Call(tmp_path / "study", None, 1, 2))) as slurm:
        carry_out_all([work], slurm, tell=lambda done, total, text: said.append(text))
    assert said == ["already there", "preempted"]  # not lost: no retry was needed
    assert "Requeued job" in next((tmp_path / "study" / "slurm-jobs").glob("*_log.out")).read_text()
    ours = killing.contents(work.folder)
    saved, last = ours["checkpoints"]
    assert 0 < saved < last == 16
    weights = {name for name, value in undisturbed.items() if name.startswith("model/") and isinstance(value, Tensor)}
    assert weights and not weights & set(killing.differences(undisturbed, ours))


class Elsewhere(Place):
    """A place whose workers see another file system, or break."""

    jobs, threads, device = 1, 1, "cpu"

    def __init__(self, how: places.Ended) -> None:
        self.how, self.started = how, []

    def start(self, work: Work) -> None:
        self.started.append(work)

    def ended(self, seconds: float) -> list[tuple[Work, places.Ended]]:
        return [(self.started[-1], self.how)]

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_what_a_worker_did_where_nobody_sees_it_is_told(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_SEEN_WITHIN_S", 0.0)
    with pytest.raises(UsageError, match="nothing of it is to be seen here") as told:
        carry_out_all([Work.here(recipe, tmp_path / "run", "run", threads=1)], Elsewhere(places.Ended("done")))
    assert "share" in told.value.hint


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_a_worker_that_is_always_lost_is_tried_so_often(recipe: Recipe, tmp_path: Path, retries: int) -> None:
    hell = Elsewhere(places.Ended("lost", "its worker was killed"))
    with pytest.raises(WorkerLost, match=f"lost their workers {retries + 1} times"):
        carry_out_all([Work.here(recipe, tmp_path / "run", "run", threads=1)], hell, retries=retries)
    assert len(hell.started) == retries + 1


# --------------------------------------------------------------------------------------------------- folders in use


def test_a_folder_that_another_process_trains_into_is_waited_for(local: Local, recipe: Recipe, tmp_path: Path) -> None:
    work = Work.here(recipe.override("train.steps=2", "eval=~"), tmp_path / "run", "run", threads=1)
    other = contextlib.ExitStack()
    other.enter_context(claimed(work.folder))
    said: list[str] = []

    def tell(done: int, total: int, text: str) -> None:
        said.append(text)
        if "another process" in text:
            assert local.ended(0) == [] and not any(work.folder.iterdir())  # nothing was begun
            other.close()

    carry_out_all([work], local, tell=tell)
    assert said[1].startswith("run: another process trains into") and said[2:] == ["run"]
    assert places.finished(work)


def test_a_worker_leaves_a_folder_in_use_alone_also_where_it_holds_another_recipe(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path.cwd())  # a worker changes it
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    for change in ("train.steps=2", "train.batch=7"):
        work = Work.here(Recipe.load("tiny/digits").override("eval=", change), run, "run", threads=1)
        with claimed(run):
            assert carry_out(work).how == "in use"
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


@pytest.mark.slow  # several processes that each load torch, one after the other
def test_a_killed_head_leaves_its_jobs_and_the_next_one_waits_for_them(tmp_path: Path, in_mid_run: InMidRun) -> None:
    out, plan = tmp_path / "out", write_study(tmp_path, "train.steps=60, train.checkpoint_every=5")
    folder = out / "hinge" / "seed-0"
    workers: list[int] = []

    def hold(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        workers.append(pid)

    in_mid_run(folder, hold)
    words = ["bench", str(plan), "--out", str(out), "--on", "slurm", "--with", "cluster=local"]
    log = tmp_path / "head.txt"  # no pipe, which the jobs would hold open
    head = subprocess.Popen([sys.executable, "-m", "ganvas.cli", *words], stderr=log.open("w"))
    while not workers:
        assert head.poll() is None, log.read_text()
        time.sleep(0.01)
    head.kill()
    head.wait()
    said: list[str] = []

    def tell(done: int, total: int, text: str) -> None:
        said.append(text)
        if "another process" in text:
            os.kill(workers[0], signal.SIGCONT)

    try:
        study.execute(study.load(plan), out, jobs=1, threads=1, tell=tell)
    finally:
        with contextlib.suppress(ProcessLookupError):
            kill(workers[0])  # where it waits still
    assert [text.split(":")[0] for text in said] == ["already there", "hinge seed 0", "hinge seed 0"]
    assert json.loads((folder / "provenance.json").read_text())["resumed"] == []
    assert len((folder / "log.jsonl").read_text().splitlines()) == 60  # by one process, and once


def test_where_folders_cannot_be_locked_a_file_in_them_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, where an exclusive lock needs a handle that is open for writing."""
    flock = fcntl.flock

    def of_nfs(handle: int, operation: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().is_dir():
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", of_nfs)
    run = tmp_path / "run"
    assert not is_claimed(run)
    with claimed(run):
        assert is_claimed(run)
        with pytest.raises(InUse, match="another process"), claimed(run):
            pass
    assert not is_claimed(run)
    with claimed(run):
        pass


# --------------------------------------------------------------------------------------------------- the command line

STUDY = """
recipe: tiny/digits
overrides: [train.batch=4, train.log_every=1, train.sample_every=1000, 'eval.every=~', eval.protocol={protocol}, {more}]
grid: {{loss: {{hinge: [task.objective=hinge]}}}}
metrics: [frechet_distance]
seeds: [0]
"""
PROTOCOL = """
extractor: digit-net
reference: {use: digits, split: test, limit: 100}
metrics: {frechet-distance: {}}
samples: 80
seeds: [0]
halves: 0
"""
SOFTPLUS = """
import torch.nn.functional as F
from ganvas.parts import objective
from ganvas.types import Objective

@objective("my-softplus")
class Softplus(Objective):
    \"\"\"The non-saturating loss, by another name.\"\"\"

    def critic(self, real, fake):
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, real, fake):
        return F.softplus(-fake).mean()
"""


def write_study(folder: Path, more: str) -> Path:
    (folder / "quick.yaml").write_text(PROTOCOL)
    file = folder / "small.yaml"
    file.write_text(STUDY.format(protocol=folder / "quick.yaml", more=more))
    return file


def test_the_table_does_not_depend_on_the_place_and_parts_of_ones_own_go_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # relative paths are meant from here, also in workers
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which each place would choose for itself
    Path("softplus.py").write_text(SOFTPLUS)
    plan = write_study(tmp_path, "train.steps=4, train.checkpoint_every=4, task.objective=my-softplus")
    plan.write_text(plan.read_text().replace("[task.objective=hinge]", "[]"))
    words = ["bench", plan.name, "--parts", "softplus.py"]
    assert cli.run([*words, "--out", "here"]) == 0
    assert cli.run([*words, "--out", "there", "--on", "slurm", "--with", "cluster=local", "--with", "mem_gb=2"]) == 0
    assert "1 of 1  hinge seed 0" in capsys.readouterr().err
    for name in ("table.json", "hinge/seed-0/scores.jsonl", "hinge/seed-0/model.safetensors", "hinge/seed-0/log.jsonl"):
        assert Path("here", name).read_bytes() == Path("there", name).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--on rya", "there is no place 'rya' to train at. Did you mean 'ray'?"),
        ("--on local --with devise=cpu", "--on local has no parameter 'devise'. Did you mean 'device'?"),
        ("--on ray --with adress=auto", "--on ray has no parameter 'adress'. Did you mean 'address'?"),
        ("--on ray --with cpus=0", "'cpus'"),
        ("--on slurm --with partitoin=gpu", "--on slurm has no parameter 'partitoin'. Did you mean 'partition'?"),
        ("--on slurm --with timeout_min=soon", "'timeout_min'"),
        ("--on slurm --with nodes=2", "has no parameter 'nodes'"),
        ("--on slurm --with partition", "'partition' is no option"),
        ("--retries -1", "--retries"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    words: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "execute", lambda *_, **__: pytest.fail("it was begun"))
    plan = write_study(tmp_path, "train.steps=4")
    assert cli.run(["bench", str(plan), "--out", str(tmp_path / "out"), *words.split()]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("place", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_told_with_its_extra(place: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=package) as told:
        place_named(place, [], Call(Path("out"), None, None, 2))
    assert f"ganvas[{place}]" in told.value.hint


def test_slurm_is_told_to_be_missing_and_what_a_job_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(tmp_path, None, 4, 2)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="no SLURM here"):
        place_named("slurm", ["partition=gpu"], call)
    (tmp_path / "srun").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    slurm: Any = place_named("slurm", ["partition=gpu", "gpus_per_node=1", "timeout_min=240", "mem_gb=16"], call)
    script = slurm._executor._executor._make_submission_file_text("train", "0")
    for line in ("partition=gpu", "gpus-per-node=1", "time=240", "mem=16GB", "cpus-per-task=4", "signal=USR2@90"):
        assert f"#SBATCH --{line}\n" in script
    assert "--cpus-per-task=4" in script.split("srun ", 1)[1]
    assert (slurm.device, slurm.threads, slurm.jobs) == ("cuda", 4, None)


def test_ray_and_submitit_are_not_loaded_unless_they_are_asked_for() -> None:
    code = "import ganvas.experiments.study, ganvas.cli, sys; print(sorted({'ray', 'submitit'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
