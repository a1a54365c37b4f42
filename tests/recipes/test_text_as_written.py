"""A key that holds a path or text takes a command's words as they were typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganvas.recipe.recipe import Recipe

NAMES = ["my photos #2", "2024", "0123", "1e3", "a{b}", "{x}", "[1]", "~/x", "true", "no: 1", "&a", "null", "*"]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_the_text_that_was_typed_and_survives_the_file(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load("folder", [f"data.path={name}"])
    assert recipe.resolve()["data"]["path"] == name
    recipe.save(tmp_path / "again.yaml")
    assert Recipe.load(tmp_path / "again.yaml").resolve()["data"]["path"] == name


def test_text_in_quotes_is_what_the_quotes_hold() -> None:
    assert Recipe.load("folder", ['data.path="a{b}"']).data["data"]["path"] == "a{b}"
    assert Recipe.load("folder", ["data.path='2024'"]).data["data"]["path"] == "2024"


def test_a_part_that_is_chosen_before_says_which_keys_are_text() -> None:
    assert Recipe.load("folder", ["data=webdataset", "data.path=0123", "data.image=1"]).data["data"] == {
        "use": "webdataset", "path": "0123", "image": "1",
    }  # fmt: skip


def test_other_keys_are_yaml_and_the_tilde_drops() -> None:
    recipe = Recipe.load("folder", ["data.size=[32, 48]", "train.steps=0x10", "data.path=~", "data.zip=1e3"])
    assert recipe.data["data"]["size"] == [32, 48]
    assert recipe.data["train"]["steps"] == 16
    assert recipe.data["data"].get("path") is None
    assert recipe.data["data"]["zip"] == 1000.0, "an unknown key is read as it always was"
