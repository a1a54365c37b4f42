"""A recipe tried at tiny size: built, and one step of every update, without a file being written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ganvas import parts
from ganvas.engine.build import build_courses, build_learners, build_networks, build_task, check_passes, fill
from ganvas.engine.layout import Replicated
from ganvas.engine.trainer import stack
from ganvas.errors import BadValue, GanvasError
from ganvas.evaluation.protocol import load_protocol
from ganvas.recipe.recipe import Recipe, made_tiny
from ganvas.recipe.stages import Stage, stages_of, tell_stage
from ganvas.recipe.trained import Weights
from ganvas.types import Batch, DataSpec


@contextlib.contextmanager
def placed(recipe: Recipe) -> Iterator[None]:
    """Give a BadValue that a part raised while it was built its place in the recipe's file."""
    try:
        yield
    except BadValue as error:
        path = tuple(error.where.split(".")) if error.where else ()
        for start in ((), ("networks",), ("task",)):
            for cut in range(len(path), 0, -1):
                if (mark := recipe.marks.get((*start, *path[:cut]))) is not None:
                    error.where = f"{mark}  {'.'.join((*start, *path))}"
                    raise
        raise


def check(recipe: Recipe, say: Callable[[str], None] = lambda text: None) -> None:
    """Build a recipe at tiny size and take one step of every update, without a file being written.

    Where its data are not at hand, random data of the shape that they promise stand in, and `say` is told. Of a recipe
    with stages each one is built, and has to be able to start from the one before.

    Raises
    ------
    GanvasError : whatever training would have raised before its second step.
    """
    built: dict[str, nn.Module] = {}
    for stage in stages_of(recipe, Path()):
        with of_stage(stage):
            now = check_stage(stage, say)
            for role, net in now.items() if stage.before else ():
                if role in built and stage.resolved["networks"][role]["from"] is None:
                    fill(net, built[role].state_dict(), source="the stage before", place=f"networks.{role}")
        built = now


def check_stage(stage: Stage, say: Callable[[str], None]) -> dict[str, nn.Module]:
    """See `check`; its networks at their real size, without values."""
    recipe, resolved = stage.recipe, stage.resolved
    node = {key: value for key, value in resolved["data"].items() if key != "use"}
    part = parts.find("dataset", resolved["data"]["use"])
    place = node.get("path")
    if place is not None and not any(sign in str(place) for sign in ("{", "*", "://")) and not Path(place).exists():
        say(f"there is nothing at data.path={place} (checked with random data instead)")
        spec = parts.preview(part, node)
    else:
        spec = parts.build("dataset", resolved["data"]).spec
    small = made_tiny(resolved)
    if resolved["eval"]:
        load_protocol(resolved["eval"]["protocol"])
    real: dict[str, nn.Module] = {}
    with placed(recipe):
        for role, own in resolved["networks"].items():  # the real sizes must be possible, too
            with torch.device("meta"):
                real[role] = parts.build_set("network", {role: own}, Weights, spec)[role].part
        nets, frozen = build_networks(small, spec, pretrained=False)
        task = build_task(small, nets, spec)
        check_passes(task, resolved["train"])
    step_once(task, spec)
    with placed(recipe):
        cpu = torch.device("cpu")
        build_courses(small, nets, task, *build_learners(small, nets, task, frozen, cpu, Replicated(cpu)))
    return real


@contextlib.contextmanager
def of_stage(stage: Stage) -> Iterator[None]:
    """Let an error say in which stage it is; the last one is the recipe itself."""
    try:
        yield
    except GanvasError as error:
        if stage.name:
            tell_stage(error, stage.name)
        raise


def step_once(task: Any, spec: DataSpec) -> None:
    label = torch.arange(4) % spec.num_classes if spec.num_classes else None
    batch = Batch(torch.rand(4, *spec.shape) * 2 - 1, label)
    for update in task.updates():
        stack(update, update.losses(batch, 0)).sum().backward()  # type: ignore[no-untyped-call]
        if update.after is not None:
            update.after()
