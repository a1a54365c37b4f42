"""Training in stages: runs of one recipe with a few changes each, every one starting from the one before.

A recipe's `stages` are trained first, in their order; the recipe itself is the last stage. Progressive growing is this:
one resolution a stage.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganvas.errors import BadValue, CheckpointError, GanvasError, RecipeError
from ganvas.files.files import model_metadata
from ganvas.recipe.layering import at
from ganvas.recipe.recipe import Recipe
from ganvas.recipe.yaml12 import Mark

FOLDER = "stages"  # in the run's folder
_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Stage:
    """One run of a growth.

    `name` is empty for the last one; `before` is the stage that its networks start from.
    """

    recipe: Recipe
    resolved: Mapping[str, Any]
    folder: Path
    name: str = ""
    before: Stage | None = None

    @property
    def number(self) -> int:
        """From 1."""
        return 1 if self.before is None else self.before.number + 1

    @property
    def begun(self) -> Mapping[str, Any]:
        """The resolved recipe, whose networks start from those of the stage before; one that has a `from` keeps it."""
        if self.before is None:
            return self.resolved
        roles = self.before.resolved["networks"]
        networks = {
            role: {**node, "from": str(self.before.folder)} if role in roles and node["from"] is None else node
            for role, node in self.resolved["networks"].items()
        }
        return {**self.resolved, "networks": networks}

    @property
    def origin(self) -> str | None:
        """Where the stage before lies, seen from this one's folder."""
        return None if self.before is None else os.path.relpath(self.before.folder, self.folder)

    def finished(self) -> bool:
        """Whether its model is that of its last step."""
        try:
            return bool(model_metadata(self.folder)["step"] == self.resolved["train"]["steps"])
        except CheckpointError:
            return False


def stages_of(recipe: Recipe, folder: Path) -> list[Stage]:
    """All stages in their order, the recipe itself last; it alone where it names none.

    Each lies in `stages/<number>-<name>/` of the run's folder, the last one in the folder itself.

    Raises
    ------
    RecipeError : a name that is none for a folder, or the recipe of a stage has problems; says which.
    """
    resolved = recipe.resolve()
    stages: list[Stage] = []
    for number, (name, changes) in enumerate(resolved["stages"].items()):
        stage_recipe = changed(recipe, name, changes)
        before = stages[-1] if stages else None
        try:
            plain = stage_recipe.resolve()
        except RecipeError as error:
            tell_stage(error, name)
            raise
        stages.append(Stage(stage_recipe, plain, folder / FOLDER / f"{number}-{name}", name, before))
    return [*stages, Stage(recipe, resolved, folder, "", stages[-1] if stages else None)]


def changed(recipe: Recipe, name: str, changes: tuple[str, ...]) -> Recipe:
    """The recipe of one stage.

    Raises
    ------
    RecipeError : a name that is none for a folder, a change that is none, or one of the stages themselves.
    """
    place = recipe.marks.get(("stages", name), Mark("stages"))
    if not _NAME.fullmatch(name):
        raise BadValue(
            f"{name!r} cannot be the name of a stage", where=str(place), hint="letters, digits, dots and dashes: 16px"
        )
    stage_recipe = recipe.override("stages=~")
    for number, change in enumerate(changes):
        mark = recipe.marks.get(("stages", name, str(number)), place)
        before = stage_recipe.marks
        try:
            stage_recipe = stage_recipe.override(change)
        except GanvasError as error:
            raise RecipeError(error.problem, where=str(mark), hint=error.hint) from None
        marks = {path: old if before.get(path) == old else mark for path, old in stage_recipe.marks.items()}
        stage_recipe = Recipe(stage_recipe.data, stage_recipe.name, marks)
    if at(stage_recipe.data, ("stages",)):
        raise BadValue("a stage has no stages of its own", where=str(place), hint="list them beside it")
    return stage_recipe


def tell_stage(error: GanvasError, name: str) -> None:
    """Let an error say that it is that of a stage."""
    for problem in error.problems if isinstance(error, RecipeError) else (error,):
        problem.where = f"{problem.where}  (stage {name})".strip()
