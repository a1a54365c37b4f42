"""Recipes have the numbers of the publication that they name, or say of each other number why."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest

from ganvas.errors import BadValue
from ganvas.recipe.catalogue import source_text
from ganvas.recipe.recipe import Recipe, shipped
from ganvas.recipe.sources import Source, deviations, source_of, sources

RECIPES = sorted(name for name in shipped() if not name.startswith("tiny/"))


@functools.cache
def resolved(name: str) -> dict[str, Any]:
    return Recipe.load(name).resolve()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_differs_from_its_source_where_it_says_so_and_nowhere_else(name: str) -> None:
    recipe = resolved(name)
    source = source_of(recipe)
    if source is None:
        assert not recipe["differs"], "reasons without a source"
        return
    found, reasons = deviations(recipe, source), recipe["differs"]
    assert found.keys() == reasons.keys(), {path: found.get(path) for path in found.keys() ^ reasons.keys()}
    assert all(reason.strip() for reason in reasons.values())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_without_a_source_says_in_a_line_why_it_has_none(name: str) -> None:
    said = re.search(r"^# No published setting: \S.+\.$", shipped()[name].read_text(encoding="utf-8"), re.MULTILINE)
    assert (said is None) == (resolved(name)["source"] is not None)


def test_every_source_is_named_by_a_recipe_and_says_where_it_is() -> None:
    named = {resolved(name)["source"] for name in RECIPES}
    bases = {source.base for source in sources().values()}
    assert sources().keys() <= named | bases
    assert all(source.where and source.values for source in sources().values())


def test_a_source_is_laid_over_its_base_as_recipes_are() -> None:
    base, over = sources()["studiogan/CIFAR10/BigGAN"], sources()["studiogan/CIFAR10/ReACGAN"]
    assert over.base == "studiogan/CIFAR10/BigGAN" and base.where in over.where
    assert over.values["ema.decay"] == base.values["ema.decay"] == 0.9999
    assert (base.values["train.batch"], over.values["train.batch"]) == (64, 128)
    # another part brings its own keys and none of the replaced one
    deep = sources()["studiogan/CIFAR10/BigGAN-Deep"].values
    assert "networks.generator.norm_eps" in base.values and "networks.generator.norm_eps" not in deep


def test_what_a_recipe_shows_of_its_source() -> None:
    text = source_text(resolved("wgan-gp-cifar10"))
    assert text.splitlines()[0].startswith("# source studiogan/CIFAR10/WGAN-GP: POSTECH-CVLab/PyTorch-StudioGAN@")
    (line,) = text.splitlines()[1:]
    assert line.startswith('# networks.discriminator.norm is "none" here and "batch" there: the penalty is on')
    assert source_text(resolved("digits")) == ""
    # a change of the user's is told, too, without a reason
    changed = Recipe.load("wgan-gp-cifar10", ["train.batch=32"]).resolve()
    assert "# train.batch is 32 here and 64 there" in source_text(changed).splitlines()


def test_an_unknown_source_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(BadValue, match="studiogan/CIFAR10/BigGAN"):
        source_of({"source": "studiogan/CIFAR10/BigGAM"})


@pytest.mark.parametrize(
    ("ours", "published", "equal"),
    [(1, 1.0, True), ([0.5, 0.999], (0.5, 0.999), True), (True, 1, False), ("hinge", "hinge", True), (None, 0, False)],
)
def test_what_counts_as_the_same(ours: Any, published: Any, equal: bool) -> None:
    assert (deviations({"a": ours}, Source("here", {"a": published})) == {}) is equal
