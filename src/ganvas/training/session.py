"""What is kept of a run while its trainer works: pictures, scores, the model file, the report."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ganvas import parts, report
from ganvas.engine.build import Plan, build_networks
from ganvas.engine.distributed import agreed
from ganvas.engine.trainer import Hooks, State, Trainer
from ganvas.errors import CheckpointError
from ganvas.evaluation.judge import Judge, judge_for
from ganvas.evaluation.protocol import load_protocol
from ganvas.files import pictures
from ganvas.files.files import append_rows, full_disk, write_bytes, write_tensors
from ganvas.model import Model, model_header
from ganvas.recipe.recipe import Recipe
from ganvas.runtime import ranks
from ganvas.training.folder import provenance, write_recipe
from ganvas.training.trace import StepProfile, first_step
from ganvas.types import Sink

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
