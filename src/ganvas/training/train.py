"""One run from recipe to trained model, stage by stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganvas.engine.build import Plan, build_trainer
from ganvas.engine.distributed import agreed, joined
from ganvas.model import Model
from ganvas.recipe.recipe import Recipe
from ganvas.recipe.stages import Stage, stages_of
from ganvas.runtime import ranks
from ganvas.runtime.devices import pick_device
from ganvas.training.check import check, of_stage, placed
from ganvas.training.folder import (
    check_same_data,
    check_same_recipe,
    check_unused,
    held,
    open_data,
    run_folder,
    write_recipe,
)
from ganvas.training.session import Session, Watcher


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *overrides: str,
    out: str | Path | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    device: str | None = None,
    watcher: Watcher | None = None,
    profile: bool = False,
) -> Model:
    """Train a recipe into a run folder and return the trained model.

    Parameters
    ----------
    recipe : a Recipe, plain data, or the name or path of one.
    overrides : `key=value` in the recipe's terms.
    out : the run folder; None takes a new `runs/<recipe>`.
    resume : go on from the newest checkpoint in `out`; bit-exact on the same machine.
    allow_changes : go on although the recipe or the data are not those that the run began with.
    device : such as `cpu` or `cuda:1`; None takes the first accelerator, else the CPU.
    profile : write where a few of the steps go into `profile/` of the run folder; nothing that is learnt changes.

    Raises
    ------
    RecipeError, DataError : before anything is written.
    ResumeMismatch : the recipe or the data differ from the run's; the difference is shown.
    DivergenceError : a loss is no longer finite.
    """
    watcher = watcher or Watcher()
    recipe = as_recipe(recipe).override(*overrides)
    with joined(device) as own_device:
        folder = agreed(lambda: run_folder(recipe.name, out, resume=resume))
        *earlier, last = stages_of(recipe, folder)
        if resume and (folder / "resolved.yaml").is_file():
            check_same_recipe(folder, last.resolved, allow_changes=allow_changes)
        if earlier and not resume:
            check(recipe, watcher.say)
        if earlier:
            with held(folder):
                if ranks.rank() == 0:
                    if not resume:
                        check_unused(folder, "recipe.yaml")
                    write_recipe(folder, recipe, last.resolved)  # so that a growth that ends early can be resumed
        for stage in (*earlier, last):
            if stage.name and resume and agreed(stage.finished):
                continue
            if earlier:
                watcher.say(f"stage {stage.number} of {last.number}: {stage.name or 'the recipe itself'}")
            with of_stage(stage):
                model = train_stage(
                    stage, resume=resume and agreed(stage.folder.is_dir), allow_changes=allow_changes,
                    device=own_device, watcher=watcher, profile=profile,
                )  # fmt: skip
        return model


def train_stage(
    stage: Stage, *, resume: bool, allow_changes: bool, device: str | None, watcher: Watcher, profile: bool
) -> Model:
    """Train one run into its folder; see `train`."""
    recipe, resolved, folder = stage.recipe, stage.resolved, stage.folder
    if resume and (folder / "resolved.yaml").is_file():
        check_same_recipe(folder, resolved, allow_changes=allow_changes)
    with placed(recipe):
        dataset = open_data(resolved)
    if dataset.census is not None:
        watcher.say(f"data: {dataset.census.line()}")
    plan = Plan(resolved, dataset, pick_device(device))
    if resume and (folder / "provenance.json").is_file():
        check_same_data(folder, dataset, allow_changes=allow_changes)
    with placed(recipe):
        session = Session(plan, folder, watcher)
        begun = dataclasses.replace(plan, resolved=stage.begun)
        trainer = build_trainer(begun, folder, session.hooks(), fresh=not (resume and session.has_checkpoint()))
    # From here on the folder is written to; all that a user can get wrong has been looked at.
    with held(folder):
        if not resume and session.lead:
            check_unused(folder, "provenance.json")
        if resume:
            step = trainer.resume()
            watcher.say(f"going on from step {step} of {plan.settings.steps}")
        if session.lead:
            session.open_folder(recipe, stage.origin)
        session.go(trainer, profile=profile)
    return session.model


def as_recipe(recipe: Recipe | str | Path | Mapping[str, Any]) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    return Recipe(recipe) if isinstance(recipe, Mapping) else Recipe.load(recipe)
