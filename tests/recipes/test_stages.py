"""`stages:`: one command trains runs that start from each other, and goes on where it was interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from ganvas.errors import BadValue, RecipeError, ResumeMismatch
from ganvas.files.files import read_tensors
from ganvas.model import Model
from ganvas.recipe.recipe import Recipe, differences
from ganvas.recipe.stages import Stage, stages_of
from ganvas.training.check import check
from ganvas.training.session import Watcher
from ganvas.training.train import train

NAMES = ("0-4px", "1-8px")
QUICK = ("train.steps=4", "train.checkpoint_every=2", "train.log_every=3", "train.batch=8", "eval=~")


def recipe(*overrides: str) -> Recipe:
    return Recipe.load("tiny/digits-progan").override(*QUICK, *overrides)


class Unplugged(Exception):
    """What ends a run between two steps, and nobody catches."""


class StopIn(Watcher):
    """Pulls the plug at a step of a stage, counted from 1; remembers what was said."""

    def __init__(self, stage: int = 0, step: int = 0) -> None:
        self.stage, self.step = stage, step
        self.said: list[str] = []
        self.begun: list[int] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def begin(self, step: int, steps: int) -> None:
        self.begun.append(step)

    def tick(self, step: int, values: object) -> None:
        if len(self.begun) == self.stage and step == self.step:
            raise Unplugged


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("growth") / "run"
    train(recipe(), out=folder, device="cpu")
    return folder


# --------------------------------------------------------------------------------------------------- what a stage is


def test_stages_are_the_recipe_with_their_changes_and_the_last_is_itself() -> None:
    own = recipe()
    first, second, last = stages_of(own, Path("run"))
    assert [each.folder for each in (first, second, last)] == [
        Path("run/stages/0-4px"), Path("run/stages/1-8px"), Path("run"),
    ]  # fmt: skip
    assert last.resolved == own.resolve() and last.resolved["stages"]
    sizes = [each.resolved["data"]["size"] for each in (first, second, last)]
    assert sizes == [4, 8, 16]
    changed = differences(last.resolved, second.resolved)
    assert {key for key in changed if not key.startswith("stages")} == {"data.size"}
    assert not first.resolved["schedules"] and second.resolved["schedules"] == last.resolved["schedules"]


def test_a_recipe_without_stages_is_one() -> None:
    (only,) = stages_of(Recipe.load("tiny/digits"), Path("run"))
    assert only.folder == Path("run") and only.before is None and only.begun == only.resolved


def begins(stage: Stage) -> Mapping[str, str | None]:
    return {role: node["from"] for role, node in stage.begun["networks"].items()}


def test_each_starts_from_the_one_before_unless_it_says_otherwise(tmp_path: Path) -> None:
    first, second, last = stages_of(recipe(), tmp_path)
    assert begins(first) == {"generator": None, "discriminator": None}
    assert begins(second) == dict.fromkeys(("generator", "discriminator"), str(first.folder))
    assert begins(last) == dict.fromkeys(("generator", "discriminator"), str(second.folder))
    own = recipe("networks.discriminator.from=elsewhere", "networks.discriminator.use=progan-discriminator")
    assert begins(stages_of(own, tmp_path)[-1]) == {
        "generator": str(tmp_path / "stages" / "1-8px"), "discriminator": "elsewhere",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("override", "place", "problem"),
    [
        ("stages.8px=[data.size]", "stages.8px=[data.size]", "no override"),
        ("stages.8px=[data.siez=8]", "(stage 8px)", "no parameter 'siez'"),
        ("stages={a/b: []}", "stages", "'a/b' cannot be the name of a stage"),
        ("stages.8px=['stages.x=[]']", "stages.8px", "no stages of its own"),
        ("stages.8px=3", "stages", "must be map of (list of text)"),
    ],
)
def test_mistakes_are_told_with_their_stage(override: str, place: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        train(recipe(override), out=tmp_path / "run", device="cpu")
    assert problem in str(caught.value) and place in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: tiny/digits-progan\nstages:\n  4px: [data.size=4]\n  8px:\n    - data.siez=8\n")
    with pytest.raises(RecipeError) as caught:
        stages_of(Recipe.load(file), tmp_path)
    assert "mine.yaml:5:7" in caught.value.where and "(stage 8px)" in caught.value.where


def test_check_looks_at_every_stage_and_at_what_it_starts_from() -> None:
    check(recipe())
    for change in ("networks.generator.channel_max=8", "networks.discriminator.channel_base=64", "data.channels=3"):
        with pytest.raises(BadValue, match="the weights of the stage before do not fit") as caught:
            check(recipe(f"stages.8px=[data.size=8, {change}]"))
        assert "(stage 8px)" in caught.value.where
    with pytest.raises(BadValue, match="nothing to fade from") as caught:
        check(recipe("stages.4px=[data.size=4]"))
    assert "(stage 4px)" in caught.value.where


# --------------------------------------------------------------------------------------------------- what is trained


def test_every_stage_is_an_ordinary_run_and_the_last_lies_in_the_folder_itself(whole: Path) -> None:
    for folder, size in ((whole / "stages" / "0-4px", 4), (whole / "stages" / "1-8px", 8), (whole, 16)):
        model = Model.load(folder)
        assert model.spec.shape == (1, size, size) and model.step == 4
        assert {"log.jsonl", "report.html", "resolved.yaml", "provenance.json"} <= {
            each.name for each in folder.iterdir()
        }
    note = json.loads((whole / "provenance.json").read_text())
    assert note["stage_before"] == "stages/1-8px"
    assert "stage_before" not in json.loads((whole / "stages" / "0-4px" / "provenance.json").read_text())


def test_a_stage_starts_with_what_the_one_before_learnt(tmp_path: Path) -> None:
    """A learning rate of next to nothing leaves the weights as they were adopted."""
    train(recipe("optim.lr=1e-12", "ema=~", "train.steps=1"), out=tmp_path / "run", device="cpu")
    states = [read_tensors(tmp_path / "run" / each / "model.safetensors")[0] for each in ("stages/1-8px", ".")]
    for role, layer in (("generator", "to_image"), ("discriminator", "from_image")):
        old, new = (
            {name.removeprefix(f"{role}."): each for name, each in state.items() if name.startswith(role)}
            for state in states
        )
        torch.testing.assert_close(new[f"{layer}_before.weight"], old[f"{layer}.weight"])
        torch.testing.assert_close(new["blocks.0.conv0.weight"], old["blocks.0.conv0.weight"])


@pytest.mark.parametrize(("stage", "step"), [(2, 1), (2, 3), (3, 1), (3, 4)])
def test_an_interrupted_growth_ends_like_an_undisturbed_one(
    stage: int, step: int, whole: Path, killing: ModuleType, tmp_path: Path
) -> None:
    broken = tmp_path / "run"
    with pytest.raises(Unplugged):
        train(recipe(), out=broken, device="cpu", watcher=StopIn(stage, step))
    first = broken / "stages" / NAMES[0] / "model.safetensors"
    written = first.stat().st_mtime_ns
    watcher = StopIn()
    train(Recipe.load(broken), out=broken, device="cpu", resume=True, watcher=watcher)  # as the command line does it
    assert first.stat().st_mtime_ns == written  # a finished stage is not touched
    assert watcher.begun[0] == (step - 1) // 2 * 2 and len(watcher.begun) == 4 - stage
    for folder in (*(f"stages/{name}" for name in NAMES), "."):
        assert killing.differences(killing.contents(whole / folder), killing.contents(broken / folder)) == [], folder


@pytest.mark.slow
def test_a_killed_growth_resumes_bit_exactly(killing: ModuleType, tmp_path: Path) -> None:
    """SIGKILL from outside, to the real command line, as soon as the second stage has a checkpoint."""
    file = tmp_path / "growth.yaml"
    recipe("train.steps=40").save(file)
    killing.finish(killing.train(file, tmp_path / "whole"))
    victim = killing.train(file, tmp_path / "broken")
    saved = tmp_path / "broken" / "stages" / NAMES[1] / "checkpoints"
    while victim.poll() is None and not list(saved.glob("step-*")):
        time.sleep(0.01)
    victim.kill()
    victim.communicate()
    assert victim.returncode < 0 and not (tmp_path / "broken" / "model.safetensors").exists()
    killing.finish(killing.train(file, tmp_path / "broken", "--resume"))
    for folder in (*(f"stages/{name}" for name in NAMES), "."):
        one, other = (killing.contents(tmp_path / each / folder) for each in ("whole", "broken"))
        assert killing.differences(one, other) == [], folder


def test_another_recipe_is_refused_before_a_stage_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Unplugged):
        train(recipe(), out=tmp_path / "run", device="cpu", watcher=StopIn(1, 3))
    for change in ("optim.lr=0.5", "stages.4px=[data.size=4]"):
        with pytest.raises(ResumeMismatch, match="the recipe is not the one"):
            train(recipe(change), out=tmp_path / "run", device="cpu", resume=True)


def test_a_run_that_is_done_says_what_it_did(whole: Path, ganvas_line: Callable[[str], Any]) -> None:
    for line in (f"show recipe {whole}", f"diff {whole} tiny/digits-progan", f"check {whole}"):
        code, out = ganvas_line(line)
        assert code == 0, out
    assert ganvas_line("diff tiny/digits-progan tiny/digits-stylegan")[0] == 0


@pytest.fixture
def ganvas_line(capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, str]]:
    from ganvas import cli

    def go(line: str) -> tuple[int, str]:
        capsys.readouterr()
        code = cli.run(line.split())
        said = capsys.readouterr()
        return code, said.out + said.err

    return go
