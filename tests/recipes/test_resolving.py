"""Checking and filling: idempotent, complete, and in agreement with the JSON Schema."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas import parts
from ganvas.errors import RecipeError
from ganvas.parts import values
from ganvas.recipe.json_schema import json_schema
from ganvas.recipe.recipe import Recipe, differences, made_tiny, named_parts, shipped

OVERRIDES = st.sampled_from([
    "data.split=test", "data=shapes", "data.size=16", "data.size=[8,16]", "data.flip=true", "data.limit=~",
    "networks.generator.width=8", "networks.generator=dcgan-generator", "networks.discriminator.conditioning=plain",
    "networks.generator.freeze=all", "networks.generator.freeze=[blocks, head]", "task=adversarial",
    "task.objective=wasserstein", "task.critic_steps=3", "task.regularizers.r1.weight=2",
    "task.regularizers.r1.every=4", "task.regularizers.gp={use: gradient-penalty}", "task.regularizers=~",
    "optim=adamw", "optim.lr=3", "optim.roles=~",
    "optim.schedule=cosine", "optim.schedule.warmup_steps=3", "optim.clip_norm=1", "ema=~", "ema.rampup_ratio=0.05",
    "eval=~", "eval.every=10", "sampler=truncated", "sampler.threshold=0.5", "train.precision=bf16",
    "train.sample_every=7", "train.keep=1", "system=sagan", "summary=some words",
])  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(OVERRIDES, max_size=8))
def test_resolving_twice_is_resolving_once(overrides: list[str]) -> None:
    recipe = Recipe.load("digits", overrides)
    try:
        once = recipe.resolve()
    except RecipeError:  # sampler.threshold with the plain sampler, and its like
        return
    assert Recipe(once).resolve() == once
    assert json.loads(json.dumps(once)) == once  # plain data through and through
    schema().validate(once)


def test_resolving_changes_nothing_that_was_given() -> None:
    data = {**Recipe.load("digits").data, "ema": None}
    before = copy.deepcopy(data)
    Recipe(data).resolve()
    assert data == before


def test_python_values_are_as_good_as_yaml() -> None:
    data = {**Recipe.load("digits").data, "data": {"use": "folder", "path": Path("photos"), "size": (8, 16)}}
    assert Recipe(data).resolve()["data"] == {
        **Recipe({**data, "data": {"use": "folder", "path": "photos", "size": [8, 16]}}).resolve()["data"]
    }
    with pytest.raises(RecipeError, match="'lr' is <object"):
        Recipe({**data, "optim": {"lr": object()}}).resolve()


def test_saving_and_loading_is_the_same_recipe(tmp_path: Path) -> None:
    recipe = Recipe.load("digits", ["train.steps=7", "summary='a: b # c'"])
    recipe.save(tmp_path / "digits.yaml")
    again = Recipe.load(tmp_path / "digits.yaml")
    assert again.data == recipe.data
    assert again.resolve() == recipe.resolve()


def test_differences_name_leaves() -> None:
    one = Recipe.load("digits").resolve()
    other = Recipe.load("digits", ["ema=~", "train.steps=3"]).resolve()
    changed = differences(one, other)
    assert changed["train.steps"] == (one["train"]["steps"], 3)
    assert changed["ema.decay"] == (one["ema"]["decay"], None)
    assert differences(one, copy.deepcopy(one)) == {}


def test_parts_of_a_recipe_are_named_with_their_kind() -> None:
    named = named_parts(Recipe.load("digits", ["task.regularizers.mine={use: r1}"]).resolve())
    assert {
        ("dataset", "digits"), ("network", "sngan-generator"), ("conditioning", "projection"), ("regularizer", "r1"),
        ("objective", "hinge"), ("sampler", "plain"),
    } <= named  # fmt: skip
    assert not any(name == "mine" for _, name in named)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_made_tiny_is_still_a_recipe(name: str) -> None:
    small = made_tiny(Recipe.load(name).resolve())
    assert Recipe(small).resolve() == small


# --------------------------------------------------------------------------------------------------- JSON Schema


def schema(cache: list[jsonschema.Draft202012Validator] = []) -> jsonschema.Draft202012Validator:  # noqa: B006
    if not cache:
        cache.append(jsonschema.Draft202012Validator(json_schema()))
    return cache[0]


def test_the_schema_is_a_schema() -> None:
    made = json_schema()
    jsonschema.Draft202012Validator.check_schema(made)
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for part in parts.every():
        assert f"{part.kind}.{part.name}" in made["$defs"]


@pytest.mark.parametrize("name", sorted(shipped()))
def test_the_schema_takes_every_shipped_recipe(name: str) -> None:
    from ganvas.recipe import yaml12

    written, _ = yaml12.read(shipped()[name].read_text(encoding="utf-8"), name)
    schema().validate(written)
    schema().validate(Recipe.load(name).resolve())


def put(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.pop(key)


# What is done to a resolved recipe, and whether it still is one: for the schema and for the checker alike.
CHANGES = [
    (put("extra", value=1), False),
    (put("train", "stps", value=1), False),
    (put("train", "steps", value=0), False),
    (put("train", "steps", value=1.5), False),
    (put("train", "precision", value="fp8"), False),
    (put("train", value=None), True),
    (put("train", value={"steps": 3}), True),
    (put("networks", "generator", "widht", value=8), False),
    (put("networks", "generator", "width", value="wide"), False),
    (put("networks", "generator", "freeze", value=["blocks"]), True),
    (put("networks", "generator", "freeze", value="some"), False),
    (put("networks", "generator", value="sngan-generator"), True),
    (put("networks", "generator", value="hinge"), False),
    (put("networks", value=[]), False),
    (put("task", "objective", value="hinge"), True),
    (put("task", "objective", value={"use": "hinge", "margin": 1}), False),
    (put("task", "objective", value={}), True),
    (put("task", "regularizers", value={"r1": {}}), True),
    (put("task", "regularizers", value={"r1": {"weight": 1, "every": 2}}), True),
    (put("task", "regularizers", value={"r1": {"wieght": 1}}), False),
    (put("task", "regularizers", value={"mine": {"use": "r1", "weight": 1}}), True),
    (put("task", "regularizers", value={"mine": "r1"}), True),
    (put("task", "regularizers", value={"mine": {"weight": 1}}), False),
    (put("task", "regularizers", value=["r1"]), False),
    (put("optim", value={"lr": 1}), True),
    (put("optim", value={"lr": 0}), False),
    (put("optim", "betas", value=[0.1, 0.2, 0.3]), False),
    (put("optim", "schedule", value="cosine"), True),
    (put("optim", "schedule", value={"warmup_steps": 3}), True),
    (put("data", value={"use": "folder"}), False),
    (put("data", value={"use": "folder", "path": "x", "size": [8, 8]}), True),
    (put("data", value={"use": "folder", "path": "x", "size": [8]}), False),
    (put("eval", value={}), False),
    (put("eval", value=None), True),
    (drop("data"), False),
    (drop("optim"), True),
]


@pytest.mark.parametrize(("change", "good"), CHANGES)
def test_schema_and_checker_agree(change: Callable[[dict[str, Any]], None], good: bool) -> None:
    data = Recipe.load("digits").resolve()
    change(data)
    assert schema().is_valid(data) == good
    if good:
        Recipe(data).resolve()
    else:
        with pytest.raises(RecipeError):
            Recipe(data).resolve()


def test_a_recipe_above_a_base_may_say_what_changes_alone() -> None:
    assert schema().is_valid({"base": "digits", "networks": {"generator": {"width": 8}}})
    assert not schema().is_valid({"base": "digits", "netwroks": {}})
    assert not schema().is_valid({"networks": {"generator": {"width": 8}}})


# --------------------------------------------------------------------------------------------------- words


def test_types_are_told_in_words() -> None:
    from typing import Annotated, Literal

    from annotated_types import Ge, Gt, Le, Lt

    told = {
        "int > 0": Annotated[int, Gt(0)],
        "int >= 2": Annotated[int, Ge(2)],
        "float <= 1": Annotated[float, Le(1)],
        "0 <= float < 1": Annotated[float, Ge(0), Lt(1)],
        '"a" | "b"': Literal["a", "b"],
        '"a" | 3 | null': Literal["a", 3] | None,
        "int > 0 | [int > 0, float] | null": Annotated[int, Gt(0)] | tuple[Annotated[int, Gt(0)], float] | None,
        "list of text": tuple[str, ...],
        "list of (int | text)": tuple[int | str, ...],
        "path": Path,
        "bool": bool,
    }  # fmt: skip
    assert [values.words(each) for each in told.values()] == list(told)
