"""Latent optimisation against its equations on a linear generator and critic, and inside the task."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.training.train import train
from ganvas.types import Latent


def part(**keys: object) -> object:
    return parts.build("regularizer", check_node("regularizer", {"use": "latent-optimisation", "share": 1.0, **keys}))


W = torch.tensor([3.0, -4.0])


def score(latent: Latent) -> Tensor:
    return latent.values @ W


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gradient_steps_are_as_many_and_as_long_as_asked_for(steps: int) -> None:
    z = torch.randn(6, 2)
    moved = part(method="gradient", steps=steps, rate=0.1).move_latent(Latent(z), score, differentiable=False)
    torch.testing.assert_close(moved.values, z + steps * 0.1 * W)


def test_the_natural_step_is_damped_by_the_squared_slope() -> None:
    z = torch.randn(6, 2)
    optimisation = part(method="natural", rate=0.9, damping=5.0)
    moved = optimisation.move_latent(Latent(z), score, differentiable=False)
    torch.testing.assert_close(moved.values, (z + 0.9 * W / (5 + 25)).expand(6, 2))
    assert optimisation(None).item() == pytest.approx((0.9 * 5 / 30) ** 2, rel=1e-5)


def test_a_share_of_the_dimensions_moves() -> None:
    torch.manual_seed(0)
    z = torch.zeros(4, 1000)
    optimisation = part(method="gradient", share=0.3)
    moved = optimisation.move_latent(Latent(z), lambda latent: latent.values.sum(1), differentiable=False).values
    assert (moved != 0).float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert ((moved != 0) == (moved[:1] != 0)).all()  # the same ones for the whole batch


def test_the_generator_learns_through_the_step_and_the_critic_does_not() -> None:
    """D(G(z)) = a²‖z‖²/2 has g = a² z, so z′ = z + rate·a² z and ∂z′/∂a = 2 rate·a z."""
    a = nn.Parameter(torch.tensor(0.7))
    z = torch.randn(5, 3)

    def quadratic(latent: Latent) -> Tensor:
        return 0.5 * (a * latent.values).square().sum(1)

    optimisation = part(method="gradient", rate=0.2)
    optimisation.move_latent(Latent(z), quadratic, differentiable=True).values.sum().backward()
    assert a.grad.item() == pytest.approx((2 * 0.2 * 0.7 * z).sum().item(), rel=1e-4)
    assert not optimisation.move_latent(Latent(z), quadratic, differentiable=False).values.requires_grad


def test_it_trains_in_a_recipe(tmp_path: object) -> None:
    recipe = Recipe.load(
        "tiny/gaussians-mlp", ["train.steps=3", "task.regularizers={latent-optimisation: {steps: 2, weight: 300.0}}"]
    )
    assert train(recipe, out=f"{tmp_path}/run").step == 3


def test_a_share_of_the_data_moves_whole_and_stays_within_the_bound() -> None:
    torch.manual_seed(0)
    z = torch.zeros(2000, 3)
    optimisation = part(method="gradient", rate=1.5, share=0.3, moves="data", bound=1.0)
    moved = optimisation.move_latent(Latent(z), lambda latent: latent.values.sum(1), differentiable=False).values
    assert set(moved.unique().tolist()) == {0.0, 1.0}  # a step of 1.5 ends at the bound
    assert (moved == moved[:, :1]).all()
    assert (moved[:, 0] != 0).float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert optimisation(None).item() == pytest.approx(3 * 1.5**2)  # those that stay are counted, too


def test_where_both_learn_by_it_the_critic_sees_how_latents_were_moved() -> None:
    """D(G(z)) = b z: z′ = z + rate · b, so that ∂z′/∂b = rate also in the critic's update."""
    for learnt_by, slope in (("generator", None), ("both", 4 * 0.5)):
        b = nn.Parameter(torch.tensor(2.0))
        optimisation = part(method="gradient", rate=0.5, learnt_by=learnt_by)
        linear = lambda latent, b=b: (b * latent.values).sum(1)  # noqa: E731
        moved = optimisation.move_latent(Latent(torch.ones(4, 1)), linear, differentiable=False).values
        assert moved.requires_grad is (slope is not None)
        if slope is not None:
            moved.sum().backward()
            assert b.grad is not None and b.grad.item() == pytest.approx(slope)
        assert optimisation.belongs_to("generator")
        assert optimisation.belongs_to("discriminator") is (learnt_by == "both")
