"""Recipes as text: YAML 1.2's scalars, places, and a round trip that loses nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas.errors import RecipeError
from ganvas.recipe import yaml12

SCALARS = [
    ("2e-4", 2e-4), ("1E3", 1000.0), (".5", 0.5), ("5.", 5.0), ("+1.5", 1.5), ("-3", -3), ("010", 10), ("0o10", 8),
    ("0x1F", 31), ("0b1", "0b1"), ("1_000", "1_000"), ("1:20", "1:20"), ("2001-01-01", "2001-01-01"),
    ("no", "no"), ("on", "on"), ("yes", "yes"), ("Off", "Off"), ("y", "y"), ("true", True), ("False", False),
    ("~", None), ("null", None), ("", None), ("nul", "nul"), (".inf", math.inf), ("-.INF", -math.inf),
    ("'2e-4'", "2e-4"), ('"~"', "~"), ("a b", "a b"), ("e5", "e5"), ("1e", "1e"), ("--1", "--1"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    data, _ = yaml12.read(f"key: {text}\n", "a.yaml")
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


def test_not_a_number_is_a_number() -> None:
    assert math.isnan(yaml12.read("key: .nan", "a.yaml")[0]["key"])


def test_every_key_and_item_has_its_place() -> None:
    _, marks = yaml12.read("a:\n  b: [1,\n      2]\nc: {d: e}\n", "a.yaml")
    places = {".".join(path): str(mark) for path, mark in marks.items()}
    assert places == {
        "": "a.yaml:1:1", "a": "a.yaml:1:1", "a.b": "a.yaml:2:3", "a.b.0": "a.yaml:2:7", "a.b.1": "a.yaml:3:7",
        "c": "a.yaml:4:1", "c.d": "a.yaml:4:5",
    }  # fmt: skip


REFUSED = [
    ("a: 1\nb: 2\na: 3\n", "a.yaml:3:1", "'a' stands here twice, first at line 1"),
    ("a: {x: 1, x: 2}\n", "a.yaml:1:11", "'x' stands here twice"),
    ("a:\n\tb: 1\n", "a.yaml:2:1", "cannot start any token"),
    ("a: [1, 2\n", "a.yaml:2:1", "expected ',' or ']'"),
    ("a: !!python/object/apply:os.system [x]\n", "a.yaml:1:4", "means nothing in a recipe"),
    ("a: !!set {x, y}\n", "a.yaml:1:4", "means nothing in a recipe"),
    ("a: !!python/name:os x\n", "a.yaml:1:4", "means nothing in a recipe"),
    ("a: !mine x\n", "a.yaml:1:4", "'!mine' means nothing"),
    ("[a]: 1\n", "a.yaml:1:1", "a key must be a word"),
    ("a: *b\n", "a.yaml:1:4", "undefined alias"),
    ("a: &a [*a]\n", "a.yaml:1:4", "far larger than any recipe"),
    ("a: 1\n---\nb: 1\n", "a.yaml:2:1", "another document"),
    ("a: \x07\n", "a.yaml", "special characters"),
    ("[" * 5000, "a.yaml", "not readable as YAML"),
]


@pytest.mark.parametrize(("text", "where", "problem"), REFUSED)
def test_what_is_no_recipe_text_is_refused_with_its_place(text: str, where: str, problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        yaml12.read(text, "a.yaml")
    assert caught.value.where == where
    assert problem in caught.value.problem
    assert caught.value.hint


def test_a_small_file_cannot_blow_itself_up() -> None:
    layers = [f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(RecipeError, match="far larger"):
        yaml12.read("\n".join(["k0: &a0 [x, x, x, x, x, x, x, x, x]", *layers]), "a.yaml")


def test_an_alias_is_what_it_stands_for() -> None:
    assert yaml12.read("a: &x {lr: 1}\nb: *x\n", "a.yaml")[0] == {"a": {"lr": 1}, "b": {"lr": 1}}


@pytest.mark.parametrize("text", ["\ufeffa: 1\n", "a: 1\r\n", "# first\na: 1 # why\n", "%YAML 1.2\n---\na: 1\n"])
def test_ways_to_write_the_same(text: str) -> None:
    assert yaml12.read(text, "a.yaml")[0] == {"a": 1}


WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Z", "Cf")), max_size=12)
TRICKY = st.sampled_from(["~", "null", "no", "1e3", "2e-4", "010", "0o7", "-", "?", "a: b", "#", "'", '"', "\n", " x "])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | TRICKY
TREES = st.recursive(
    LEAVES, lambda each: st.lists(each, max_size=4) | st.dictionaries(WORDS | TRICKY, each, max_size=4), max_leaves=20
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(WORDS | TRICKY, TREES, max_size=5))
def test_what_is_written_is_read_back(data: dict[str, Any]) -> None:
    back, _ = yaml12.read(yaml12.write(data), "a.yaml")
    assert back == data
    assert repr(back) == repr(data)  # 1 is not 1.0, and True is not 1


def test_a_written_recipe_is_pleasant_to_read() -> None:
    text = yaml12.write({"train": {"steps": 5, "lr": 2e-4}, "long": {f"key_{i}": i for i in range(30)}})
    assert text.splitlines()[0] == "train: {steps: 5, lr: 0.0002}"
    assert "  key_29: 29" in text.splitlines()  # too long for one line: one key a line
    assert not any(line.endswith(" ") for line in text.splitlines())
