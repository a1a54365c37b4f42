"""Small pairs in the plane, trained step by step: what several systems' toy claims share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_swiss_roll
from torch import Tensor, nn

from ganvas import parts
from ganvas.parts import data_spec
from ganvas.recipe.check import check_node
from ganvas.toys.plane import centres, modes_found
from ganvas.types import Batch, DataSpec, Facts

RING = torch.tensor(centres(8, "ring"), dtype=torch.float32)
STD, Z_DIM = 0.05, 8
SPEC = data_spec("plane", (2,))


def points(n: int) -> Tensor:
    """(n, 2) of eight Gaussians on a ring."""
    return RING[torch.randint(8, (n,))] + STD * torch.randn(n, 2)


@functools.cache
def _roll() -> Tensor:
    return torch.from_numpy(make_swiss_roll(20_000, noise=0.25, random_state=0)[0][:, [0, 2]] / 7.5).float()


def swiss_roll(n: int) -> Tensor:
    """(n, 2), as in the authors' toy code of WGAN-GP."""
    return _roll()[torch.randint(len(_roll()), (n,))]


def network(name: str, spec: DataSpec = SPEC, **keys: Any) -> nn.Module:
    return parts.build("network", check_node("network", {"use": name, **keys}), spec)


def pair(width: int = 64, depth: int = 2) -> dict[str, nn.Module]:
    return {
        "generator": network("mlp-generator", width=width, depth=depth, z_dim=Z_DIM),
        "discriminator": network("mlp-discriminator", width=width, depth=depth),
    }


def train_pair(
    objective: str,
    regularizers: Mapping[str, Any],
    *,
    seed: int,
    steps: int,
    critic_steps: int = 1,
    lr: float = 1e-3,
    generator_lr: float | None = None,
    betas: tuple[float, float] | None = (0.5, 0.9),
    data: Callable[[int], Tensor] = points,
    batch: int = 128,
    warm_up: tuple[int, int] = (0, 1),
    watch: Callable[[int, Mapping[str, nn.Module]], None] = lambda step, nets: None,
) -> tuple[dict[str, nn.Module], list[float]]:
    """(networks, the critic's adversarial loss at each step) of a pair trained by Adam; RMSProp where `betas` is None.

    `warm_up` is (steps, critic steps in each of them) at the beginning.
    """
    torch.manual_seed(seed)
    nets, curve = pair(), []
    node = {
        "use": "adversarial", "objective": objective, "critic_steps": critic_steps, "regularizers": dict(regularizers),
    }  # fmt: skip
    task = parts.build("task", check_node("task", node), nets, Facts(SPEC))
    optim: dict[str, torch.optim.Optimizer] = {}
    for role, net in nets.items():
        own, rate = net.parameters(), lr if role == "discriminator" else generator_lr or lr
        optim[role] = (
            torch.optim.RMSprop(own, lr=rate) if betas is None else torch.optim.Adam(own, lr=rate, betas=betas)
        )
    for step in range(steps):
        for update in task.updates():
            (role,) = update.nets
            early = role == "discriminator" and step < warm_up[0]
            for _ in range(warm_up[1] if early else update.repeat):
                drawn = Batch(data(batch))
                losses = update.losses(drawn, step)
                optim[role].zero_grad()
                torch.stack(list(losses.values())).sum().backward()
                optim[role].step()
                if update.after:
                    update.after(drawn)
            if role == "discriminator" and "adversarial" in losses:
                curve.append(losses["adversarial"].item())
        watch(step, nets)
    return nets, curve


def samples(generator: nn.Module, n: int = 4000) -> Tensor:
    with torch.no_grad():
        made: Tensor = generator(torch.randn(n, Z_DIM))
    return made


def modes_of(generator: nn.Module) -> tuple[int, float]:
    """(modes of the ring that are covered, share of samples within three standard deviations of one)."""
    return modes_found(samples(generator).numpy(), RING.numpy().astype(np.float64), STD)
