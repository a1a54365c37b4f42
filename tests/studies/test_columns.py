"""A table's columns: only values that the protocol has, and intervals within what they can be."""

from pathlib import Path

import pytest

from ganvas.errors import RecipeError
from ganvas.experiments import study, tables


def of(tmp_path: Path, metrics: str, overrides: str = "[]") -> study.Study:
    file = tmp_path / "s.yaml"
    file.write_text(f"recipe: tiny/digits\ngrid: {{a: {{b: []}}}}\nmetrics: {metrics}\noverrides: {overrides}\n")
    return study.load(file)


def test_columns_know_which_way_is_better_and_where_values_end(tmp_path: Path) -> None:
    known = study.columns(of(tmp_path, "[frechet_distance, class_agreement]"))
    assert known["frechet_distance"].lower_is_better and not known["class_agreement"].lower_is_better
    assert known["class_agreement"].limits == (0, 1)
    assert tables.shown(tables.Series((0.99, 1.0, 0.98)), (0, 1)).endswith(", 1]")


def test_a_value_that_the_protocol_has_not_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Did you mean 'frechet_distance'"):
        study.columns(of(tmp_path, "[frechet]"))


def test_a_recipe_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not scored"):
        study.columns(of(tmp_path, "[frechet_distance]", "['eval=~']"))
