"""A recipe tried at tiny size: the whole road of training in a folder that is thrown away."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganvas import parts
from ganvas.engine.build import (
    Plan,
    build_task,
    build_trainer,
    check_conditions,
    check_passes,
    fill,
    frozen_names,
    load_weights,
)
from ganvas.engine.trainer import Hooks
from ganvas.errors import BadValue, DataError, DivergenceError, GanvasError
from ganvas.evaluation.judge import Judge, check_reference
from ganvas.evaluation.protocol import load_protocol
from ganvas.model import Model
from ganvas.recipe.recipe import Recipe, made_short, made_tiny
from ganvas.recipe.stages import Stage, stages_of, tell_stage
from ganvas.recipe.trained import Weights
from ganvas.training.folder import open_data
from ganvas.training.session import Session, Watcher, first_of
from ganvas.types import Batch, Dataset, DataSpec, Network, StreamedDataset

_FEW = 8  # data that stand for a set
_SHOWN = 2  # samples in the picture of a check


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


def check(recipe: Recipe, say: Callable[[str], None] = lambda text: None, *, data: bool = True) -> None:
    """Walk the road of training with a recipe at tiny size, in a folder that is thrown away.

    A batch of its own data, every update once, checkpoint, samples by its own sampler, their picture, their features in
    the extractors of its protocol, the model file loaded again, and a resume. Of a recipe with stages each one is
    tried, and has to be able to start from the one before.

    Parameters
    ----------
    say : told what stands in for something that is not at hand.
    data : without, random data of the shape that the recipe's data promise stand in for those that are not there.

    Raises
    ------
    GanvasError : whatever training would raise for it.
    """
    built: dict[str, Network] = {}
    for stage in stages_of(recipe, Path()):
        with of_stage(stage):
            now = check_stage(stage, say, data=data)
            for role, net in now.items() if stage.before else ():
                if role in built and stage.resolved["networks"][role]["from"] is None:
                    fill(net, built[role].state_dict(), source="the stage before", place=f"networks.{role}")
        built = now


def check_stage(stage: Stage, say: Callable[[str], None], *, data: bool) -> dict[str, Network]:
    """See `check`; its networks at their real size, without values."""
    recipe, resolved = stage.recipe, stage.resolved
    with placed(recipe):
        full_set = open_data(resolved) if data else data_or_stand_in(resolved, say, count=_FEW)
    dataset = Few(first_of(full_set, _FEW), full_set.spec, full_set.class_names, len(full_set))
    real: dict[str, Network] = {}
    with placed(recipe):
        for role, node in resolved["networks"].items():  # the real sizes must be possible, too
            with torch.device("meta"):
                entry = parts.build_set("network", {role: node}, Weights, dataset.spec)[role]
            real[role] = entry.part
            check_conditions(entry.part, dataset.spec, role)
            frozen_names(entry.part, entry.extra, role)
            source = entry.extra.from_
            if source and not data and not Path(source).exists():
                say(f"first weights stand in: there is no model at {source}")
            elif source and not stage.before:
                load_weights(entry.part, Path(entry.extra.from_), entry.extra.net or role, role)
        let_task_look(resolved, real, dataset)
        try:
            walk(recipe, made_tiny(resolved), dataset, resolved["train"])
        except Exception as error:
            if isinstance(error, GanvasError) and not isinstance(error, BadValue | DivergenceError):
                raise
            # Sizes that were shrunk may not agree where the recipe's own do: they alone condemn it.
            walk(recipe, made_short(resolved), dataset, resolved["train"])
    return real


def let_task_look(resolved: Mapping[str, Any], nets: Mapping[str, Network], dataset: Dataset) -> None:
    """Build the task around networks of their real sizes, which have no values.

    Raises
    ------
    GanvasError : the task refuses them, as those do that do not agree on a size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the walk gives the same ones
            plan = Plan(resolved, dataset, torch.device("cpu"))
            build_task(resolved, nets, plan.facts)
    except GanvasError:
        raise
    except Exception:  # it reads values, which only the walk has
        return


class Few(Dataset):
    """A few data of a set, or random ones that look like it, over and over."""

    def __init__(self, batch: Batch, spec: DataSpec, class_names: tuple[str, ...], count: int) -> None:
        self.data = batch
        self.spec = spec
        self.class_names = class_names
        self.count = count  # of the whole set: a task may have a row for each datum
        self.fingerprint = hashlib.sha256(repr((spec, count)).encode()).hexdigest()

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        rows = torch.as_tensor(indices % len(self.data))
        return replace(self.data.map(lambda value: value[rows]), index=torch.as_tensor(indices))


def data_or_stand_in(
    resolved: Mapping[str, Any], say: Callable[[str], None], *, count: int = 256
) -> Dataset | StreamedDataset:
    """A recipe's data, or `count` random data of the shape that they promise where they are not at hand."""
    try:
        return open_data(resolved)
    except DataError as error:
        node = {key: value for key, value in resolved["data"].items() if key != "use"}
        spec = parts.preview(parts.find("dataset", resolved["data"]["use"]), node)
        if spec is None:
            raise
        say(f"random data stand in: {error.where or resolved['data']['use']}: {error.problem}")
        return random_set(spec, count)


def random_set(spec: DataSpec, count: int = 256) -> Few:
    """Random data that look like these, always the same."""
    names = tuple(str(number) for number in range(spec.num_classes))
    return Few(spec.stand_in(count, torch.Generator().manual_seed(0)), spec, names, count)


def walk(recipe: Recipe, small: dict[str, Any], dataset: Dataset, train: Mapping[str, Any]) -> None:
    """All that a run does, once, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="ganvas-check-") as place:
        folder, cpu = Path(place), torch.device("cpu")
        plan = Plan({**small, "eval": None, "sinks": {}}, dataset, cpu)
        session = Session(plan, folder, Watcher(), most=_SHOWN)
        failures: list[Exception] = []
        hooks = replace(session.hooks(), failed=lambda step, what, error: failures.append(error))
        trainer = build_trainer(plan, folder, hooks, fresh=False)
        check_passes(trainer.task, train)
        session.open_folder(recipe, None)
        trainer.run()
        for failure in failures:
            raise failure
        model = Model.load(folder)
        if small["eval"]:
            protocol = load_protocol(small["eval"]["protocol"])
            look_at_reference(model, protocol)
            look_at(model, Judge(protocol, dataset, dataset), dataset)
        build_trainer(plan, folder, Hooks(), fresh=False).resume()


def look_at_reference(model: Model, protocol: Mapping[str, Any]) -> None:
    """Refuse a protocol whose own reference says without its files that it does not fit the model."""
    if (node := protocol["reference"]) is None:
        return
    spec = parts.preview(parts.find("dataset", node["use"]), node)
    if spec is not None:
        check_reference(model, spec, protocol["name"])


def look_at(model: Model, judge: Judge, dataset: Dataset) -> None:
    """Embed two samples and two of the data in every extractor of a protocol."""
    for data in (sample_like(model, dataset, 2), dataset.batch(np.arange(2), np.random.default_rng(0)).data):
        for extractor in judge.extractors.values():
            extractor(model.spec.modality.restored(model.spec.modality.rounded(data)))


def sample_like(model: Model, dataset: Dataset, n: int) -> Tensor:
    """n samples, made for the conditions of the first n data."""
    batch = dataset.batch(np.arange(n), np.random.default_rng(0))
    return model.sample(n, condition=batch.asked(model.reads))


@contextlib.contextmanager
def of_stage(stage: Stage) -> Iterator[None]:
    """Let an error say in which stage it is; the last one is the recipe itself."""
    try:
        yield
    except GanvasError as error:
        if stage.name:
            tell_stage(error, stage.name)
        raise
