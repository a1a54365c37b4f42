"""What batch norm's statistics do to an averaged generator: the same weights with the statistics as they were before.

`python benchmarks/averaged_statistics.py --seeds 0 1 2 3 4` trains each setting twice per seed. Training normalises by
the batch, so the weights of the two runs are the same to the bit (checked); only the running statistics differ:

before : the average has the live network's statistics, which critic updates move, too (as up to version 0.1);
after : statistics are averaged with the weights, and only the generator's own updates move them.

It prints a Markdown table of Fréchet distances to the held-out digits, by `digits`' protocol, and of the ratio in each
seed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from unittest import mock

import torch

from ganvas.files.files import read_rows
from ganvas.model import Model
from ganvas.nn.statistics import statistics_of
from ganvas.shelves.tasks import adversarial
from ganvas.stats.intervals import t_interval
from ganvas.training.train import train

SETTINGS = {
    "shipped (decay 0.99, 1 critic step)": [],
    "decay 0.999, 5 critic steps": ["ema.decay=0.999", "task.critic_steps=5"],
    "the same with spectral norm in G": [
        "ema.decay=0.999", "task.critic_steps=5", "networks.generator.spectral_norm=true",
    ],
}  # fmt: skip


@contextlib.contextmanager
def as_before() -> Iterator[list[str]]:
    """Statistics as version 0.1 had them; gives the changes to the recipe that belong to it."""
    with mock.patch.object(adversarial, "untracked", lambda net: contextlib.nullcontext()):
        yield ["ema.buffers=copy"]


@contextlib.contextmanager
def as_now() -> Iterator[list[str]]:
    yield []


def distance(changes: Sequence[str], seed: int, folder: Path) -> tuple[float, Model]:
    """(Fréchet distance at the end, the model)."""
    model = train(
        "digits", *changes, f"train.seed={seed}", "train.sample_every=100000", "eval.every=100000", out=folder
    )
    rows = read_rows(folder / "scores.jsonl")
    return next(float(row["value"]) for row in rows if row["metric"] == "frechet_distance"), model


def weights_of(model: Model) -> list[torch.Tensor]:
    """What training has learnt, without the statistics."""
    net = model.nets["generator"]
    gathered = {id(statistic) for statistic in statistics_of(net)}
    return [tensor for tensor in net.parameters() if id(tensor) not in gathered]


def compare(changes: Sequence[str], seed: int) -> tuple[float, float]:
    """Fréchet distances before and after, of the same weights."""
    with tempfile.TemporaryDirectory() as scratch:
        found = []
        for name, way in (("before", as_before), ("after", as_now)):
            with way() as also:
                found.append(distance([*changes, *also], seed, Path(scratch) / name))
    (before, one), (after, other) = found
    same = all(torch.equal(a, b) for a, b in zip(weights_of(one), weights_of(other), strict=True))
    assert same, "the weights of the two runs differ, so this compares more than statistics"
    return before, after


def cell(values: Sequence[float]) -> str:
    low, high = t_interval(values)
    return f"{fmean(values):.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options.add_argument("--json", type=Path, help="write the numbers here")
    chosen = options.parse_args()
    numbers = {}
    print("| setting | before | after | ratio, geometric mean and range |\n|---|---|---|---|")
    for name, changes in SETTINGS.items():
        pairs = [compare(changes, seed) for seed in chosen.seeds]
        before, after = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        ratios = [b / a for a, b in pairs]
        mean = math.exp(fmean(math.log(ratio) for ratio in ratios))
        print(
            f"| {name} | {cell(before)} | {cell(after)} | {mean:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |",
            flush=True,
        )
        numbers[name] = {"before": before, "after": after}
        if chosen.json:
            chosen.json.write_text(json.dumps({"seeds": chosen.seeds, "settings": numbers}, indent=1))


if __name__ == "__main__":
    main()
