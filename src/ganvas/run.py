"""One run from recipe to trained model: the folder, what is written into it, and when."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import ganvas
from ganvas import bench, parts, pictures, report, yaml12
from ganvas.engine.build import (
    Plan,
    build_courses,
    build_learners,
    build_networks,
    build_task,
    build_trainer,
    check_passes,
    fill,
)
from ganvas.engine.distributed import agreed, joined
from ganvas.engine.layout import Replicated
from ganvas.engine.trainer import Hooks, State, Trainer, stack
from ganvas.errors import BadValue, CheckpointError, DataError, GanvasError, ResumeMismatch
from ganvas.files import append_rows, claimed, full_disk, write_bytes, write_tensors
from ganvas.growth import Stage, stages_of, tell_stage
from ganvas.layering import without_nulls
from ganvas.model import Model, model_header
from ganvas.nn import ranks
from ganvas.numerics import pick_device
from ganvas.profiling import StepProfile, first_step
from ganvas.recipe import Recipe, differences, made_tiny
from ganvas.trained import Weights
from ganvas.types import Batch, Dataset, DataSpec, Sink

RUNS = Path("runs")
_GRID_ROWS, _GRID_COLUMNS = 8, 10
_POINTS = 5000  # for a scatter plot


class Watcher:
    """What a person sees of a run. The command line overrides this; the library is silent."""

    def say(self, text: str) -> None:
        """A sentence."""

    def begin(self, step: int, steps: int) -> None:
        """Training starts at `step` of `steps`."""

    def tick(self, step: int, values: Mapping[str, float]) -> None:
        """A step is done."""

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """A row was logged."""

    def end(self) -> None:
        """Training is over, one way or another."""


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
    dataset = open_data(resolved)
    plan = Plan(resolved, dataset, pick_device(device))
    if resume and (folder / "provenance.json").is_file():
        check_same_data(folder, dataset, allow_changes=allow_changes)
    with placed(recipe):
        session = Session(plan, folder, watcher)
        begun = dataclasses.replace(plan, resolved=stage.begun)
        trainer = build_trainer(begun, folder, session.hooks(), fresh=not (resume and session.has_checkpoint()))
    # From here on the folder is written to; all that a user can get wrong has been looked at.
    with held(folder):
        if resume:
            step = trainer.resume()
            watcher.say(f"going on from step {step} of {plan.settings.steps}")
        if session.lead:
            session.open_folder(recipe, stage.origin)
        session.go(trainer, profile=profile)
    return session.model


def held(folder: Path) -> contextlib.AbstractContextManager[None]:
    """`claimed` by the process that writes, which is the first of those that train together."""
    return claimed(folder) if ranks.rank() == 0 else contextlib.nullcontext()


def as_recipe(recipe: Recipe | str | Path | Mapping[str, Any]) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    return Recipe(recipe) if isinstance(recipe, Mapping) else Recipe.load(recipe)


def open_data(resolved: Mapping[str, Any]) -> Dataset:
    dataset: Dataset = parts.build("dataset", resolved["data"])
    if len(dataset) < 2:
        raise DataError("there is one datum; training needs at least 2", where="data")
    return dataset


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


# --------------------------------------------------------------------------------------------------- the folder


def run_folder(name: str, out: str | Path | None, *, resume: bool) -> Path:
    """The folder of a run: the given one, else `runs/<name>`, numbered where that is taken.

    Raises
    ------
    ResumeMismatch : it holds a run and resume was not asked for, or the other way round.
    """
    if out is None:
        folder = RUNS / name.replace("/", "-")
        if resume:
            return folder
        count = 1
        while folder.exists():
            count += 1
            folder = RUNS / f"{name.replace('/', '-')}-{count}"
        return folder
    folder = Path(out)
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ResumeMismatch(f"{place} is a file", where="--out", hint="give a folder")
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise ResumeMismatch(
            f"{folder} is not empty", where="--out",
            hint=f"go on with it: ganvas train --resume --out {folder}; or give another folder",
        )  # fmt: skip
    return folder


def check_same_recipe(folder: Path, resolved: Mapping[str, Any], *, allow_changes: bool) -> None:
    before, _ = yaml12.read((folder / "resolved.yaml").read_text(encoding="utf-8"), str(folder / "resolved.yaml"))
    changed = differences(before, json.loads(json.dumps(resolved)))
    if changed and not allow_changes:
        lines = "\n".join(f"    {key}: {old!r} -> {new!r}" for key, (old, new) in changed.items())
        raise ResumeMismatch(
            f"the recipe is not the one that this run began with:\n{lines}", where=str(folder),
            hint="train it into another --out, or add --allow-changes if you mean it",
        )  # fmt: skip


def check_same_data(folder: Path, dataset: Dataset, *, allow_changes: bool) -> None:
    before = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["data"]
    if before != dataset.fingerprint and not allow_changes:
        raise ResumeMismatch(
            f"the data have changed since this run began (fingerprint {before[:12]} -> {dataset.fingerprint[:12]})",
            where=str(folder), hint="put the data back as they were, or add --allow-changes if you mean it",
        )  # fmt: skip


def write_recipe(folder: Path, recipe: Recipe, resolved: Mapping[str, Any]) -> None:
    """The recipe in its own words, borrowed networks spelled out (their source may be gone), and with every default."""
    written = copy.deepcopy(dict(recipe.data))
    for role, node in written["networks"].items():
        if isinstance(node, dict) and "use" not in node:
            written["networks"][role] = {**resolved["networks"][role], **node}
    write_bytes(folder / "recipe.yaml", yaml12.write(without_nulls(written)).encode())
    write_bytes(folder / "resolved.yaml", yaml12.write(dict(resolved)).encode())


def provenance(plan: Plan) -> dict[str, Any]:
    """What the numbers of a run depend on, besides its recipe."""
    commit = None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        here = Path(__file__).parent
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5, check=True
        )
        commit = asked.stdout.strip()
    return {
        "ganvas": ganvas.__version__, "commit": commit, "torch": torch.__version__, "python": platform.python_version(),
        "machine": platform.machine(), "device": str(plan.device), "threads": torch.get_num_threads(),
        "processes": ranks.world(), "seed": plan.settings.seed, "data": plan.dataset.fingerprint,
        "data_count": len(plan.dataset),
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------- the session


class Session:
    """Keeps a run's folder while a trainer works: pictures, scores, the model file, the report."""

    def __init__(self, plan: Plan, folder: Path, watcher: Watcher) -> None:
        self.plan = plan
        self.folder = folder
        self.watcher = watcher
        self.spec = plan.dataset.spec
        nets, _ = build_networks(plan.resolved, self.spec, pretrained=False)
        self.model = Model(plan.resolved, self.spec, nets, class_names=plan.dataset.class_names, device=plan.device)
        # Built before anything is written, because a sink's package may be missing.
        self.lead = ranks.rank() == 0  # the one that writes
        sinks = plan.resolved["sinks"] if self.lead else {}
        self.sinks: dict[str, Sink] = {name: parts.build("sink", node, folder) for name, node in sinks.items()}
        self.judge: bench.Judge | None = None
        if plan.resolved["eval"]:
            protocol = bench.load_protocol(plan.resolved["eval"]["protocol"])
            self.judge = bench.judge_for(protocol, plan.resolved["data"])

    def has_checkpoint(self) -> bool:
        return any((self.folder / "checkpoints").glob("step-*/state.safetensors"))

    def open_folder(self, recipe: Recipe, origin: str | None) -> None:
        try:
            (self.folder / "samples").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise full_disk(error, self.folder) from None
        write_recipe(self.folder, recipe, self.plan.resolved)
        self.note_provenance(recipe.name, origin)

    def note_provenance(self, name: str, origin: str | None) -> None:
        """Where the run began, and every later session that was not like the first."""
        file, now = self.folder / "provenance.json", {"recipe": name, **provenance(self.plan)}
        now |= {} if origin is None else {"stage_before": origin}
        noted = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {**now, "resumed": []}
        if any(noted.get(key) != value for key, value in now.items()):
            noted.setdefault("resumed", []).append(now)
        write_bytes(file, json.dumps(noted, indent=2).encode())

    def go(self, trainer: Trainer, *, profile: bool) -> None:
        seen = self.profile_of(trainer) if profile and ranks.rank() == 0 else None
        try:
            self.watcher.begin(trainer.step, self.plan.settings.steps)
            trainer.run()
            self.load(trainer.step, trainer.result())
        finally:
            if seen is not None:
                seen.finish()
            self.watcher.end()
            for sink in self.sinks.values():
                sink.close()
            with contextlib.suppress(CheckpointError):  # a full disk has been told already, or the report can wait
                if self.lead:
                    report.write(self.folder)

    def profile_of(self, trainer: Trainer) -> StepProfile:
        every = max(update.every for update in trainer.task.updates())
        first = first_step(trainer.step, self.plan.settings.steps, every)
        seen = StepProfile(self.folder, first, self.watcher.say)
        trainer.hooks = seen.hooks(trainer.hooks)
        return seen

    def hooks(self) -> Hooks:
        return Hooks(tick=self.watcher.tick, row=self.row, picture=self.picture, score=self.score, saved=self.saved)

    def load(self, step: int, state: State) -> None:
        for role, net in self.model.nets.items():
            net.load_state_dict(state[role])
        self.model.step = step

    def row(self, step: int, values: Mapping[str, float]) -> None:
        self.watcher.row(step, values)
        for sink in self.sinks.values():
            sink.row(step, values)

    def picture(self, step: int, state: State) -> None:
        self.load(step, state)
        file = self.folder / "samples" / f"step-{step:07d}.png"
        grid = sample_grid(self.model, seed=self.plan.settings.seed)
        if self.lead:
            pictures.save(grid, file)
        for sink in self.sinks.values():
            sink.images(step, str(file))

    def score(self, step: int, state: State) -> float | None:
        if self.judge is None:
            return None
        self.load(step, state)
        rows = [{"step": step, **row} for row in self.judge.score_model(self.model)]
        if not rows:  # a protocol without metrics, or with none that these samples can have
            return None
        if self.lead:
            append_rows(self.folder / "scores.jsonl", rows)
        shown = {f"score.{row['metric']}": row["value"] for row in rows}
        for sink in self.sinks.values():
            sink.row(step, shown)
        self.watcher.row(step, shown)
        first = rows[0]
        value = float(first["value"] if first["lower_is_better"] else -first["value"])
        return agreed(lambda: value)

    def saved(self, step: int, state: State, best: bool) -> None:
        if not self.lead:
            return
        tensors = {f"{role}.{name}": tensor for role, own in state.items() for name, tensor in own.items()}
        header = model_header(self.plan.resolved, self.spec, self.plan.dataset.class_names, step)
        write_tensors(self.folder / "model.safetensors", tensors, header)
        if best:
            write_tensors(self.folder / "model-best.safetensors", tensors, header)


def sample_grid(model: Model, *, seed: int, rows: int = _GRID_ROWS, **options: Any) -> Any:
    """A sheet of samples; with classes, each column is one class, in order."""
    classes = model.num_classes
    columns = min(classes, 20) or _GRID_COLUMNS
    if model.spec.modality == "points":
        rows = _POINTS // columns
    label = [i % columns for i in range(rows * columns)] if classes else None
    return pictures.sheet(sample_together(model, rows * columns, seed=seed, label=label, **options), columns)


def sample_together(model: Model, n: int, **options: Any) -> torch.Tensor:
    """What `model.sample` gives, drawn by all processes that train together, each a share; all of it on each."""
    own = list(model.stream(n, share=(ranks.rank(), ranks.world()), **options))
    return torch.cat(ranks.interleaved(own))


# --------------------------------------------------------------------------------------------------- checking


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
        bench.load_protocol(resolved["eval"]["protocol"])
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
