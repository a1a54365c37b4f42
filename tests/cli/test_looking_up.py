"""`list`, `show`, `check` and `diff`: what there is, told to people and to scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ganvas import parts
from ganvas.recipe import catalogue
from ganvas.recipe.recipe import Recipe, shipped

Ganvas = Callable[..., Any]


def test_help_shows_the_way_from_a_recipe_to_a_score(ganvas: Ganvas) -> None:
    text = ganvas("--help").out
    verbs = [
        "train", "sample", "eval", "inspect", "data", "edit", "profile", "bench", "search", "scale", "list", "show",
        "check", "diff",
    ]  # fmt: skip
    listed = [line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line.strip()]
    assert listed[: len(verbs)] == verbs
    assert "..." not in text.partition("Commands:")[2]  # each command's line is whole
    for verb in verbs:
        said = ganvas(f"{verb} --help")
        assert said.code == 0 and "--json" in said.out and said.err == ""


def test_list_shows_every_part_on_its_shelf(ganvas: Ganvas) -> None:
    text = ganvas("list").out
    for part in parts.every():
        assert f"\n{part.name} " in text
    assert text.startswith("modalities\n") and "\n\ndata\n" in text and "\n\nobjectives\n" in text
    listed = ganvas("list --json").json
    assert [(each["kind"], each["name"]) for each in listed] == [(part.kind, part.name) for part in parts.every()]
    assert all(each["summary"] for each in listed)


def test_help_names_every_kind_that_can_be_listed(ganvas: Ganvas) -> None:
    text = ganvas("list --help").out
    kinds = {parts.SHELVES[part.kind] for part in parts.every()}
    assert {kind for kind in (*kinds, "recipes", "protocols", "systems") if f"`{kind}`" not in text} == set()
    unknown = ganvas("list protcols")
    assert unknown.code == 2 and "Did you mean 'protocols'?" in unknown.err and "ganvas list --help" in unknown.err


def test_what_help_shows_works_as_it_stands(ganvas: Ganvas) -> None:
    for verb in ("list", "show"):
        lines = [line.split("  ")[0] for line in ganvas(f"{verb} --help").out.replace("\n  ", "\n").splitlines()]
        examples = [line for line in lines if line.startswith(f"ganvas {verb} ")]
        assert len(examples) >= 4
        for example in examples:
            said = ganvas(example.removeprefix("ganvas "))
            assert said.code == 0 and said.out, example


def test_protocols(ganvas: Ganvas) -> None:
    listed = {entry["name"]: entry["summary"] for entry in ganvas("list protocols --json").json}
    assert {"digits", "raw"} <= listed.keys() and all(listed.values())
    assert ganvas("show protocol digits --json").json["extractor"] == {"use": "digit-net"}
    assert "summary: " in ganvas("show protocol raw").out
    for kind in ("protocol", "system", "network"):
        said = ganvas(f"show {kind}")
        assert said.code == 2 and f"which {kind}?" in said.err and f"ganvas list {kind}s" in said.err


@pytest.mark.parametrize("word", ["objective", "objectives", "optimizer", "features", "extractors", "data", "datasets"])
def test_a_shelf_goes_by_its_kind_or_its_folder(ganvas: Ganvas, word: str) -> None:
    listed = ganvas(f"list {word} --json").json
    assert listed and {each["kind"] for each in listed} == {parts.kind_of(word)}


def test_a_pattern_is_looked_for_in_what_people_read(ganvas: Ganvas) -> None:
    names = [each["name"] for each in ganvas("list objectives WASSERSTEIN --json").json]
    assert "wasserstein" in names and "hinge" not in names
    assert "sngan-generator" in [each["name"] for each in ganvas("list networks miyato --json").json]
    assert ganvas("list objectives objectives/ --json").json == []  # where a file lies is no match
    nothing = ganvas("list objectives zzz")
    assert (nothing.code, nothing.out) == (0, "") and "ganvas list objectives" in nothing.err


def test_recipes_and_systems(ganvas: Ganvas) -> None:
    recipes = {each["name"]: each for each in ganvas("list recipes --json").json}
    assert set(recipes) == set(shipped())
    assert all(each["summary"] for each in recipes.values())
    text = ganvas("list recipes").out
    assert [line.split()[0] for line in text.splitlines()] == sorted(shipped())
    systems = ganvas("list systems --json").json
    assert systems and all(set(each) == {"id", "title", "parts", "recipes", "test", "studies"} for each in systems)
    titles = json.loads(Path(catalogue.__file__).with_name("catalogue.json").read_text())
    for each in systems:
        assert each["title"] == titles[each["id"]]["title"]
        for part in each["parts"]:
            kind, name = part.split(" ")
            assert parts.find(kind, name).system == each["id"]
        for name in each["recipes"]:
            assert Recipe.load(name).data["system"] == each["id"]
    listed = next(each for each in systems if each["id"] == "dcgan")
    shown = ganvas("show system dcgan --json").json
    assert {key: shown[key] for key in listed} == listed
    assert "network dcgan-generator" in ganvas("show system dcgan").out
    carried = {part.system for part in parts.every() if part.system}
    assert carried <= {each["id"] for each in systems}


@pytest.mark.parametrize("part", parts.every(), ids=lambda part: f"{part.kind} {part.name}")
def test_every_part_can_be_shown_in_words(part: parts.Part) -> None:
    found = catalogue.details(part)
    text = catalogue.as_text(found)
    assert text.startswith(f"{part.kind} {part.name}\n")
    assert str(part.where) in text and part.summary.split(". ")[0][:40] in text.replace("\n", " ")
    for pythonic in ("Annotated", "Literal", "Optional", "NoneType", "typing.", "ganvas.", "Mapping", "object at 0x"):
        assert pythonic not in json.dumps(found["keys"])
    json.dumps(found)


def test_show_a_part(ganvas: Ganvas) -> None:
    text = ganvas("show task adversarial").out
    assert 'objective: objective  = "non-saturating"' in text
    assert "critic_steps: int > 0  = 1" in text
    assert (
        "regularizers: set of regularizers by name, each with\n    weight: float  = 1.0\n    every: int > 0  = 1"
        in text
    )
    assert "Goodfellow et al. 2014" in text and "tasks/adversarial.py:" in text and "digits" in text
    found = ganvas("show dataset folder --json").json
    keys = {each["key"]: each for each in found["keys"]}
    assert keys["path"]["required"] and keys["path"]["type"] == "path"
    assert keys["fit"]["type"] == '"crop" | "pad" | "stretch"' and keys["fit"]["default"] == "crop"


def test_recipes_that_use_a_part_are_found_by_kind_and_name(ganvas: Ganvas) -> None:
    assert "digits" in ganvas("show dataset digits --json").json["recipes"]
    assert "digits" in ganvas("show conditioning projection --json").json["recipes"]
    # The word `digits` stands in recipes as a data set and as a protocol; there is no other part that it could mean.
    assert "digits" not in ganvas("show dataset shapes --json").json["recipes"]
    assert "digits" in ganvas("show extractor digit-net --json").json["protocols"]


def test_show_a_recipe(ganvas: Ganvas) -> None:
    resolved = ganvas("show recipe digits --json").json
    assert resolved == Recipe.load("digits").resolve()
    Path("again.yaml").write_text(ganvas("show recipe digits").out)
    assert Recipe.load("again.yaml").resolve() == resolved
    keys = ganvas("show recipe").out
    assert "  steps: int > 0  = 10000" in keys.splitlines() and "task: task  (required)" in keys.splitlines()
    assert ganvas("show recipe --json").json["$schema"].endswith("2020-12/schema")


def test_check_several_recipes(ganvas: Ganvas) -> None:
    good = ganvas("check tiny/digits tiny/digits-dcgan --json")
    assert good.code == 0
    assert [(each["recipe"], each["ok"], each["problems"]) for each in good.json] == [
        ("tiny/digits", True, []), ("tiny/digits-dcgan", True, []),
    ]  # fmt: skip
    mixed = ganvas("check tiny/digits nowhere tiny/digits-dcgan networks.generator.spectral_norm=true")
    assert mixed.code == 2
    assert mixed.out.splitlines() == ["tiny/digits: ok", "nowhere: 1 to mend", "tiny/digits-dcgan: 1 to mend"]
    assert "'nowhere'" in mixed.err and "has no parameter 'spectral_norm'" in mixed.err
    assert list(Path().iterdir()) == []


def test_check_without_data_says_so(ganvas: Ganvas) -> None:
    refused = ganvas("check folder data.path=nowhere")
    assert refused.code == 2 and "nowhere" in refused.err  # as training would be
    said = ganvas("check folder data.path=nowhere --without-data --json")
    assert said.code == 0, said.err
    assert "random data stand in" in said.json[0]["notes"][0]
    assert "nowhere" in said.err


def test_diff(ganvas: Ganvas) -> None:
    said = ganvas("diff digits tiny/digits")
    assert said.code == 0
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in said.out.splitlines()}
    assert lines["networks.generator.width"].strip().endswith("-> 8")
    assert ganvas("diff digits digits --json").json == {}
