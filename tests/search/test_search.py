"""Searches go on where they were, and come to the same trials however often they are stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import Go, Here

from ganvas import cli
from ganvas.errors import MissingExtra, ResumeMismatch, UsageError
from ganvas.experiments.places import Ended, Work
from ganvas.experiments.search import session, space
from ganvas.training.session import Watcher
from ganvas.training.train import train

SCORED = """\
metrics: [{metrics}]
overrides: [train.steps=4, train.batch=4, train.checkpoint_every=2, eval.every=2, eval.protocol={protocol}]
space:
  optim.lr: {{choices: {rates}}}
trials: {trials}
{more}
"""
PROTOCOL = """
extractor: digit-net
reference: {use: digits, split: test, limit: 60}
metrics: {frechet-distance: {}}
samples: 40
seeds: [0]
halves: 0
"""


@pytest.fixture
def scored(tmp_path: Path) -> Callable[..., Path]:
    """Writes a space over learning rates, by a score that takes a moment."""
    (tmp_path / "quick.yaml").write_text(PROTOCOL)

    def write(rates: str, trials: int = 2, more: str = "", metrics: str = "frechet-distance") -> Path:
        file = tmp_path / "scored.yaml"
        file.write_text(
            SCORED.format(rates=rates, trials=trials, more=more, metrics=metrics, protocol=tmp_path / "quick.yaml")
        )
        return file

    return write


def without_trials(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != "trials"}


@pytest.mark.parametrize("storage", ["search.db", "search.journal"])
def test_going_on_adds_what_is_missing_and_comes_to_the_same(
    storage: str, space_file: Callable[..., Path], go: Go, tmp_path: Path
) -> None:
    """Three trials and later three more are the six of a search that was never stopped, over two generations."""
    a, b = tmp_path / "a", tmp_path / "b"
    whole = go(space_file(6), a, storage=str(tmp_path / f"whole-{storage}"))
    first = go(space_file(3), b, storage=str(tmp_path / storage))
    assert first["trials"] == whole["trials"][:3]
    done = {file: file.stat().st_mtime_ns for file in b.rglob("model.safetensors")}
    place = Here()
    again = go(space_file(6), b, place, storage=str(tmp_path / storage))
    assert again == whole
    assert place.trained == [f"trial {number} seed 0" for number in (3, 4, 5)]
    assert {file: file.stat().st_mtime_ns for file in done} == done
    place = Here()
    assert go(space_file(6), b, place, storage=str(tmp_path / storage)) == whole and place.trained == []


def test_values_are_those_of_the_networks(space_file: Callable[..., Path], go: Go, tmp_path: Path) -> None:
    """Two hidden layers of `width` between z_dim and 2: weights and biases, and a multiplication for each weight."""
    for trial in go(space_file(4), tmp_path / "a")["trials"]:
        width, z_dim = trial["proposal"]["networks.generator.width"], trial["proposal"]["networks.generator.z_dim"]
        weights = z_dim * width + width * 2
        inner = trial["values"]["macs"] - weights
        assert inner >= 0 and inner % width**2 == 0  # the hidden layers between
        layers = 2 + inner // width**2
        assert trial["values"]["parameters"] == weights + inner + width * (layers - 1) + 2


def abandoned(file: Path, out: Path, *, after: int) -> None:
    """A session that takes a trial on, is killed as its training passes a step, and says nothing more."""
    plan = space.load("tiny/gaussians-mlp", file)
    out.mkdir(exist_ok=True)
    store = session.open_store(plan, str(out / "search.journal"))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    store.me["process"] = gone.pid
    trial = store.next()
    assert trial is not None

    class Killed(Exception): ...

    class Stop(Watcher):
        def row(self, step: int, values: Any) -> None:
            if step > after:
                raise Killed

    with pytest.raises(Killed):
        folder = out / "trials" / str(trial.number) / "seed-0"
        train(plan.trial_recipe(trial.proposal, 0), out=folder, device="cpu", watcher=Stop())


def test_a_trial_whose_session_was_killed_goes_on_from_its_checkpoint_and_ends_alike(
    space_file: Callable[..., Path], go: Go, tmp_path: Path
) -> None:
    whole = go(space_file(3), tmp_path / "whole")
    out = tmp_path / "killed"
    abandoned(space_file(3), out, after=2)
    checkpoint = out / "trials" / "0" / "seed-0" / "checkpoints" / "step-0000002" / "state.safetensors"
    before = checkpoint.stat().st_mtime_ns
    place = Here()
    assert go(space_file(3), out, place) == whole
    assert checkpoint.stat().st_mtime_ns == before  # it was not trained from the start
    assert place.trained == [f"trial {number} seed 0" for number in (0, 1, 2)]
    for number in range(3):
        file = Path("trials", str(number), "seed-0", "model.safetensors")
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_what_a_living_session_works_at_is_left_to_it_until_it_is_silent(
    space_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ganvas.experiments.search import store as ledgers

    plan = space.load("tiny/gaussians-mlp", space_file(2))
    clock = [1e6]
    monkeypatch.setattr(ledgers.time, "monotonic", lambda: clock[0])
    one, other = (session.open_store(plan, str(tmp_path / "s.db")) for _ in range(2))
    first, second = one.next(), other.next()
    assert first is not None and second is not None and {first.number, second.number} == {0, 1}
    assert other.next() is None and one.next() is None  # all are taken
    clock[0] += ledgers.GRACE - 1
    one.storage.set_trial_user_attr(one.trial_ids[0], "beat", 7)  # a sign of life
    assert other.next() is None
    clock[0] += ledgers.GRACE - 1
    assert other.next() is None
    clock[0] += 2
    again = other.next()
    assert again is not None and again.number == 0 and again.proposal == first.proposal


def test_a_session_that_ends_leaves_its_trials_at_once(space_file: Callable[..., Path], tmp_path: Path) -> None:
    plan = space.load("tiny/gaussians-mlp", space_file(1))
    one, other = (session.open_store(plan, str(tmp_path / "s.db")) for _ in range(2))
    first = one.next()
    assert first is not None and other.next() is None
    one.release()
    again = other.next()
    assert again is not None and again.proposal == first.proposal


class Unlucky(Here):
    """Loses its worker before it can do anything, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def ended(self, seconds: float) -> list[tuple[Work, Ended]]:
        if self.times:
            self.times -= 1
            return [(self.queue.popleft(), Ended("lost", "its worker was killed by SIGKILL"))]
        return super().ended(seconds)


def test_a_lost_worker_is_replaced_and_a_trial_that_kills_workers_fails(
    space_file: Callable[..., Path], go: Go, tmp_path: Path
) -> None:
    whole = go(space_file(2), tmp_path / "whole")
    assert go(space_file(2), tmp_path / "lucky", Unlucky(2)) == whole
    states = [(each["state"], each["problem"]) for each in go(space_file(2), tmp_path / "not", Unlucky(3))["trials"]]
    assert states[0][0] == "failed" and "SIGKILL, 3 times" in states[0][1] and states[1][0] == "complete"


def test_what_a_training_fails_with_ends_the_session_and_its_trial_can_be_had_again(
    space_file: Callable[..., Path], go: Go, tmp_path: Path
) -> None:
    class Broken(Here):
        def ended(self, seconds: float) -> list[tuple[Work, Ended]]:
            return [(self.queue.popleft(), Ended("failed", "no disk", UsageError("no disk")))]

    with pytest.raises(UsageError, match="no disk"):
        go(space_file(2), tmp_path / "a", Broken())
    assert [each["state"] for each in go(space_file(2), tmp_path / "a")["trials"]] == ["complete", "complete"]


def test_a_trial_that_diverges_is_a_failure_and_the_best_recipe_trains_to_its_value(
    scored: Callable[..., Path], go: Go, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    data = go(scored("[0.001, 1e30]", trials=4), out, recipe="tiny/digits")
    by_rate: dict[float, list[dict[str, Any]]] = {}
    for trial in data["trials"]:
        by_rate.setdefault(trial["proposal"]["optim.lr"], []).append(trial)
    assert len(by_rate) == 2  # the seed drew both
    assert all(each["state"] == "failed" and "not finite" in each["problem"] for each in by_rate[1e30])
    assert all(each["state"] == "complete" for each in by_rate[0.001])
    (best,) = data["front"]
    assert data["trials"][best]["proposal"] == {"optim.lr": 0.001}
    page = (out / "search.html").read_text()
    assert "not finite" in page

    train(out / "best.yaml", out=tmp_path / "again", device="cpu")
    row = json.loads((tmp_path / "again" / "scores.jsonl").read_text().splitlines()[-1])
    assert row["value"] == data["trials"][best]["values"]["frechet_distance"]


def test_seeds_are_trained_each_and_averaged(scored: Callable[..., Path], go: Go, tmp_path: Path) -> None:
    data = go(scored("[0.001]", trials=1, more="seeds: [3, 5]"), tmp_path / "out", recipe="tiny/digits")
    own = data["trials"][0]["by_seed"]["frechet_distance"]
    assert len(own) == 2 and own[0] != own[1]
    assert data["trials"][0]["values"]["frechet_distance"] == pytest.approx(sum(own) / 2)
    assert sorted(each.name for each in (tmp_path / "out" / "trials" / "0").iterdir()) == ["seed-3", "seed-5"]


def test_values_that_cannot_be_together_fail_their_trial_alone(go: Go, tmp_path: Path) -> None:
    """Each choice goes with the recipe as it is; `hinge` has no key `margin` that the other loss has."""
    file = tmp_path / "s.yaml"
    file.write_text(
        "metrics: [parameters]\ntrials: 6\noverrides: [train.steps=2]\nspace:\n"
        "  networks.generator.z_dim: {choices: [2, 3]}\n"
        "  optim: {choices: [adam, {use: sgd, lr: 0.01}]}\n"
        "  optim.betas: {choices: [[0.0, 0.9]]}\n"
    )
    data = go(file, tmp_path / "out")
    for trial in data["trials"]:
        together = trial["proposal"]["optim"] == "adam"
        assert trial["state"] == ("complete" if together else "failed")
        assert together or "has no parameter 'betas'" in trial["problem"]
    assert {each["state"] for each in data["trials"]} == {"complete", "failed"}


def test_a_training_that_is_worse_than_the_median_is_stopped(
    scored: Callable[..., Path], go: Go, tmp_path: Path
) -> None:
    """Rates from good to hopeless; a stopped trial has no value, and no later score than the one it was stopped by."""
    text = scored("[0.001]", trials=7, more="prune: {startup: 2}")
    told = text.read_text().replace("{choices: [0.001]}", "{from: 1e-5, to: 0.02, log: true}")
    text.write_text(told.replace("train.batch=4", "train.batch=4, ema=~"))  # an average of 4 steps hides the rate
    data = go(text, tmp_path / "out", recipe="tiny/digits")
    states = [each["state"] for each in data["trials"]]
    assert states[:2] == ["complete", "complete"] and "stopped" in states[2:]
    for trial in data["trials"]:
        rows = (tmp_path / "out" / "trials" / str(trial["trial"]) / "seed-0" / "scores.jsonl").read_text().splitlines()
        steps = [json.loads(row)["step"] for row in rows]
        assert steps == ([2] if trial["state"] == "stopped" else [2, 4])
        assert bool(trial["values"]) == (trial["state"] == "complete")


def test_what_matters_is_told_for_one_objective(space_file: Callable[..., Path], go: Go, tmp_path: Path) -> None:
    """The learning rate has nothing to do with the number of weights, the width has most."""
    file = space_file(12, metrics="parameters")
    found = go(file, tmp_path / "out")["importances"]
    assert next(iter(found)) == "networks.generator.width" and found["networks.generator.width"] > 0.8
    assert found["optim.lr"] < 0.1 and sum(found.values()) == pytest.approx(1)
    assert "What mattered" in (tmp_path / "out" / "search.html").read_text()


def test_another_recipe_or_space_is_not_gone_on_with(space_file: Callable[..., Path], go: Go, tmp_path: Path) -> None:
    go(space_file(1), tmp_path / "out")
    with pytest.raises(ResumeMismatch, match=r"seed: 0 -> 5"):
        go(space_file(1, more="seed: 5"), tmp_path / "out")
    with pytest.raises(ResumeMismatch, match=r"recipe\.optim\.lr"):
        go(space_file(1), tmp_path / "out", recipe="tiny/digits")
    storage = str(tmp_path / "out" / "search.journal")
    other = go(space_file(1, more="seed: 5", name="other"), tmp_path / "other", storage=storage)  # its name is its own
    assert len(other["trials"]) == 1


def test_each_member_of_a_front_is_a_recipe_and_what_is_dominated_later_goes(
    space_file: Callable[..., Path], go: Go, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "front").mkdir(parents=True)
    (out / "front" / "trial-99.yaml").write_text("an earlier session's")
    data = go(space_file(5), out)
    files = sorted(file.name for file in (out / "front").iterdir())
    assert files == sorted(f"trial-{number}.yaml" for number in data["front"])
    from ganvas.recipe.recipe import Recipe

    for number in data["front"]:
        resolved = Recipe.load(out / "front" / f"trial-{number}.yaml").resolve()
        assert resolved["optim"]["lr"] == data["trials"][number]["proposal"]["optim.lr"]


def test_without_optuna_the_extra_is_named_and_nothing_is_written(
    space_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = space_file(1)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match="optuna") as caught:
        session.check_installed()
    assert "ganvas[search]" in caught.value.hint
    monkeypatch.chdir(tmp_path)
    assert cli.run(["search", "tiny/gaussians-mlp", str(file)]) == 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("nowhere/s.db", "there is no folder nowhere"),
        ("grpc+x://user:secret@host/s", "cannot be opened"),
        ("postgresql+nodriver://user:secret@host/s", ""),
        ("small.yaml", "cannot be opened"),
    ],
)
def test_a_storage_that_cannot_be_is_told_without_its_password(
    storage: str, said: str, space_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file = space_file(1)
    before = file.read_bytes()
    monkeypatch.chdir(tmp_path)
    assert cli.run(["search", "tiny/gaussians-mlp", str(file), "--storage", storage]) == 2
    told = capsys.readouterr().err
    assert said in told and "secret" not in told and "Traceback" not in told
    assert file.read_bytes() == before and not (tmp_path / "runs").exists()
