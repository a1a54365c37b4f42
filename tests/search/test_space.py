"""Spaces: every mistake is told with its place before anything is done, and what is proposed lies within."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from ganvas import cli
from ganvas.errors import RecipeError
from ganvas.experiments.search import session, space
from ganvas.experiments.search.pareto import Trial
from ganvas.recipe.recipe import SEARCHES

TEXT = """\
metrics: [parameters]
overrides: [train.steps=4]
space:
  networks.generator.width: {from: 4, to: 64}
  optim.betas: {choices: [[0.0, 0.9], [0.5, 0.9]]}
trials: 2
"""

# (what is replaced, by what, line:column, what is said)
MISTAKES = [
    ("trials: 2", "trails: 2", "6:1", "a search has no parameter 'trails'. Did you mean 'trials'?"),
    ("trials: 2", "", "1:1", "a search needs 'trials'"),
    ("trials: 2", "trials: 0", "6:1", "'trials' is 0, but must be int > 0"),
    ("trials: 2", "trials: 2\nsampler: grid", "7:1", "'sampler' is 'grid'"),
    ("trials: 2", "trials: 2\nseeds: []", "7:1", "'seeds' is []"),
    ("trials: 2", "trials: 2\nprune: {startpu: 3}", "7:9", "Did you mean 'startup'?"),
    ("trials: 2", "trials: 2\nprune: {}", "7:1", "which must be a score"),
    ("trials: 2", "trials: 2\ntrials: 3", "7:1", "stands here twice"),
    ("trials: 2", "trials: {", "7:1", "not readable as YAML"),
    ("[parameters]", "[]", "1:1", "'metrics' is []"),
    ("[parameters]", "[paramters]", "1:11", "there is no value 'paramters'. Did you mean 'parameters'?"),
    ("[parameters]", "[frechet-distance]", "1:11", "add to overrides: eval.protocol=NAME"),
    ("[parameters]", "[parameters, parameters]", "1:23", "among the metrics twice"),
    ("train.steps=4", "train.stps=4", "2:13", "Did you mean 'steps'?"),
    ("train.steps=4", "train.steps", "2:13", "'train.steps' is no override"),
    ("train.steps=4", "'train.steps={'", "2:13", "not readable as YAML"),
    ("networks.generator.width", "networks.generator.widht", "4:3", "Did you mean 'width'?"),
    ("networks.generator.width", "networks.critic.width", "4:27", "'critic' names no network"),
    ("networks.generator.width", "network.generator.width", "4:3", "a recipe has no parameter 'network'"),
    ("networks.generator.width", "networks..width", "4:3", "'networks..width' cannot be searched"),
    ("networks.generator.width", "train.seed", "4:3", "`seeds` says what each trial is trained with"),
    ("networks.generator.width", "eval.protocol", "4:3", "all trials are scored alike"),
    ("networks.generator.width", "optim.lr.x", "4:16", "'lr' holds 0.001, which has no keys below it"),
    ("{from: 4, to: 64}", "{from: 0, to: 64}", "4:30", "'width' is 0, but must be int > 0"),
    ("{from: 4, to: 64}", "{from: 4, to: 64.0}", "4:39", "'width' is 64.0, but must be int > 0"),
    ("{from: 4, to: 64}", "{from: 64, to: 4}", "4:40", "from 64 to 4 holds nothing"),
    ("{from: 4, to: 64}", "{from: 4, to: 4}", "4:39", "from 4 to 4 holds nothing"),
    ("{from: 4, to: 64}", "{from: -4, to: 64, log: true}", "4:30", "a logarithmic range cannot begin at -4"),
    ("{from: 4, to: 64}", "{from: 4, to: 64, lgo: true}", "4:47", "Did you mean 'log'?"),
    ("{from: 4, to: 64}", "{from: 4, to: many}", "4:39", "'to' is 'many', but must be int | float"),
    ("{from: 4, to: 64}", "{from: 4}", "4:3", "needs 'to'"),
    ("{from: 4, to: 64}", "[4, 64]", "4:3", "is a map of keys, not [4, 64]"),
    ("{from: 4, to: 64}", "{choices: []}", "4:30", "'choices' is []"),
    ("{from: 4, to: 64}", "{choices: [4], from: 3}", "4:44", "has no parameter 'from'"),
    ("{from: 4, to: 64}", "{choices: [4, 4]}", "4:43", "4 is among the choices twice"),
    ("{from: 4, to: 64}", "{choices: [4, four]}", "4:43", "'width' is 'four', but must be int > 0"),
    ("[0.5, 0.9]]", "[0.5, 9]]", "5:39", "'betas' is [0.5, 9]"),
    ("optim.betas: {choices: [[0.0, 0.9], [0.5, 0.9]]}", "task: {choices: [nothing]}", "5:20", "no task is called"),
]


@pytest.mark.parametrize(("old", "new", "place", "said"), MISTAKES, ids=[f"{old}-{new}" for old, new, *_ in MISTAKES])
def test_a_mistake_is_told_with_its_place_and_nothing_is_written(
    old: str, new: str, place: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert old in TEXT
    Path("s.yaml").write_text(TEXT.replace(old, new, 1))
    assert cli.run(["search", "tiny/gaussians-mlp", "s.yaml", "--json"]) == 2
    shown = capsys.readouterr()
    told = json.loads(shown.out)["errors"]
    found = [(each["where"].split()[0], each["problem"] + each["hint"]) for each in told]
    assert any(where == f"s.yaml:{place}" and said in text for where, text in found), found
    assert all(each["hint"] for each in told) and "Traceback" not in shown.err
    assert [each.name for each in tmp_path.iterdir()] == ["s.yaml"]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(TEXT.replace("width", "widht").replace("0.5", "5").replace("parameters", "size"))
    with pytest.raises(RecipeError) as caught:
        space.load("tiny/gaussians-mlp", file)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    "line",
    ["search tiny/gaussians-mlp nowhere", "search tiny/gaussians-mlp nowhere.yaml", "search nowhere digits"],
)
def test_what_is_not_there_is_told(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(line.split()) == 2
    assert "nowhere" in capsys.readouterr().err


def test_another_place_of_the_recipe_that_does_not_go_with_a_value_is_told_at_the_value(tmp_path: Path) -> None:
    """A task of other roles: the networks are at fault only because of the choice."""
    file = tmp_path / "s.yaml"
    file.write_text("metrics: [parameters]\ntrials: 2\nspace:\n  task: {choices: [adversarial, distill-generator]}\n")
    with pytest.raises(RecipeError) as caught:
        space.load("tiny/gaussians-mlp", file)
    told = caught.value.problems[0]
    assert (
        "s.yaml:4:33  task" in told.where
        and 'with "distill-generator", at ' in told.problem
        and "needs a network" in told.problem
    )


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_proposals_lie_in_the_space_and_keep_their_types(sampler: str, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "metrics: [parameters, macs]\n"
        "space:\n"
        "  optim.lr: {from: 1e-4, to: 1e-2, log: true}\n"
        "  networks.generator.width: {from: 4, to: 9}\n"
        "  task.critic_steps: {from: 1, to: 300, log: true}\n"
        "  ema.decay: {from: 0, to: 1}\n"
        "  optim.betas: {choices: [[0.0, 0.9], [0.5, 0.9]]}\n"
        "  train.compile: {choices: [true, false]}\n"
        "  task.objective: {choices: [hinge, wasserstein]}\n"
        "  optim.clip_norm: {choices: [~, 1, 1.0]}\n"
        f"trials: 40\npopulation: 8\nsampler: {sampler}\n"
    )
    plan = space.load("tiny/gaussians-mlp", file)
    store = session.open_store(plan, str(tmp_path / "s.journal"))
    drawn = []
    while (trial := store.next()) is not None:
        own = trial.proposal
        assert isinstance(own["optim.lr"], float) and 1e-4 <= own["optim.lr"] <= 1e-2
        assert type(own["networks.generator.width"]) is int and 4 <= own["networks.generator.width"] <= 9
        assert type(own["task.critic_steps"]) is int and 1 <= own["task.critic_steps"] <= 300
        assert isinstance(own["ema.decay"], float) and 0 <= own["ema.decay"] <= 1  # its ends were written as integers
        assert own["optim.betas"] in ([0.0, 0.9], [0.5, 0.9])
        assert own["train.compile"] in (True, False) and isinstance(own["train.compile"], bool)
        assert own["task.objective"] in ("hinge", "wasserstein")
        resolved = plan.trial_recipe(own, 5).resolve()
        assert resolved["train"]["seed"] == 5 and resolved["optim"]["lr"] == own["optim.lr"]
        assert resolved["optim"]["clip_norm"] == own["optim.clip_norm"]
        assert resolved["networks"]["generator"]["width"] == own["networks.generator.width"]
        drawn.append(own)
        far = abs(math.log10(own["optim.lr"]) + 3)
        store.finish(Trial(trial.number, "complete", own, {"parameters": (far,), "macs": (own["ema.decay"],)}))
    assert len(drawn) == 40
    for path in drawn[0]:
        assert len({json.dumps(own[path]) for own in drawn}) > 1  # nothing stands still
    # It learns: the second half is nearer to the best rate than the first.
    near = [abs(math.log10(own["optim.lr"]) + 3) for own in drawn]
    assert sum(near[20:]) < sum(near[:20])


@pytest.mark.parametrize("file", sorted(SEARCHES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_space_fits_the_default_recipe(file: Path) -> None:
    plan = space.load("digits", file.stem)
    assert plan.plan.summary and plan.axes and plan.objectives


def test_a_part_is_chosen_before_its_keys_are_set(tmp_path: Path, space_file: Callable[..., Path]) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "metrics: [parameters]\ntrials: 2\nspace:\n  optim.lr: {from: 1e-4, to: 1e-2}\n"
        "  optim: {choices: [adam, {use: sgd, lr: 0.1}]}\n"
    )
    plan = space.load("tiny/gaussians-mlp", file)
    recipe = plan.trial_recipe({"optim.lr": 0.007, "optim": "adam"}, 0)
    assert recipe.resolve()["optim"]["lr"] == 0.007
