"""What a change to a recipe brings with it, to be said before training begins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ganvas.errors import RecipeError
from ganvas.recipe.layering import at
from ganvas.recipe.recipe import Recipe


def remarks(before: Recipe, after: Recipe) -> list[str]:
    """Sentences on what changes though nobody named it: amounts with the batch size, schedules of what was dropped.

    `before` is the recipe that was loaded, `after` has the user's changes.
    """
    try:
        old, new = before.resolve(), after.resolve()
    except RecipeError:  # a recipe that only the changes make whole
        return []
    said = [
        f"the schedule of {path} is gone, as {path} is"
        for path in old["schedules"]
        if path not in new["schedules"] and at(new, tuple(path.split("."))) is None
    ]
    batches = old["train"]["batch"], new["train"]["batch"]
    if batches[0] == batches[1]:
        return said
    amounts = [_half_life(old["ema"], new["ema"], batches), _start(old["ema"], new["ema"], batches)]
    return [*said, *(sentence for sentence in amounts if sentence)]


def _half_life(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, batches: tuple[int, int]) -> str | None:
    if not old or not new or new["half_life_images"] is not None or old["decay"] != new["decay"]:
        return None
    if not 0 < new["decay"] < 1:
        return None
    was, now = (batch * math.log(0.5) / math.log(new["decay"]) for batch in batches)
    return (
        f"ema.decay={new['decay']} is a step's: half of an average is of the last {now:,.0f} images at a batch of "
        f"{batches[1]}, and was of {was:,.0f} at {batches[0]}; ema.half_life_images={was:.0f} keeps that"
    )


def _start(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, batches: tuple[int, int]) -> str | None:
    if not old or not new or not new["start_images"] or new["start_steps"] is not None:
        return None
    if old["start_images"] != new["start_images"]:
        return None
    was, now = (-(-new["start_images"] // batch) for batch in batches)
    return (
        f"ema.start_images={new['start_images']} is step {now:,} at a batch of {batches[1]}, and was step {was:,} at "
        f"{batches[0]}; ema.start_steps={was} keeps that"
    )
