"""A trainer small enough to follow by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from small_networks import Line

from ganvas.engine.ema import Averages
from ganvas.engine.feed import Feed
from ganvas.engine.layout import Replicated
from ganvas.engine.optim import Optim
from ganvas.engine.schedules import Schedules, knobs_of
from ganvas.engine.trainer import Hooks, Trainer
from ganvas.parts import Entry, image_spec
from ganvas.recipe.schema import Ema, Train
from ganvas.types import Batch, Dataset, Network, Role, Task, Update


class Points(Dataset):
    """A data set of `n` points (2, 1, 3) that are functions of their index."""

    spec = image_spec((2, 1, 3))
    fingerprint = "points"

    def __init__(self, n: int) -> None:
        self.data = torch.randn(n, 2, 1, 3, generator=torch.Generator().manual_seed(7))

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        return Batch(self.data[torch.from_numpy(indices)])


@dataclass
class Listed(Task):
    """A task that is just its updates, with a state that a test may set."""

    steps: list[Update]
    remembered: dict[str, Any]
    roles: ClassVar[Mapping[str, Role]] = {"net": Role((Network,))}
    averaged: ClassVar[tuple[str, ...]] = ("net",)
    sampler: ClassVar[str] = "plain"

    def updates(self) -> Iterable[Update]:
        return self.steps

    def state_dict(self) -> dict[str, Any]:
        return self.remembered

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.remembered = state


def regression(net: Network) -> Callable[[Batch, int], dict[str, torch.Tensor]]:
    """Mean squared output: a loss whose gradient over a batch is the mean of those over its data."""

    def losses(batch: Batch, step: int) -> dict[str, torch.Tensor]:
        dtype = next(net.parameters()).dtype
        return {"square": net(batch.data.flatten(1).to(dtype)).square().sum(1).mean()}

    return losses


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """A trainer of one linear network by mean squared output, unless updates or networks say otherwise."""

    def make(
        updates: list[Update] | None = None,
        *,
        nets: Mapping[str, Network] | None = None,
        optim: Mapping[str, Any] | None = None,
        frozen: Mapping[str, tuple[str, ...]] | None = None,
        ema: Ema | None = None,
        hooks: Hooks | None = None,
        score_every: int | None = None,
        schedules: Mapping[str, Entry] | None = None,
        folder: Path = tmp_path,
        **settings: Any,
    ) -> Trainer:
        torch.manual_seed(0)
        nets = nets or {"net": Line(6, 2)}
        updates = updates or [Update(("net",), regression(nets["net"]))]
        train = Train(**{"steps": 4, "batch": 8, "log_every": 1, "checkpoint_every": 2, **settings})
        node = {"use": "adam", "lr": 0.1, "schedule": {"use": "constant"}, **(optim or {})}
        cpu, no_scaler = torch.device("cpu"), torch.amp.GradScaler("cpu", enabled=False)
        learner = Optim(nets, node, frozen=frozen or {}, steps=train.steps, scaler=no_scaler)
        task, averages = Listed(updates, {}), Averages(nets, ("net",), ema) if ema else None
        return Trainer(
            task=task, nets=nets, feed=Feed(Points(20), train.batch, train.seed, cpu, channels_last=False),
            optim=learner, averages=averages,
            layout=Replicated(cpu),
            schedules=Schedules(schedules or {}, knobs_of(nets, task, learner, averages), train.steps),
            settings=train, score_every=score_every, folder=folder, device=cpu, hooks=hooks or Hooks(),
        )  # fmt: skip

    return make


@pytest.fixture
def gradients() -> Callable[[Trainer, str], list[list[torch.Tensor]]]:
    """`gradients(trainer, role)`: a list that fills with the role's gradients as its optimizer sees them."""

    def watch(trainer: Trainer, role: str = "net") -> list[list[torch.Tensor]]:
        seen: list[list[torch.Tensor]] = []
        trainer.optim.optimizers[role].register_step_pre_hook(
            lambda *_: seen.append([each.grad.clone() for each in trainer.optim.learning[role]])
        )
        return seen

    return watch
