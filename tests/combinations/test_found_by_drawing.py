"""What random combinations brought to light, each by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ganvas import parts
from ganvas.errors import BadValue
from ganvas.nn.spectral import spectral
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.training.check import check
from ganvas.training.train import train
from ganvas.types import NO_CONDITION, Generator, Latent, Scores, Turn

QUICK = ("train.steps=2", "train.batch=4", "data.limit=24", "eval=")


class Dead(nn.Linear, Generator):
    """One layer and its rectifier, as images of 4x4."""

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        return super().forward(latent).relu().view(-1, 1, 4, 4)


@pytest.mark.parametrize("of", ["by-head", "top-k"])
def test_top_k_of_what_has_no_loss_of_its_own_is_refused(of: str) -> None:
    recipe = Recipe.load("tiny/digits", [f"task.objective={{use: top-k, of: {of}}}"])
    with pytest.raises(BadValue, match=f"objective '{of}'") as caught:
        check(recipe)
    check(recipe.override(caught.value.hint))


def test_adaptivemix_trains_in_half_precision(tmp_path: Path) -> None:
    """The generator's images and the critic's features are bfloat16 there, and mixing shares are not."""
    term = "task.regularizers={adaptivemix: {weight: 0.1}}"
    for critic in ("sngan-discriminator", "mlp-discriminator"):
        overrides = (*QUICK, "train.precision=bf16", f"networks.discriminator={{use: {critic}, width: 8}}", term)
        assert train("tiny/digits", *overrides, out=tmp_path / critic, device="cpu").step == 2


def test_path_length_has_a_gradient_where_the_generator_is_dead() -> None:
    """‖Jᵀ y‖ = 0 for a latent whose units are all off; the square root alone has an infinite slope there."""
    torch.manual_seed(0)
    layer = Dead(3, 16)
    latent = Latent(torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]))
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()

    nothing = torch.zeros(2, 1, 4, 4)
    scores = Scores(nothing[:, 0, 0, 0], nothing.flatten(1))
    turn = Turn(
        {"generator": layer}, 0, nothing, NO_CONDITION, latent, NO_CONDITION, lambda data, given: scores, layer.make
    )
    loss = parts.build("regularizer", check_node("regularizer", "path-length"))(turn)
    loss.backward()
    assert loss.item() > 0
    assert torch.isfinite(layer.weight.grad).all()
    assert layer.weight.grad.abs().sum() > 0


def test_san_names_a_head_that_it_can_stand_on() -> None:
    recipe = Recipe.load("tiny/digits", ["networks.discriminator.conditioning={use: san, head: projection}"])
    with pytest.raises(BadValue, match="'projection' is not one row") as caught:
        check(recipe)
    check(recipe.override(caught.value.hint))


def test_spectral_norm_is_not_warmed_up_where_there_are_no_values() -> None:
    """`check` builds real sizes on the meta device; fifteen iterations a layer there were nine tenths of its time."""
    calls, original = 0, torch.mv

    def count(*given: object, **named: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return original(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "mv", count)
        with torch.device("meta"):
            layer = spectral(nn.Linear(8, 4))
        assert calls == 0
        assert layer.weight.shape == (4, 8)
        spectral(nn.Linear(8, 4))
    assert calls > 15
