"""The default recipe over training seeds: wall time and scores, as the README records them.

`python benchmarks/demo.py --seeds 0 1 2` trains each seed as `ganvas train` does, in a process of its own, and prints a
Markdown table with 95 % t-intervals over the training seeds, beside what real data score against real data.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from ganvas import parts
from ganvas.evaluation import evidence
from ganvas.evaluation.protocol import load_protocol
from ganvas.files.files import read_rows
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.stats.intervals import t_interval
from ganvas.types import Evidence, EvidenceSet

NAMES = {
    "class_agreement": "samples that the digit classifier assigns to the asked class",
    "frechet_distance": "Fréchet distance to the 500 held-out digits",
    "density": "density",
    "coverage": "coverage",
    "precision": "precision",
    "recall": "recall",
}


def train(seed: int, folder: Path) -> tuple[float, dict[str, float]]:
    """(wall seconds from command to exit, value by metric)."""
    command = [sys.executable, "-m", "ganvas.cli", "train", "digits", f"train.seed={seed}", "--out", str(folder)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    rows = read_rows(folder / "scores.jsonl")
    last = max(row["step"] for row in rows)
    return seconds, {row["metric"]: row["value"] for row in rows if row["step"] == last}


def real_against_real(draws: int) -> dict[str, list[float]]:
    """The same scores between two random halves of all the real digits, over several draws."""
    protocol = load_protocol("digits")
    extractor = parts.build("extractor", protocol["extractor"])
    digits = parts.build("dataset", check_node("dataset", {"use": "digits", "split": "all"}))
    needs = frozenset({"features", "logits"})
    everything = evidence.gather(evidence.of_dataset(digits), {"": extractor}, {"": needs})[""]
    found: dict[str, list[float]] = {}
    for seed in range(draws):
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(digits)))
        halves = order.tensor_split(2)
        real, fake = (
            EvidenceSet(everything.features[half], everything.logits[half], everything.label[half]) for half in halves
        )
        for node in protocol["metrics"].values():
            for name, value in parts.build("metric", node)(Evidence(real, fake)).items():
                found.setdefault(name, []).append(value)
    return found


def cell(values: Sequence[float]) -> str:
    low, high = t_interval(values)
    around = "" if low is None else f" [{low:.3g}, {high:.3g}]"
    return f"{fmean(values):.3g}{around}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--out", type=Path, help="keep the runs here")
    options.add_argument("--json", type=Path, help="write the numbers here")
    chosen = options.parse_args()
    scored: dict[str, list[float]] = {}
    seconds = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in chosen.seeds:
            took, values = train(seed, (chosen.out or Path(scratch)) / f"seed-{seed}")
            seconds.append(took)
            for name, value in values.items():
                scored.setdefault(name, []).append(value)
    real = real_against_real(draws=5)
    steps = Recipe.load("digits").resolve()["train"]["steps"]
    print(f"{len(chosen.seeds)} training seeds of {steps} steps; {os.cpu_count()} cores, torch {torch.__version__}\n")
    print("| | generated | two halves of the real data |\n|---|---|---|")
    print(f"| wall time, seconds | {cell(seconds)} | |")
    for name, words in NAMES.items():
        print(f"| {words} | {cell(scored[name])} | {cell(real[name])} |")
    if chosen.json:
        chosen.json.write_text(json.dumps({"seconds": seconds, "generated": scored, "real": real}, indent=1))


if __name__ == "__main__":
    main()
