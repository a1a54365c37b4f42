"""WGAN-GP (Gulrajani et al. 2017): the penalty at critics that are known, and what it does to their weights.

Penalties by finite differences, and at random linear critics and cones, are in tests/regularizers/test_penalties.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from plane_toys import modes_of, network, points, swiss_roll, train_pair
from torch import Tensor, nn

from ganvas import parts
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.types import NO_CONDITION, Facts, Latent, Scores, Turn

pytestmark = pytest.mark.system("wgan-gp")

N, D = 16, 6


def penalty(critic: Callable[..., Scores], real: Tensor, fake: Tensor, **keys: object) -> Tensor:
    part = parts.build("regularizer", check_node("regularizer", {"use": "gradient-penalty", **keys}))
    return part(
        Turn({}, 0, real, NO_CONDITION, Latent(fake), NO_CONDITION, critic, lambda latent, asked: latent.values)
    )


def scored(function: Callable[[Tensor], Tensor]) -> Callable[..., Scores]:
    return lambda data, condition=NO_CONDITION: Scores(function(data), data.flatten(1))


@pytest.mark.parametrize("a", [-3.0, -1.0, 0.5, 4.0])
def test_penalty_of_a_cone_is_a_function_of_its_steepness(a: float) -> None:
    """D(x) = a ‖x‖ has slope |a| everywhere: (|a| − 1)²."""
    torch.manual_seed(0)
    found = penalty(scored(lambda x: a * x.norm(dim=1)), torch.randn(N, D), torch.randn(N, D))
    assert found.item() == pytest.approx((abs(a) - 1) ** 2, rel=1e-5, abs=1e-11)


@pytest.mark.parametrize("seed", range(3))
def test_penalty_of_a_linear_critic_is_a_function_of_its_weight(seed: int) -> None:
    torch.manual_seed(seed)
    w = torch.randn(D)
    found = penalty(scored(lambda x: x @ w), torch.randn(N, D), torch.randn(N, D))
    assert found.item() == pytest.approx((w.norm().item() - 1) ** 2, rel=1e-5)


def test_double_backward_by_gradcheck_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The penalty computes in float32 on purpose; `float` is taken away from it here, so that gradcheck can look."""
    torch.manual_seed(0)
    real, fake = (torch.randn(4, 3, dtype=torch.float64) for _ in range(2))
    monkeypatch.setattr(Tensor, "float", lambda self: self)
    fixed = torch.rand(4, 1, dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: fixed)

    def of_weights(first: Tensor, second: Tensor) -> Tensor:
        return penalty(scored(lambda x: torch.tanh(x @ first.t()) @ second), real, fake)

    first, second = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(of_weights, (first.requires_grad_(), second.requires_grad_()))


# ------------------------------------------------------------------------------------------- batch norm


def task_of(norm: str, regularizers: dict[str, object]) -> None:
    spec = image_spec((1, 16, 16))
    nets = {
        "generator": parts.build("network", check_node("network", {"use": "dcgan-generator", "width": 8}), spec),
        "discriminator": parts.build(
            "network", check_node("network", {"use": "dcgan-discriminator", "width": 8, "norm": norm}), spec
        ),
    }
    node = {"use": "adversarial", "objective": "wasserstein", "regularizers": regularizers}
    parts.build("task", check_node("task", node), nets, Facts(spec))


def test_batch_norm_in_the_critic_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="gradient-penalty.*batch norm"):
        task_of("batch", {"gradient-penalty": {"weight": 10}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task_of("batch", {"weight-clipping": {}})
        for norm in ("layer", "none", "spectral"):
            task_of(norm, {"gradient-penalty": {"weight": 10}})


@pytest.mark.parametrize(("norm", "alone"), [("layer", True), ("none", True), ("spectral", True), ("batch", False)])
def test_slope_at_a_datum_does_not_see_the_others(norm: str, alone: bool) -> None:
    torch.manual_seed(0)
    node = check_node("network", {"use": "dcgan-discriminator", "width": 16, "norm": norm})
    critic: nn.Module = parts.build("network", node, image_spec((1, 16, 16)))
    if norm == "spectral":
        critic.eval()  # its power iteration goes on with each pass
    data = torch.randn(6, 1, 16, 16)

    def slope(batch: Tensor) -> Tensor:
        batch = batch.clone().requires_grad_()
        return torch.autograd.grad(critic(batch).logits.sum(), batch)[0].flatten(1).norm(dim=1)[0]

    among_others = slope(torch.cat([data[:1], 5 * torch.randn(5, 1, 16, 16)]))
    assert (slope(data) - among_others).abs() < 1e-5 * among_others if alone else slope(data) != among_others


# ------------------------------------------------------------------------------------------- toys

# The authors' own toy code takes λ = 0.1 and says that less helps here; with λ = 10, 2, 1 and 8 modes are covered.
WEIGHT = 0.1


@pytest.mark.slow
def test_eight_gaussians_are_covered() -> None:
    found = []
    for seed in range(3):
        nets, _ = train_pair(
            "wasserstein", {"gradient-penalty": {"weight": WEIGHT}}, seed=seed, steps=1200, critic_steps=5,
            lr=1e-3, betas=(0.0, 0.9),
        )  # fmt: skip
        found.append(modes_of(nets["generator"])[0])
    assert found == [8, 8, 8]


def at_the_bounds(critic: nn.Module) -> float:
    """Share of the critic's weights within 5 % of the largest."""
    w = torch.cat([parameter.detach().flatten().abs() for parameter in critic.parameters()])
    return (w >= 0.95 * w.max()).float().mean().item()


def trained_critic(regularizer: str, keys: dict[str, float], data: Callable[[int], Tensor], seed: int) -> nn.Module:
    """A critic near its optimum between data and the data with noise, the generator of the paper's figure 1."""
    torch.manual_seed(seed)
    weight = keys.pop("weight", 1.0)
    critic = network("mlp-discriminator", width=64, depth=3)
    part = parts.build("regularizer", {"use": regularizer, **keys})
    optim = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
    for step in range(2000 if regularizer == "weight-clipping" else 600):
        real, fake = data(128), data(128) + 0.5 * torch.randn(128, 2)
        turn = Turn(
            {}, step, real, NO_CONDITION, Latent(fake), NO_CONDITION,
            critic=lambda data, condition: critic(data), generate=lambda latent, condition: latent.values,
        )  # fmt: skip
        loss = turn.fake_scores.logits.mean() - turn.real_scores.logits.mean()
        if regularizer == "gradient-penalty":
            loss = loss + weight * part(turn)
        optim.zero_grad()
        loss.backward()
        optim.step()
        if regularizer == "weight-clipping":
            part.apply(critic)
    return critic


@pytest.mark.slow
@pytest.mark.parametrize("data", [points, swiss_roll])
def test_clipped_weights_pile_up_at_the_bounds_and_penalised_ones_do_not(data: Callable[[int], Tensor]) -> None:
    for seed in range(3):
        assert at_the_bounds(trained_critic("weight-clipping", {"limit": 0.01}, data, seed)) >= 0.8
        assert at_the_bounds(trained_critic("gradient-penalty", {"weight": WEIGHT}, data, seed)) < 0.05
