"""What another batch size changes without a word is said, with the key that keeps it."""

from __future__ import annotations

import pytest

from ganvas.recipe.recipe import Recipe
from ganvas.recipe.remarks import remarks


def said(*changes: str, before: tuple[str, ...] = ()) -> list[str]:
    loaded = Recipe.load("digits", before)
    return remarks(loaded, loaded.override(*changes))


def test_the_half_life_of_an_average_is_told_with_what_keeps_it() -> None:
    # 0.99 a step of 64: 64 ln 0.5 / ln 0.99 = 4,414 images
    (sentence,) = said("train.batch=16")
    assert "ema.half_life_images=4414 keeps that" in sentence and "the last 1,103 images" in sentence
    kept = Recipe.load("digits", ["train.batch=16", "ema.half_life_images=4414"])
    assert kept.resolve()["ema"]["half_life_images"] == 4414


def test_a_start_in_images_is_told_with_the_step_that_it_was() -> None:
    sentences = said("train.batch=128", before=("ema.start_images=64000",))
    assert len(sentences) == 2
    assert "ema.start_steps=1000 keeps that" in sentences[1] and "step 500 at a batch of 128" in sentences[1]


@pytest.mark.parametrize(
    "changes",
    [
        (), ("optim.lr=0.1",), ("train.batch=64",), ("train.batch=16", "ema=~"), ("train.batch=16", "ema.decay=0.9"),
        ("train.batch=16", "ema.half_life_images=4414"),
    ],
)  # fmt: skip
def test_nothing_is_said_where_nothing_changed_or_the_user_has_spoken(changes: tuple[str, ...]) -> None:
    assert said(*changes) == []
