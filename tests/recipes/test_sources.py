"""Recipes have the numbers of the publication that they name, or say of each other number why."""

from __future__ import annotations

from typing import Any

import pytest

from ganvas.errors import BadValue
from ganvas.recipe.recipe import Recipe, shipped
from ganvas.recipe.sources import Source, deviations, source_of, sources

RECIPES = sorted(name for name in shipped() if not name.startswith("tiny/"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_differs_from_its_source_where_it_says_so_and_nowhere_else(name: str) -> None:
    resolved = Recipe.load(name).resolve()
    source = source_of(resolved)
    if source is None:
        assert not resolved["differs"], "reasons without a source"
        return
    found = deviations(resolved, source)
    assert found.keys() == resolved["differs"].keys(), {path: found[path] for path in found.keys() - resolved["differs"]}
    assert all(reason.strip() for reason in resolved["differs"].values())


def test_every_source_is_named_by_a_recipe_and_says_where_it_is() -> None:
    named = {Recipe.load(name).data.get("source") for name in RECIPES}
    bases = {source.base for source in sources().values()}
    assert sources().keys() <= named | bases
    assert all(source.where and source.values for source in sources().values())


def test_an_unknown_source_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(BadValue, match="studiogan/CIFAR10/BigGAN"):
        source_of({"source": "studiogan/CIFAR10/BigGAM"})


@pytest.mark.parametrize(
    ("ours", "published", "equal"),
    [(1, 1.0, True), ([0.5, 0.999], (0.5, 0.999), True), (True, 1, False), ("hinge", "hinge", True), (None, 0, False)],
)
def test_what_counts_as_the_same(ours: Any, published: Any, equal: bool) -> None:
    assert (deviations({"a": ours}, Source("here", {"a": published})) == {}) is equal
