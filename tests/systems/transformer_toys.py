"""A small training on digits that toy claims of transformer pairs share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ganvas import parts
from ganvas.engine.build import build_networks, build_task
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features
from ganvas.types import Batch, Facts

SAMPLES = 500


def digits(split: str, size: int) -> Tensor:
    """(N, 1, size, size)."""
    dataset = parts.build("dataset", check_node("dataset", {"use": "digits", "split": split, "size": size}))
    data: Tensor = dataset.batch(np.arange(len(dataset)), np.random.default_rng(0)).data
    return data


def distances(name: str, seed: int, steps: int) -> tuple[float, float]:
    """Of samples to the held-out digits in the digit net's features: before training, and after so many steps of 32.

    Every logit and loss on the way must be finite.
    """
    torch.manual_seed(seed)
    recipe = Recipe.load(name).override(f"train.seed={seed}").resolve()  # networks start from it, too
    spec = parts.build("dataset", recipe["data"]).spec
    nets, _ = build_networks(recipe, spec, pretrained=False)
    task = build_task(recipe, nets, Facts(spec))
    lr, betas = recipe["optim"]["lr"], tuple(recipe["optim"]["betas"])
    optim = {role: torch.optim.Adam(net.parameters(), lr=lr, betas=betas) for role, net in nets.items()}
    real, held_out = digits("train", spec.height), digits("test", spec.height)
    extractor = parts.build("extractor", check_node("extractor", "digit-net"))
    fixed = torch.randn(SAMPLES, *nets["generator"].latents["z"].shape)

    def distance() -> float:
        with torch.no_grad():
            made = nets["generator"].eval()(fixed).clamp(-1, 1)
        nets["generator"].train()
        return frechet_distance_of_features(extractor(held_out)[0], extractor(made)[0])

    before = distance()
    for step in range(steps):
        for update in task.updates():
            (role,) = update.nets
            if step % update.every:
                continue
            for _ in range(update.repeat):
                optim[role].zero_grad()
                batch = Batch(real[torch.randint(len(real), (32,))])
                loss = update.every * torch.stack(list(update.losses(batch, step).values())).sum()
                assert torch.isfinite(loss), step
                loss.backward()
                optim[role].step()
    scores = nets["discriminator"].eval()(real[:32])
    assert torch.isfinite(scores.logits).all()
    return before, distance()
