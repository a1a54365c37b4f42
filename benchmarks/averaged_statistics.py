"""What batch norm's statistics do to an averaged generator: the same weights with the statistics as they were before.

`python benchmarks/averaged_statistics.py --seeds 0 1 2 3 4` trains each setting once per seed and scores the averaged
generator twice. Training normalises by the batch, so its weights do not depend on the running statistics, of which it
keeps a second set:

before : those of the live network, which critic updates move, too (as up to version 0.1);
after : averaged with the weights, and moved by the generator's own updates alone.

It prints a Markdown table of Fréchet distances to the held-out digits, by `digits`' protocol, and of the ratio in each
seed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganvas.evaluation.judge import judge_for
from ganvas.evaluation.protocol import load_protocol
from ganvas.model import Model
from ganvas.nn.statistics import statistics_of
from ganvas.recipe.recipe import Recipe
from ganvas.shelves.tasks import adversarial
from ganvas.stats.intervals import t_interval
from ganvas.training.session import Watcher
from ganvas.training.train import train

SETTINGS = {
    "shipped (decay 0.99, 1 critic step)": [],
    "decay 0.999, 5 critic steps": ["ema.decay=0.999", "task.critic_steps=5"],
    "the same with spectral norm in G": [
        "ema.decay=0.999", "task.critic_steps=5", "networks.generator.spectral_norm=true",
    ],
}  # fmt: skip


class AsBefore:
    """A second set of a live generator's statistics, as version 0.1 gathered them."""

    def __init__(self) -> None:
        self.net: nn.Module | None = None
        self.norms: list[_BatchNorm] = []
        self.other: list[Tensor] = []  # mean and variance of each norm, in turns
        self.last: list[Tensor] = []  # the network's own before the generator's next update

    def own(self) -> list[Tensor]:
        return [value for norm in self.norms for value in (norm.running_mean, norm.running_var) if value is not None]

    def meet(self, net: nn.Module) -> None:
        if self.net is None:
            self.net = net
            self.norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
            self.other = [value.clone() for value in self.own()]
            self.last = [value.clone() for value in self.own()]

    @contextlib.contextmanager
    def critic_update(self, net: nn.Module) -> Iterator[None]:
        """Stands for `untracked`: passes move the second set, and the network's own stay."""
        self.meet(net)
        self.follow()
        own = [value.clone() for value in self.own()]
        _copy(self.own(), self.other)
        yield
        _copy(self.other, self.own())
        _copy(self.own(), own)

    def follow(self) -> None:
        """What the generator's update did to the network's own statistics is done to the second set."""
        momenta = [norm.momentum or 0.0 for norm in self.norms for _ in range(2)]
        for other, now, last, momentum in zip(self.other, self.own(), self.last, momenta, strict=True):
            if not torch.equal(now, last):  # now = (1 - m) last + m batch
                other.mul_(1 - momentum).add_(now - (1 - momentum) * last)
                last.copy_(now)


def _copy(to: Sequence[Tensor], of: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for target, source in zip(to, of, strict=True):
            target.copy_(source)


def distance(model: Model) -> float:
    rows = judge_for(load_protocol("digits"), Recipe.load("digits").resolve()["data"]).score_model(model)
    return next(float(row["value"]) for row in rows if row["metric"] == "frechet_distance")


def compare(changes: Sequence[str], seed: int) -> tuple[float, float]:
    """Fréchet distances before and after, of the same weights."""
    second = AsBefore()
    quiet = ["train.sample_every=100000", "train.checkpoint_every=100000", "eval=~", f"train.seed={seed}"]
    with tempfile.TemporaryDirectory() as scratch, mock.patch.object(adversarial, "untracked", second.critic_update):
        model = train("digits", *changes, *quiet, out=Path(scratch) / "run", watcher=Watcher())
    after = distance(model)
    second.follow()
    assert second.net is not None
    averaged, live = model.nets["generator"], second.net
    _copy(second.own(), second.other)  # live statistics as they were
    _copy(statistics_of(averaged), statistics_of(live))
    return distance(model), after


def cell(values: Sequence[float]) -> str:
    low, high = t_interval(values)
    return f"{fmean(values):.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def table(numbers: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    lines = ["| setting | before | after | ratio, geometric mean and range |", "|---|---|---|---|"]
    for name, sides in numbers.items():
        ratios = [after / before for before, after in zip(sides["before"], sides["after"], strict=True)]
        mean = math.exp(fmean(math.log(ratio) for ratio in ratios))
        spread = f"{mean:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {name} | {cell(sides['before'])} | {cell(sides['after'])} | {spread} |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options.add_argument("--json", type=Path, help="write the numbers here")
    chosen = options.parse_args()
    numbers: dict[str, dict[str, list[float]]] = {name: {"before": [], "after": []} for name in SETTINGS}
    for seed in chosen.seeds:
        for name, changes in SETTINGS.items():
            before, after = compare(changes, seed)
            numbers[name]["before"].append(before)
            numbers[name]["after"].append(after)
            if chosen.json:
                chosen.json.write_text(json.dumps({"seeds": chosen.seeds, "settings": numbers}, indent=1))
    print(table(numbers))


if __name__ == "__main__":
    main()
