"""What is kept of a run while its trainer works: pictures, scores, the model file, the report."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ganvas import parts, report
from ganvas.engine.build import Plan, build_networks
from ganvas.engine.distributed import agreed
from ganvas.engine.trainer import Hooks, State, Trainer
from ganvas.errors import CheckpointError, GanvasError
from ganvas.evaluation.judge import Judge, judge_for
from ganvas.evaluation.protocol import load_protocol
from ganvas.files import pictures
from ganvas.files.files import append_rows, full_disk, read_rows, write_bytes, write_tensors
from ganvas.files.reading import mapping_of
from ganvas.model import Model, model_header
from ganvas.recipe.recipe import Recipe
from ganvas.report.sheets import inputs_of, sheet
from ganvas.runtime import ranks
from ganvas.training.folder import provenance, write_recipe
from ganvas.training.trace import StepProfile, first_step
from ganvas.types import Batch, Dataset, Sink, StreamedDataset

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_GRID_COLUMNS = 10


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


class Session:
    """Keeps a run's folder while a trainer works: pictures, scores, the model file, the report.

    Parameters
    ----------
    plan, folder, watcher : what is trained, where, and who looks on.
    most : at most so many samples in a picture; None: a sheet as `sample_grid` lays it out.
    """

    def __init__(self, plan: Plan, folder: Path, watcher: Watcher, *, most: int | None = None) -> None:
        self.most = most
        self.plan = plan
        self.folder = folder
        self.watcher = watcher
        self.spec = plan.dataset.spec
        nets, _ = build_networks(plan.resolved, self.spec, pretrained=False)
        self.model = Model(plan.resolved, self.spec, nets, class_names=plan.dataset.class_names, device=plan.device)
        # Built before anything is written, because a sink's package may be missing.
        self.lead = ranks.rank() == 0  # the one that writes
        self.reported: set[tuple[str, str]] = set()
        sinks = plan.resolved["sinks"] if self.lead else {}
        self.sinks: dict[str, Sink] = {name: parts.build("sink", node, folder) for name, node in sinks.items()}
        self.judge: Judge | None = None
        if plan.resolved["eval"]:
            protocol = load_protocol(plan.resolved["eval"]["protocol"])
            self.judge = judge_for(protocol, plan.resolved["data"])

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
        noted = mapping_of(file) if file.exists() else {**now, "resumed": []}
        if any(noted.get(key) != value for key, value in now.items()):
            earlier = noted.get("resumed")
            noted["resumed"] = [*(earlier if isinstance(earlier, list) else ()), now]
        write_bytes(file, json.dumps(noted, indent=2).encode())

    def go(self, trainer: Trainer, *, profile: bool) -> None:
        seen = self.profile_of(trainer) if profile and ranks.rank() == 0 else None
        try:
            if note := self.spec.modality.note(self.spec.shape):
                self.watcher.say(f"note: {note}")
            self.watcher.begin(trainer.step, self.plan.settings.steps)
            trainer.run()
            self.load(trainer.step, trainer.result())
        finally:
            if seen is not None:
                seen.finish()
            self.watcher.end()
            self.to_sinks(trainer.step, lambda sink: sink.close())
            with contextlib.suppress(CheckpointError):  # a full disk has been told already, or the report can wait
                if self.lead:
                    report.write(self.folder, self.model)

    def profile_of(self, trainer: Trainer) -> StepProfile:
        every = max(update.every for update in trainer.task.updates())
        first = first_step(trainer.step, self.plan.settings.steps, every)
        seen = StepProfile(self.folder, first, self.watcher.say)
        trainer.hooks = seen.hooks(trainer.hooks)
        return seen

    def hooks(self) -> Hooks:
        return Hooks(
            tick=self.watcher.tick, row=self.row, picture=self.picture, score=self.score, saved=self.saved,
            failed=self.failed, say=self.watcher.say, diverged=self.diverged, scored=self.scored,
            pictured=lambda step: self.picture_file(step).is_file(),
        )  # fmt: skip

    def load(self, step: int, state: State) -> None:
        for role, net in self.model.nets.items():
            net.load_state_dict(state[role])
        self.model.step = step

    def row(self, step: int, values: Mapping[str, float]) -> None:
        self.watcher.row(step, values)
        self.to_sinks(step, lambda sink: sink.row(step, values))

    def to_sinks(self, step: int, hand: Callable[[Sink], None]) -> None:
        """Hand something to every sink; one that fails is told and keeps nothing else from happening."""
        for name, sink in self.sinks.items():
            try:
                hand(sink)
            except Exception as error:  # whatever it is: training does not depend on it
                self.failed(step, f"sink {name}", error)

    def failed(self, step: int, what: str, error: Exception) -> None:
        """Say once that something beside training did not work, and why."""
        reason = str(error) if isinstance(error, GanvasError) else f"{type(error).__name__}: {error}"
        if (what, reason) not in self.reported:
            self.reported.add((what, reason))
            self.watcher.say(f"step {step}: the {what} failed and training goes on: {reason}")

    def diverged(self, step: int, problem: str) -> None:
        """Note in the provenance that a session of the run ended so; the log's last row says it, too."""
        file = self.folder / "provenance.json"
        if not self.lead or not file.exists():
            return
        noted = mapping_of(file)
        earlier = noted.get("diverged")
        noted["diverged"] = [*(earlier if isinstance(earlier, list) else ()), {"step": step, "problem": problem}]
        write_bytes(file, json.dumps(noted, indent=2).encode())

    def picture_file(self, step: int) -> Path:
        return self.folder / "samples" / f"step-{step:07d}.png"

    def picture(self, step: int, state: State) -> None:
        self.load(step, state)
        file = self.picture_file(step)
        sheet = sample_grid(self.model, seed=self.plan.settings.seed, like=self.shown, most=self.most)
        if self.lead:
            pictures.save(sheet, file)
            self.to_sinks(step, lambda sink: sink.images(step, str(file)))

    @cached_property
    def shown(self) -> Batch:
        """The data whose conditions pictures are made for: the first of the training set."""
        return first_of(self.plan.dataset, _GRID_COLUMNS * self.spec.modality.rows)

    def scored(self, step: int) -> float | None:
        """What `score` gave for a step, read from the rows that it wrote."""
        rows = read_rows(self.folder / "scores.jsonl", "value", "lower_is_better")
        rows = [row for row in rows if row.get("step") == step and row.get("selection") is None]
        return kept_by(rows[0]) if rows else None

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
        self.to_sinks(step, lambda sink: sink.row(step, shown))
        self.watcher.row(step, shown)
        return agreed(lambda: kept_by(rows[0]))

    def saved(self, step: int, state: State, best: bool) -> None:
        if not self.lead:
            return
        tensors = {f"{role}.{name}": tensor for role, values in state.items() for name, tensor in values.items()}
        header = model_header(self.plan.resolved, self.spec, self.plan.dataset.class_names, step)
        write_tensors(self.folder / "model.safetensors", tensors, header)
        if best:
            write_tensors(self.folder / "model-best.safetensors", tensors, header)


def kept_by(row: Mapping[str, Any]) -> float:
    """The number that the best checkpoint is kept by, smaller is better: the first value of a protocol."""
    return float(row["value"] if row["lower_is_better"] else -row["value"])


def first_of(dataset: Dataset | StreamedDataset, n: int) -> Batch:
    """The first n data of a set in its own order, or all of a smaller one."""
    n = min(n, len(dataset))
    if isinstance(dataset, StreamedDataset):
        return next(dataset.walk(n))
    return dataset.batch(np.arange(n), np.random.default_rng(0))


def sample_grid(
    model: Model, *, seed: int, like: Batch | None = None, most: int | None = None, **options: Any
) -> Picture:
    """A sheet of samples; with classes, each column is one class, in order.

    What is made of data, as reconstructions and enlarged images are, stands in rows below those of what it was made of.

    Parameters
    ----------
    like : data whose other conditions the samples are made for; needed where the model makes its data of them.
    most : at most so many samples, in one row; None: columns of as many as the modality shows.
    options : see `Model.stream`.
    """
    classes = model.num_classes
    columns = min(classes, 20) or _GRID_COLUMNS
    n = columns * model.spec.modality.rows
    if most is not None:
        n = columns = min(columns, most)
    label = [i % columns for i in range(n)] if classes else None
    reads = model.wanted(options.get("sampler"))
    if like is None or reads.keys() <= {"label"}:
        return model.spec.modality.show(sample_together(model, n, seed=seed, label=label, **options), columns)
    n = min(n, len(like))
    inputs = inputs_of(like.asked(reads), model.spec)
    if inputs:  # as many rows of each stand above the samples
        columns = min(columns, n)
        n = max(1, min(n // columns, model.spec.modality.rows // (1 + len(inputs)))) * columns
    options = {**options, "condition": like.asked(reads).rows(slice(n))}
    samples = sample_together(model, n, seed=seed, **options)
    return sheet(samples, {name: values[:n] for name, values in inputs.items()}, model.spec.modality, columns)


def sample_together(model: Model, n: int, **options: Any) -> torch.Tensor:
    """What `model.sample` gives, drawn by all processes that train together, each a share; all of it on each."""
    pieces = list(model.stream(n, share=(ranks.rank(), ranks.world()), **options))
    return torch.cat(ranks.interleaved(pieces))
