"""What the scripts of speed share: sides that are processes of their own and take turns, and how numbers are told.

A side builds a recipe, warms it up and counts its FLOPs, then waits: each time it is asked it runs every update once
and says how long that took. So two sides can take turns, and whatever else the machine does falls on both. A side may
run the code of another revision, back to the first in which parts derive from base classes; what measures
(`ganvas.cost.flops`, `ganvas.cost.clock`, `ganvas.training.forecast`) is always that of this checkout.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
OURS = ("cost.flops", "cost.clock", "training.forecast")  # in the order of their imports


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """`1.52 (1.49 to 1.60)`: median, smallest and largest."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def machine(threads: int) -> str:
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    return f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads, load before {load}"


# --------------------------------------------------------------------------------------------------- a side


@dataclass(frozen=True)
class Side:
    """What one side measures: a recipe with changes, by the code of a source tree."""

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()
    source: Path = ROOT
    size: int | None = None  # pixels of a square image; None: as the recipe's data promise
    device: str | None = None
    threads: int = 1


class Worker:
    """A side in a process of its own."""

    def __init__(self, side: Side) -> None:
        self.side = side
        environment = {
            **os.environ,
            "PYTHONPATH": str(side.source / "src"),
            "OMP_NUM_THREADS": str(side.threads),
            "MKL_NUM_THREADS": str(side.threads),
        }
        task = {
            "recipe": side.recipe, "overrides": side.overrides, "size": side.size, "device": side.device,
            "threads": side.threads, "spawned": time.time(),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(task)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.problem = self.answer().get("problem")

    def answer(self) -> dict[str, Any]:
        """The next line that is ours; what a library may print is passed over."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("@"):
                found: dict[str, Any] = json.loads(line[1:])
                return found
        raise SystemExit(f"{self.side.name}: the process ended with {self.process.wait()}")

    def ask(self, word: str) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.answer()

    def step(self) -> dict[str, Any]:
        """Seconds of a mean step: {"clock", "processor"}."""
        return self.ask("step")

    def end(self) -> dict[str, Any]:
        """Everything that was found."""
        found = self.ask("end")
        self.process.wait()
        return found


@contextmanager
def source_of(revision: str) -> Iterator[Path]:
    """The sources of a git revision in a folder that is removed afterwards; the repository is only read."""
    with tempfile.TemporaryDirectory() as folder:
        with tempfile.TemporaryFile() as archive:
            subprocess.run(["git", "archive", revision, "src"], cwd=ROOT, stdout=archive, check=True)
            archive.seek(0)
            with tarfile.open(fileobj=archive) as opened:
                opened.extractall(folder, filter="data")
        yield Path(folder)


def settings(text: str) -> tuple[str, ...]:
    """`a=1,b=[2,3]` as ("a=1", "b=[2,3]")."""
    return tuple(re.split(r",(?=[\w.-]+=)", text)) if text else ()


# --------------------------------------------------------------------------------------------------- inside


def inside(task: dict[str, Any]) -> None:
    """What a worker's process does."""
    ours = [_load(name) for name in OURS]
    cost, pace, forecast = ours
    import torch

    from ganvas import errors, parts
    from ganvas.recipe.recipe import Recipe
    from ganvas.training.check import random_set

    torch.set_num_threads(task["threads"])
    try:
        recipe = Recipe.load(task["recipe"], task["overrides"])
        dataset = None
        if task["size"]:
            resolved = recipe.resolve()
            node = {key: value for key, value in resolved["data"].items() if key != "use"}
            spec = parts.preview(parts.find("dataset", resolved["data"]["use"]), node)
            dataset = random_set(replace(spec, shape=(spec.channels, task["size"], task["size"])))
        rehearsal = forecast.Rehearsal(recipe, device=task["device"], dataset=dataset)
    except (errors.GanvasError, RuntimeError) as error:
        return _say({"problem": str(error).splitlines()[-1].strip()})
    _say({})
    for line in sys.stdin:
        if line.strip() == "end":
            break
        rehearsal.step()
        _say({kind: _last(rehearsal, i) for i, kind in enumerate(("clock", "processor"))})
    found = rehearsal.forecast()
    trainer = rehearsal.trainer
    peak = found.measured_peak_bytes
    forward = _forward(trainer, cost, pace)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(found.precision, torch.float32)
    ceiling = pace.ceiling(trainer.device, dtype)
    working = found.step_seconds(lambda times: times.working(trainer.device))
    _say({
        **found.plain(), "peak_bytes": peak, "forward": forward,
        "startup_clock": rehearsal.built[0] - task["spawned"], "startup_processor": rehearsal.built[1],
        "ceiling": {**vars(ceiling), "gflops": ceiling.gflops}, "gflops": found.step_flops / working / 1e9,
        "share": found.step_flops / working / 1e9 / ceiling.gflops,
        "shares": {
            each.name: each.flops / each.seconds.working(trainer.device) / 1e9 / ceiling.gflops
            for each in found.updates
        },
    })  # fmt: skip
    return None


def _last(rehearsal: Any, which: int) -> float:
    """Seconds of the mean step by what was just run, 0 the clock and 1 the processor."""
    updates = sum(
        watch.readings[-1][which] * update.repeat / update.every
        for update, watch in zip(rehearsal.updates, rehearsal.watches, strict=True)
    )
    return float(updates + rehearsal.of_averages.readings[-1][which])


def _forward(trainer: Any, cost: Any, pace: Any, calls: int = 10) -> dict[str, float] | None:
    """Latency of the generator in eval mode without gradients, one batch at a time; None where there is none."""
    import torch

    from ganvas.engine.precision import autocast
    from ganvas.types import Generator, Latent

    net = trainer.nets.get("generator")
    if not isinstance(net, Generator):
        return None
    net.eval()
    batch = next(trainer.feed)
    space, spec = next(iter(net.latents.items()))
    z = Latent(torch.randn(len(batch), *spec.shape, device=trainer.device), space)
    with torch.inference_mode(), autocast(trainer.device, trainer.settings.precision):
        with torch.compiler.set_stance("force_eager"):
            flops = cost.flops(lambda: net.make(z, batch.condition))
        times = pace.times(lambda: net.make(z, batch.condition), repeats=calls, device=trainer.device)
    return {
        "flops": flops, "clock_median": times.clock_median, "clock_p95": times.clock_p95,
        "processor_median": times.processor_median, "images_per_second": len(batch) / times.working(trainer.device),
    }  # fmt: skip


def _load(name: str) -> Any:
    """A module of this checkout under its own name, whatever revision the rest of the package is of."""
    file = ROOT.joinpath("src", "ganvas", *name.split(".")).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(f"ganvas.{name}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _say(found: dict[str, Any]) -> None:
    print("@" + json.dumps(found), flush=True)


if __name__ == "__main__":
    inside(json.loads(sys.argv[1]))
