"""Kurach et al. 2019: every loss, penalty and normalisation of the critic combine, by one override each."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.engine.build import build_networks, build_task
from ganvas.nn.spectral import spectral
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features
from ganvas.types import NO_CONDITION, Batch, Condition, Facts, Latent, Scores, Turn

pytestmark = pytest.mark.system("reg-norm-study")

BASE = {
    "data": {"use": "digits", "size": 16},
    "networks": {
        "generator": {"use": "dcgan-generator", "width": 16, "z_dim": 8},
        "discriminator": {"use": "dcgan-discriminator", "width": 16},
    },
    "task": {"use": "adversarial", "objective": "non-saturating"},
    "optim": {"use": "adam", "lr": 0.0002, "betas": [0.5, 0.999]},
}
LOSSES = ["non-saturating", "least-squares", "wasserstein"]
PENALTIES = {
    "none": [],
    "gradient-penalty": ["task.regularizers.gradient-penalty={weight: 1}"],
    "dragan": ["task.regularizers.dragan={weight: 1}"],
    "weight-decay": ["task.regularizers.weight-decay={weight: 0.0001}"],
}
NORMS = ["none", "spectral", "batch", "layer"]


def cell(loss: str, penalty: str, norm: str) -> Recipe:
    overrides = [f"task.objective={loss}", *PENALTIES[penalty], f"networks.discriminator.norm={norm}"]
    return Recipe(BASE).override(*overrides)


@pytest.mark.parametrize(("loss", "penalty", "norm"), list(itertools.product(LOSSES, PENALTIES, NORMS)))
def test_every_cell_is_one_override_each_and_takes_a_step(loss: str, penalty: str, norm: str) -> None:
    resolved = cell(loss, penalty, norm).resolve()
    assert resolved["task"]["objective"]["use"] == loss
    assert list(resolved["task"]["regularizers"]) == [penalty] * (penalty != "none")
    spec = image_spec((1, 16, 16), 10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nets, _ = build_networks(resolved, spec, pretrained=False)
        task = build_task(resolved, nets, Facts(spec))
    # The study finds batch norm harmful beside a gradient penalty, which is said.
    assert bool(caught) == (norm == "batch" and penalty in ("gradient-penalty", "dragan"))
    batch = spec.stand_in(4, torch.Generator().manual_seed(0))
    for update in task.updates():
        sum(update.losses(batch, 0).values()).backward()
        if update.after is not None:
            update.after(batch)
    assert all(torch.isfinite(p.grad).all() for p in nets["discriminator"].parameters() if p.grad is not None)
    kinds = {type(module) for module in nets["discriminator"].modules()}
    assert any(issubclass(kind, nn.BatchNorm2d) for kind in kinds) == (norm == "batch")
    assert (nn.GroupNorm in kinds) == (norm == "layer")


def test_layer_norm_normalises_each_map_by_itself() -> None:
    node = check_node("network", {"use": "dcgan-discriminator", "width": 16, "norm": "layer"})
    critic = parts.build("network", node, image_spec((1, 16, 16)))
    x = torch.randn(3, 16, 4, 4) * 5 + 2
    norm = critic.norms[1]
    expected = nn.functional.layer_norm(x, x.shape[1:]) * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected, rtol=1e-4, atol=1e-5)


def test_weight_decay_is_the_squared_length_of_the_weights() -> None:
    critic = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    x = torch.zeros(2, 3)
    turn = Turn({"discriminator": critic}, 0, x, NO_CONDITION, Latent(x), NO_CONDITION, critic=None, generate=None)  # type: ignore[arg-type]
    term = parts.build("regularizer", check_node("regularizer", "weight-decay"))(turn)
    assert term.item() == pytest.approx(sum(layer.weight.square().sum().item() for layer in critic))
    term.backward()
    torch.testing.assert_close(critic[0].weight.grad, 2 * critic[0].weight)
    assert critic[0].bias.grad is None


@pytest.mark.parametrize(
    ("kind", "sizes"), [(nn.Linear, (20, 30)), (nn.Conv2d, (8, 12, 3)), (nn.ConvTranspose2d, (8, 12, 4))]
)
def test_spectral_norm_converges_to_a_top_singular_value_of_1(kind: type[nn.Module], sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = spectral(kind(*sizes)).train()
    for _ in range(200):  # how fast depends on the gap to the second singular value
        weight = layer.weight
    W = weight.transpose(0, 1).flatten(1) if isinstance(layer, nn.ConvTranspose2d) else weight.flatten(1)
    assert torch.linalg.svdvals(W.detach()).max().item() == pytest.approx(1, abs=1e-3)


def test_gradient_penalty_of_a_linear_critic_is_exact() -> None:
    torch.manual_seed(0)
    w, real, fake = torch.randn(5), torch.randn(8, 5), torch.randn(8, 5)

    def critic(data: Tensor, condition: Condition) -> Scores:
        return Scores(data @ w, data)

    turn = Turn({}, 0, real, NO_CONDITION, Latent(fake), NO_CONDITION, critic, lambda latent, condition: latent.values)
    for name in ("gradient-penalty", "dragan"):
        found = parts.build("regularizer", check_node("regularizer", name))(turn)
        assert found.item() == pytest.approx((w.norm().item() - 1) ** 2, rel=1e-5), name


# ------------------------------------------------------------------------------------------- a table

CELLS = list(itertools.product(["non-saturating", "wasserstein"], ["none", "gradient-penalty"], ["none", "spectral"]))


def distance(loss: str, penalty: str, norm: str, seed: int, steps: int = 120) -> float:
    """Of 500 samples to the held-out digits at 8x8, in features of the bundled digit net."""
    torch.manual_seed(seed)
    spec = image_spec((1, 8, 8), 10)
    resolved = cell(loss, penalty, norm).override(
        "data.size=~", "networks.generator.width=64", "networks.discriminator.width=64", f"train.seed={seed}"
    ).resolve()  # fmt: skip
    nets, _ = build_networks(resolved, spec, pretrained=False)
    task = build_task(resolved, nets, Facts(spec))
    optim = {role: torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.999)) for role, net in nets.items()}
    real = digits("train")
    for step in range(steps):
        for update in task.updates():
            (role,) = update.nets
            optim[role].zero_grad()
            batch = Batch(real[torch.randint(len(real), (64,))])
            torch.stack(list(update.losses(batch, step).values())).sum().backward()
            optim[role].step()
    with torch.no_grad():
        made = nets["generator"].eval()(torch.randn(500, 8))
    extractor = parts.build("extractor", check_node("extractor", "digit-net"))
    return frechet_distance_of_features(extractor(digits("test"))[0], extractor(made.clamp(-1, 1))[0])


def digits(split: str) -> Tensor:
    dataset = parts.build("dataset", check_node("dataset", {"use": "digits", "split": split}))
    data: Tensor = dataset.batch(np.arange(len(dataset)), np.random.default_rng(0)).data
    return data


@pytest.mark.slow
def test_table_of_eight_cells_over_three_seeds_is_ranked_with_error_bars() -> None:
    table = []
    for each in CELLS:
        found = [distance(*each, seed) for seed in range(3)]
        table.append((float(np.mean(found)), float(np.std(found, ddof=1)), " + ".join(each)))
    table.sort()
    for place, (mean, spread, name) in enumerate(table, 1):
        print(f"{place}. {name}: {mean:.1f} ± {spread:.1f}")  # noqa: T201
    assert len(table) == 8
    assert all(0 < spread < np.inf for _, spread, _ in table)  # seeds differ, and none diverged
    untrained = distance(*CELLS[0], seed=0, steps=0)
    assert table[0][0] < untrained / 2
