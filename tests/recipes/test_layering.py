"""Overrides and `base:`: what replaces, what merges, what drops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ganvas.errors import BadValue, RecipeError, UnknownKey, UsageError
from ganvas.recipe.recipe import Recipe, differences, shipped

START = {
    "data": "digits",
    "networks": {
        "generator": {"use": "sngan-generator", "width": 16},
        "discriminator": {"use": "sngan-discriminator", "width": 16, "conditioning": "projection"},
    },
    "task": {"use": "adversarial", "objective": "hinge", "regularizers": {"r1": {"weight": 10, "every": 16}}},
    "optim": {"use": "adam", "lr": 0.001, "betas": [0.5, 0.9]},
}


def after(*overrides: str) -> dict[str, Any]:
    return dict(Recipe(START).override(*overrides).data)


def test_an_override_leaves_the_recipe_as_it_was() -> None:
    recipe = Recipe(START)
    assert recipe.override("optim.lr=1").data["optim"]["lr"] == 1
    assert recipe.data["optim"]["lr"] == 0.001


def test_a_name_replaces_the_node_with_all_its_keys() -> None:
    assert after("networks.generator=dcgan-generator")["networks"]["generator"] == {"use": "dcgan-generator"}
    assert after("task.objective=wasserstein")["task"]["objective"] == "wasserstein"
    assert after("optim=adamw")["optim"] == {"use": "adamw"}
    assert after("optim=adamw", "optim.lr=1")["optim"] == {"use": "adamw", "lr": 1}


def test_use_alone_keeps_the_keys_beside_it() -> None:
    """`ganvas train folder data.use=zip data.path=photos.zip` keeps the recipe's size."""
    start = Recipe({**START, "data": {"use": "folder", "path": "photos", "size": 64}})
    assert start.override("data.use=zip", "data.path=a.zip").data["data"] == {"use": "zip", "path": "a.zip", "size": 64}


def test_a_map_replaces_the_node() -> None:
    assert after("optim={use: adam, lr: 1}")["optim"] == {"use": "adam", "lr": 1}


def test_a_key_below_a_bare_name_makes_it_a_node() -> None:
    assert after("networks.discriminator.conditioning.x=1")["networks"]["discriminator"]["conditioning"] == {
        "use": "projection", "x": 1,
    }  # fmt: skip
    assert after("data.split=test")["data"] == {"use": "digits", "split": "test"}


def test_a_key_below_a_part_that_is_taken_by_default_belongs_to_it() -> None:
    bare = Recipe({key: value for key, value in START.items() if key != "optim"})
    assert bare.override("optim.lr=0.5").resolve()["optim"]["lr"] == 0.5
    assert bare.override("optim.schedule.warmup_steps=5").resolve()["optim"]["schedule"] == {
        "use": "constant", "warmup_steps": 5,
    }  # fmt: skip


@pytest.mark.parametrize("nothing", ["~", "null", "", str(Path.home())])
def test_nothing_drops_also_where_a_shell_made_a_home_of_it(nothing: str) -> None:
    assert "r1" not in after(f"task.regularizers.r1={nothing}")["task"]["regularizers"]
    assert "optim" not in after(f"optim={nothing}")
    assert "lr" not in after(f"optim.lr={nothing}")["optim"]


def test_a_path_in_the_home_folder_is_a_path() -> None:
    assert after(f"data.path={Path.home()}/photos")["data"]["path"] == f"{Path.home()}/photos"


def test_dropping_what_is_not_there_is_no_mistake_unless_it_could_never_be_there() -> None:
    quiet = Recipe(START).override("eval=~", "eval.every=~", "ema.decay=~", "sinks.tensorboard=~", "task.augment=~")
    assert quiet.resolve() == Recipe(START).resolve()
    assert Recipe(START).override("task.regularizers.weight-clipping=~").resolve() == Recipe(START).resolve()
    for typo in ("evla=~", "evla.every=~", "optim.lrr=~", "task.regularisers.r1=~", "task.regularizers.rr1=~"):
        with pytest.raises(RecipeError) as caught:
            Recipe(START).override(typo).resolve()
        assert len(caught.value.problems) == 1
        assert "Did you mean" in caught.value.problem
        assert f"command line: {typo}" in caught.value.where


def test_values_are_yaml() -> None:
    changed = after(
        "a=1", "b=2e-4", "c=no", "d=[1, x]", "e={f: g}", "h='1'", "i=a=b", "j=true", "k=x y", 'l="~"', "m=/a/b c",
    )  # fmt: skip
    assert {key: changed[key] for key in "abcdehijklm"} == {
        "a": 1, "b": 2e-4, "c": "no", "d": [1, "x"], "e": {"f": "g"}, "h": "1", "i": "a=b", "j": True, "k": "x y",
        "l": "~", "m": "/a/b c",
    }  # fmt: skip


def test_an_entry_comes_into_a_set_by_any_of_its_keys() -> None:
    whole = Recipe(START).override("task.regularizers.gradient-penalty.weight=5").resolve()
    assert set(whole["task"]["regularizers"]) == {"r1", "gradient-penalty"}
    assert whole["task"]["regularizers"]["gradient-penalty"]["weight"] == 5
    other = Recipe(START).override("task.regularizers.mine={use: r1, weight: 2}").resolve()
    assert other["task"]["regularizers"]["mine"] == {"use": "r1", "weight": 2, "every": 1}


def test_later_overrides_win() -> None:
    assert after("optim.lr=1", "optim.lr=2")["optim"]["lr"] == 2


@pytest.mark.parametrize("text", ["train.steps", "=1", "a..b=1", ".a=1", "a.=1", "", "a." * 60 + "b=1"])
def test_what_is_no_override(text: str) -> None:
    with pytest.raises(UsageError, match="is no override"):
        Recipe(START).override(text)


def test_a_key_below_a_value_is_refused() -> None:
    with pytest.raises(BadValue, match=r"'betas' holds \[0.5, 0.9\]"):
        Recipe(START).override("optim.betas.0=1")
    with pytest.raises(BadValue, match="'lr' holds"):
        Recipe(START).override("optim.lr.x=1")


# --------------------------------------------------------------------------------------------------- base


def based(tmp_path: Path, text: str, base: str | None = None) -> Recipe:
    (tmp_path / "base.yaml").write_text(base or Path(shipped()["digits"]).read_text())
    (tmp_path / "top.yaml").write_text(f"base: base.yaml\n{text}")
    return Recipe.load(tmp_path / "top.yaml")


def test_a_base_is_found_beside_its_recipe_and_merged_key_by_key(tmp_path: Path) -> None:
    below = Recipe.load("digits").resolve()
    top = based(tmp_path, "networks: {generator: {width: 8}}\ntrain: {steps: 3}\n").resolve()
    assert differences(below, top) == {
        "networks.generator.width": (below["networks"]["generator"]["width"], 8),
        "train.steps": (below["train"]["steps"], 3),
    }


def test_another_name_replaces_the_node_of_the_base(tmp_path: Path) -> None:
    text = "networks: {generator: {use: dcgan-generator}}\noptim: adamw\ntask: {objective: wasserstein}\n"
    top = based(tmp_path, text)
    assert top.data["networks"]["generator"] == {"use": "dcgan-generator"}
    assert top.data["networks"]["discriminator"] == Recipe.load("digits").data["networks"]["discriminator"]
    assert top.data["optim"] == {"use": "adamw"}
    assert top.data["task"] == {"use": "adversarial", "objective": "wasserstein"}


def test_the_same_name_keeps_the_keys_of_the_base(tmp_path: Path) -> None:
    base = "optim: {use: adam, lr: 0.5}\ntask: {use: adversarial, regularizers: {r1: {weight: 3}}}\n"
    top = based(tmp_path, "optim: {use: adam, eps: 1e-3}\ntask: {regularizers: {r1: {every: 4}}}\n", base)
    assert top.data["optim"] == {"use": "adam", "lr": 0.5, "eps": 1e-3}
    assert top.data["task"]["regularizers"] == {"r1": {"weight": 3, "every": 4}}


def test_keys_beside_a_bare_name_of_the_base(tmp_path: Path) -> None:
    assert based(tmp_path, "optim: {lr: 3}\n", "optim: adamw\n").data["optim"] == {"use": "adamw", "lr": 3}


def test_nothing_drops_what_is_inherited(tmp_path: Path) -> None:
    base = "eval: {protocol: digits}\ntask: {use: adversarial, regularizers: {r1: {}, weight-clipping: {}}}\n"
    top = based(tmp_path, "eval: ~\ntask: {regularizers: {r1: ~}}\n", base)
    assert top.data == {"task": {"use": "adversarial", "regularizers": {"weight-clipping": {}}}}


def test_a_base_of_a_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="one level is as deep as it goes") as caught:
        based(tmp_path, "train: {steps: 1}\n", "base: digits\n")
    assert "base.yaml:1:1" in caught.value.where


def test_an_error_is_placed_in_the_file_that_says_it(tmp_path: Path) -> None:
    base = Path(shipped()["digits"]).read_text() + "\nsampler: {use: plain}\n"
    recipe = based(tmp_path, "sampler: plane\ntrain: {steps: 0}\n", base)
    with pytest.raises(RecipeError) as caught:
        recipe.resolve()
    assert [each.where for each in caught.value.problems] == [
        f"{tmp_path}/top.yaml:3:9  train.steps", f"{tmp_path}/top.yaml:2:1  sampler",
    ]  # fmt: skip
    with pytest.raises(UnknownKey) as one:
        based(tmp_path, "train: {steps: 5}\n", base + "nosuch: 1\n").resolve()
    assert "base.yaml" in one.value.where


def test_runs_are_called_after_their_recipe(tmp_path: Path) -> None:
    assert Recipe.load("digits").name == "digits"
    assert Recipe.load("tiny/digits").name == "tiny/digits"
    assert based(tmp_path, "").name == "top"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("data: digits\n")
    assert Recipe.load(tmp_path / "run").name == "run"
