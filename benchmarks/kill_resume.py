"""Kill training at random moments, resume it, and compare with a run that was left alone. Every bit must be the same.

    python benchmarks/kill_resume.py --kills 30

Each victim is a process of the real command line that gets SIGKILL after a random time, counted from the moment its run
folder appears and uniform over the time that the whole run takes. It saves every second step, so that many kills hit a
file being written. Then `--resume` goes on to the end, and the weights, averages, optimizer and task state, the model
file, `log.jsonl`, `scores.jsonl`, the pictures and the mark of the best checkpoint are compared with the reference.
Leaves with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganvas.engine.checkpoint import BEST, Checkpoints
from ganvas.files.files import read_rows, read_tensors

STEPS = 24

PROTOCOL = """\
reference: {use: digits, split: test, limit: 64}
extractor: digit-net
metrics: {frechet-distance: {}, class-agreement: {}}
samples: 32
seeds: [0]
"""

# One of everything that has a state: averages that ramp up, lazy terms, micro-batches, a warm-up, batch norm by class.
RECIPE = """\
data: {{use: digits, split: train, limit: 100}}
networks:
  generator: {{use: sngan-generator, width: 8, z_dim: 8, conditioning: batch-norm}}
  discriminator: {{use: sngan-discriminator, width: 8, conditioning: projection}}
task: {{use: adversarial, objective: hinge, critic_steps: 2, regularizers: {{r1: {{weight: 0.1, every: 4}}}}}}
optim: {{use: adam, lr: 0.001, clip_norm: 10.0, schedule: {{use: cosine, warmup_steps: 6}}}}
ema: {{decay: 0.9, start_images: 24, rampup_ratio: 0.5}}
train: {{steps: {steps}, batch: 8, accumulate: 2, log_every: 3, checkpoint_every: 2, sample_every: 10, keep: 2}}
eval: {{protocol: {protocol}, every: 6}}
"""


def write_recipe(folder: Path, steps: int = STEPS) -> Path:
    """The recipe that is trained, with its protocol beside it."""
    protocol = folder / "cheap.yaml"
    protocol.write_text(PROTOCOL, encoding="utf-8")
    recipe = folder / "everything.yaml"
    recipe.write_text(RECIPE.format(steps=steps, protocol=protocol), encoding="utf-8")
    return recipe


def train(recipe: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    command = [sys.executable, "-m", "ganvas.cli", "train", str(recipe), "--out", str(out), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=300)
    if process.returncode != 0:
        raise RuntimeError(f"training left with {process.returncode}:\n{said}")


# --------------------------------------------------------------------------------------------------- comparing


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything in a state that is no container."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(tree, (list, tuple)):
        for number, value in enumerate(tree):
            yield from leaves(value, f"{path}/{number}")
    else:
        yield path, tree


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, also where a value is NaN or a signed zero."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        return torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))
    return type(one) is type(other) and repr(one) == repr(other)


def contents(run: Path) -> dict[str, Any]:
    """Everything in a run folder that must not depend on interruptions."""
    checkpoints = Checkpoints(run / "checkpoints", keep=2)
    last = checkpoints.steps()[-1]
    found = {f"checkpoint{path}": value for path, value in leaves(checkpoints.load(last))}
    for file in sorted(run.glob("*.safetensors")):
        tensors, metadata = read_tensors(file)
        found |= {f"{file.stem}/{name}": value for name, value in (tensors | metadata).items()}
    files = [run / "log.jsonl", run / "scores.jsonl", run / "checkpoints" / BEST, *sorted(run.glob("samples/*"))]
    found |= {str(file.relative_to(run)): file.read_bytes() for file in files if file.is_file()}
    found["checkpoints"] = checkpoints.steps()
    found["leftovers"] = leftovers(run)
    return found


def leftovers(run: Path) -> list[str]:
    """What is half-written, or was."""
    return sorted(str(each.relative_to(run)) for each in run.rglob(".*"))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names under which two runs do not hold the same."""
    names = sorted({*one, *other})
    return [name for name in names if name not in one or name not in other or not same(one[name], other[name])]


# --------------------------------------------------------------------------------------------------- killing


@dataclass(frozen=True)
class Outcome:
    """What one kill left, and what came of it."""

    after_s: float  # from the appearance of the run folder
    checkpoint: int  # the newest one that the victim left; 0: none
    lost_rows: int  # rows of log.jsonl beyond it, to be written again
    half_written: list[str]
    differing: list[str]


def kill_once(recipe: Path, out: Path, delay_s: float) -> float | None:
    """Start a run and kill it after so many seconds; the seconds, or None where it was done before."""
    victim = train(recipe, out)
    try:
        while not (out / "resolved.yaml").is_file():
            if victim.poll() is not None:
                raise RuntimeError(f"training left with {victim.returncode}:\n{victim.communicate()[1]}")
            time.sleep(0.002)
        time.sleep(delay_s)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
    return delay_s if victim.returncode == -signal.SIGKILL else None


def kill_and_resume(recipe: Path, out: Path, within_s: float, seed: int, reference: Mapping[str, Any]) -> Outcome:
    """One victim: killed at a random moment, looked at, resumed, compared."""
    rng = random.Random(seed)
    attempt, killed = 0, None
    while killed is None:
        attempt += 1
        run = out / f"run-{attempt}"
        killed = kill_once(recipe, run, rng.uniform(0, within_s))
    steps = Checkpoints(run / "checkpoints", keep=2).steps()
    newest = steps[-1] if steps else 0
    lost = sum(row["step"] > newest for row in read_rows(run / "log.jsonl"))
    half_written = leftovers(run)
    finish(train(recipe, run, "--resume"))
    return Outcome(killed, newest, lost, half_written, differences(reference, contents(run)))


def measure(recipe: Path, folder: Path) -> tuple[dict[str, Any], float]:
    """(contents of a run that is left alone, seconds from the appearance of its folder to its end)."""
    out = folder / "reference"
    process = train(recipe, out)
    while not (out / "resolved.yaml").is_file() and process.poll() is None:
        time.sleep(0.002)
    start = time.monotonic()
    finish(process)
    return contents(out), time.monotonic() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--jobs", type=int, default=2, help="victims at once")
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ganvas-kill-") as name, ThreadPoolExecutor(options.jobs) as pool:
        folder = Path(name)
        recipe = write_recipe(folder, options.steps)
        reference, run_s = measure(recipe, folder)
        print(f"a run left alone: {options.steps} steps, {len(reference)} values to compare, {run_s:.2f} s of training")
        print(f"{'kill':>4}  {'after':>7}  {'checkpoint':>10}  {'rows lost':>9}  result")
        tasks = [
            pool.submit(kill_and_resume, recipe, folder / f"victim-{i}", run_s, options.seed * 1000 + i, reference)
            for i in range(options.kills)
        ]
        outcomes = []
        for number, task in enumerate(tasks, start=1):
            each = task.result()
            outcomes.append(each)
            result = f"DIFFERS: {', '.join(each.differing[:3])}" if each.differing else "bit-exact"
            left = f"  (half-written: {', '.join(each.half_written)})" if each.half_written else ""
            print(
                f"{number:4}  {each.after_s:6.2f}s  {each.checkpoint:10}  {each.lost_rows:9}  {result}{left}",
                flush=True,
            )
    exact = sum(not each.differing for each in outcomes)
    writing = sum(bool(each.half_written) for each in outcomes)
    print(
        f"{options.kills} kills, {exact} bit-exact resumes; {writing} kills hit a file being written;"
        f" {time.monotonic() - begin:.0f} s"
    )
    return 0 if exact == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
