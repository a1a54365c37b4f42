"""What a run would cost, told before it begins: parameters, FLOPs, memory and time, from a few steps that are thrown
away (`ganvas train --dry-run`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ganvas.cost.clock import Stopwatch, Times, peak_resident_bytes, resident_bytes
from ganvas.cost.flops import FlopCounter, SavedForBackward, bytes_of, optimizer_bytes, parameter_count
from ganvas.engine.build import Plan, build_trainer
from ganvas.engine.precision import seed_from
from ganvas.engine.trainer import Hooks, Trainer
from ganvas.recipe.recipe import Recipe
from ganvas.runtime.devices import pick_device
from ganvas.training.check import data_or_stand_in, placed
from ganvas.training.train import as_recipe
from ganvas.types import Dataset, Update

MEASURED_STEPS = 3  # after one that warms up

_KINDS = ("parameters", "averages", "optimizer state", "a copy to draw with", "gradients", "saved for backward")


# --------------------------------------------------------------------------------------------------- what is found


@dataclass(frozen=True)
class UpdateCost:
    """One update of the task: its networks' roles and losses, and what running it once takes."""

    name: str
    a_step: Fraction  # how often it runs in a step: critic steps, or 1 / every of a lazy term
    flops: int
    saved_bytes: int
    gradient_bytes: int
    seconds: Times


@dataclass(frozen=True)
class Forecast:
    """What a run would cost. FLOPs are those of matrix products, convolutions and attention, 2 a multiply-accumulate.

    `memory` is the estimate in bytes by kind; `process_bytes` is what the process took before anything was built, and
    `measured_peak_bytes` what it took at most up to now (on CUDA: what tensors took on the device at most).
    """

    recipe: str
    device: str
    threads: int
    precision: str
    batch: int
    steps: int
    parameters: Mapping[str, int]
    learning: Mapping[str, int]
    updates: Sequence[UpdateCost]
    data: Times  # of one batch
    averaging: Times
    batches_a_step: Fraction
    memory: Mapping[str, int]
    process_bytes: int
    measured_peak_bytes: int

    @property
    def step_flops(self) -> float:
        """Mean over steps: a lazy update counts 1 / every."""
        return float(sum(update.flops * update.a_step for update in self.updates))

    def step_seconds(self, of: Callable[[Times], float] = lambda times: times.clock_median) -> float:
        """Mean over steps, by the wall clock unless told otherwise."""
        updates = sum(of(update.seconds) * float(update.a_step) for update in self.updates)
        return updates + of(self.data) * float(self.batches_a_step) + of(self.averaging)

    @property
    def seconds_to_finish(self) -> float:
        return self.steps * self.step_seconds()

    def plain(self) -> dict[str, Any]:
        """All of it as JSON-able data."""
        seconds = self.step_seconds()
        return {
            "recipe": self.recipe, "device": self.device, "threads": self.threads, "precision": self.precision,
            "batch": self.batch, "steps": self.steps,
            "parameters": dict(self.parameters), "learning": dict(self.learning),
            "step_flops": self.step_flops, "step_seconds": seconds,
            "step_processor_seconds": self.step_seconds(lambda times: times.processor_median),
            "images_per_second": self.batch / seconds, "seconds_to_finish": self.seconds_to_finish,
            "measured_steps": len(self.averaging.clock),
            "updates": [
                {**asdict(update), "a_step": float(update.a_step), "seconds": _readings(update.seconds)}
                for update in self.updates
            ],
            "data_seconds": _readings(self.data), "averaging_seconds": _readings(self.averaging),
            "memory_bytes": dict(self.memory), "memory_bytes_total": sum(self.memory.values()),
            "process_bytes": self.process_bytes, "measured_peak_bytes": self.measured_peak_bytes,
        }  # fmt: skip


def _readings(times: Times) -> dict[str, Any]:
    return {
        "clock": list(times.clock), "processor": list(times.processor),
        "clock_median": times.clock_median, "processor_median": times.processor_median,
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------- finding it


def forecast(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *overrides: str,
    device: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Forecast:
    """Build what a recipe would train, take a few steps and throw them away; no file is written.

    Every update is run once to warm up and be counted, and `MEASURED_STEPS` times on the clock, lazy ones too, whose
    time then counts 1 / every. Where the data are not at hand, random ones of the promised shape stand in, and `say`
    is told.

    Parameters
    ----------
    recipe, overrides, device : as for `ganvas.train`.

    Raises
    ------
    RecipeError, DataError : whatever training would raise before its first step.
    """
    rehearsal = Rehearsal(recipe, *overrides, device=device, say=say)
    for _ in range(MEASURED_STEPS):
        rehearsal.step()
    return rehearsal.forecast()


def due_updates(trainer: Trainer) -> list[Update]:
    """The updates that have anything to teach."""
    return [update for update in trainer.task.updates() if any(trainer.optim.learning[role] for role in update.nets)]


class Rehearsal:
    """A run that is built, warmed up and counted, and whose steps are thrown away: each `step` runs every update once.

    Parameters are those of `forecast`; `dataset` takes the place of the recipe's data. `built` is when everything
    stood, as (seconds since the epoch, processor seconds of this process): what it took to start.
    """

    def __init__(
        self,
        recipe: Recipe | str | Path | Mapping[str, Any],
        *overrides: str,
        device: str | None = None,
        say: Callable[[str], None] = lambda text: None,
        dataset: Dataset | None = None,
    ) -> None:
        recipe = as_recipe(recipe).override(*overrides)
        resolved = recipe.resolve()
        self.name = recipe.name
        self.process_bytes = resident_bytes()
        plan = Plan(resolved, dataset or data_or_stand_in(resolved, say), pick_device(device))
        with placed(recipe):
            # The folder is never made: nothing is logged and nothing saved.
            self.trainer = build_trainer(plan, Path("a run that never was"), Hooks(), fresh=True)
        self.built = (time.time(), time.process_time())
        self.trainer.optim.begin(0)
        self.trainer.schedules.begin(0)
        self.updates = due_updates(self.trainer)
        self.counted = [_count(self.trainer, update) for update in self.updates]
        _average(self.trainer)
        device_ = self.trainer.device
        self.watches = [Stopwatch(device_) for _ in self.updates]
        self.of_data, self.of_averages = Stopwatch(device_), Stopwatch(device_)

    def step(self) -> None:
        """Every update once, lazy or not, on the clock."""
        trainer = self.trainer
        seed_from(trainer.settings.seed, trainer.rank, len(self.of_averages.readings))
        for update, watch in zip(self.updates, self.watches, strict=True):
            batch = self.of_data.time(trainer.feed.__next__)
            watch.time(partial(trainer.apply, update, batch))
        self.of_averages.time(partial(_average, trainer))

    def forecast(self) -> Forecast:
        """What the steps so far say."""
        trainer, settings = self.trainer, self.trainer.settings
        costs = [
            UpdateCost(label, Fraction(update.repeat, update.every), flops, saved, gradients, watch.times)
            for update, (label, flops, saved, gradients), watch in zip(
                self.updates, self.counted, self.watches, strict=True
            )
        ]
        return Forecast(
            recipe=self.name,
            device=str(trainer.device),
            threads=torch.get_num_threads(),
            precision=settings.precision,
            batch=settings.batch,
            steps=settings.steps,
            parameters={role: parameter_count(net) for role, net in trainer.nets.items()},
            learning={
                role: sum(parameter.numel() for parameter in learning)
                for role, learning in trainer.optim.learning.items()
            },
            updates=costs,
            data=self.of_data.times,
            averaging=self.of_averages.times,
            batches_a_step=sum((cost.a_step for cost in costs), Fraction(0)),
            memory=_memory(trainer, costs),
            process_bytes=self.process_bytes,
            measured_peak_bytes=_measured_peak(trainer.device),
        )


def _count(trainer: Trainer, update: Update) -> tuple[str, int, int, int]:
    """(name, FLOPs, bytes saved for backward, bytes of gradients) of an update that is run once."""
    batch = next(trainer.feed)
    before = [batch.data, *(tensor for net in trainer.nets.values() for tensor in net.state_dict().values())]
    saved, counter = SavedForBackward(before), FlopCounter()
    seed_from(trainer.settings.seed, trainer.rank, 0)
    if trainer.settings.compile:
        with torch.compiler.set_stance("force_eager"), saved, counter:  # compiled code is not seen into
            losses = trainer.apply(update, batch)
        trainer.apply(update, batch)  # and is compiled before the clock starts
    else:
        with saved, counter:
            losses = trainer.apply(update, batch)
    names = [name.partition(".")[2] for name in losses]
    gradients = bytes_of(parameter for role in update.nets for parameter in trainer.optim.learning[role])
    return f"{' and '.join(update.nets)}: {', '.join(names)}", counter.total, saved.peak, gradients


def _average(trainer: Trainer) -> None:
    if trainer.averages is not None:
        batch = trainer.settings.batch
        trainer.averages.update(trainer.nets, batch, batch)


def _memory(trainer: Trainer, costs: Sequence[UpdateCost]) -> dict[str, int]:
    state = bytes_of(tensor for net in trainer.nets.values() for tensor in net.state_dict().values())
    averaged = trainer.averages.nets.values() if trainer.averages is not None else ()
    sizes = (
        state,
        bytes_of(tensor for net in averaged for tensor in net.state_dict().values()),
        sum(optimizer_bytes(optimizer) for optimizer in trainer.optim.optimizers.values()),
        state,
        max(cost.gradient_bytes for cost in costs),
        max(cost.saved_bytes for cost in costs),
    )
    return dict(zip(_KINDS, sizes, strict=True))


def _measured_peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_bytes()


# --------------------------------------------------------------------------------------------------- for people


def amount(number: float) -> str:
    """`20.2 M`: a large number with three digits."""
    for name, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:#.3g} {name}"
    return f"{number:.3g} "


def mebibytes(number: int) -> str:
    return f"{number / 2**20:,.0f} MiB"


def table(predicted: Forecast) -> str:
    """What `ganvas train --dry-run` prints."""
    from ganvas.cost.clock import clock

    threads = f", {predicted.threads} thread{'s' if predicted.threads > 1 else ''}" if predicted.device == "cpu" else ""
    lines = [f"{predicted.recipe} on {predicted.device}{threads}, {predicted.precision}, batch {predicted.batch}", ""]
    for role, count in predicted.parameters.items():
        learnt = predicted.learning[role]
        frozen = "" if learnt == count else f", of which {amount(learnt).strip()} learn"
        lines.append(f"{role:16}{amount(count):>7} parameters{frozen}")
    lines += ["", f"{'update':44}{'a step':>8}{'FLOPs':>10}{'saved':>12}{'clock':>11}{'processor':>12}"]
    for update in predicted.updates:
        lines.append(
            f"{update.name:44}{update.a_step!s:>8}{amount(update.flops):>10}{mebibytes(update.saved_bytes):>12}"
            f"{_ms(update.seconds.clock_median):>11}{_ms(update.seconds.processor_median):>12}"
        )
    for name, often, times in (
        ("a batch of data", predicted.batches_a_step, predicted.data),
        ("averages", 1, predicted.averaging),
    ):
        lines.append(f"{name:44}{often!s:>8}{'':22}{_ms(times.clock_median):>11}{_ms(times.processor_median):>12}")
    seconds = predicted.step_seconds()
    worked = predicted.step_seconds(lambda times: times.processor_median)
    lines.append(
        f"{'a step, the mean':44}{'':8}{amount(predicted.step_flops):>10}{'':12}{_ms(seconds):>11}{_ms(worked):>12}"
    )
    lines += ["", f"{'memory, estimated':30}{mebibytes(sum(predicted.memory.values())):>12}"]
    lines += [f"  {kind:28}{mebibytes(size):>12}" for kind, size in predicted.memory.items()]
    where = "on the device" if predicted.device != "cpu" else "of this process"
    lines += [
        f"{'libraries, before any of it':30}{mebibytes(predicted.process_bytes):>12}",
        f"{f'measured peak {where}':30}{mebibytes(predicted.measured_peak_bytes):>12}",
        "",
        f"{predicted.steps:,} steps at {seconds:.3g} s, {predicted.batch / seconds:.3g} images/s:"
        f" {clock(predicted.seconds_to_finish)} by the clock",
        f"(medians of {len(predicted.averaging.clock)} steps after one; pictures, scores and checkpoints come on top)",
    ]
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"
