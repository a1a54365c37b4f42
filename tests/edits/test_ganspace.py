"""GANSpace (Härkönen et al. 2020): principal axes of a mapped space, and moves along them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ganvas import cli, parts
from ganvas.errors import MissingCapability
from ganvas.model import Model
from ganvas.recipe.check import check_node
from ganvas.types import Latent, LatentSpec, SpacedGenerator

SCALES = torch.tensor([0.5, 3.0, 1.0, 0.1])


class Stretched(SpacedGenerator):
    """w = z · SCALES, so that the principal axes are the coordinates and their deviations are known."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = {"z": LatentSpec((4,)), "w": LatentSpec((4,), "none")}
        self.conditional = False

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return (latent * SCALES).view(-1, 1, 2, 2)

    def to_space(self, latent: Latent, space: str, label: Tensor | None = None) -> Latent:
        return Latent(latent.values * SCALES, space) if latent.space != space else latent

    def from_space(self, latent: Latent, label: Tensor | None = None) -> Tensor:
        return self.to_space(latent, "w").values.view(-1, 1, 2, 2)


@pytest.fixture
def model() -> Model:
    return Model({"sampler": {"use": "plain"}}, parts.image_spec((1, 2, 2)), {"generator": Stretched()})


def build(**keys: object) -> object:
    return parts.build("edit", check_node("edit", {"use": "ganspace", **keys}))


def test_axes_are_those_of_the_covariance_strongest_first(model: Model) -> None:
    state = build().fit(model)
    assert torch.allclose(state["directions"].abs(), torch.eye(4)[[1, 2, 0, 3]], atol=0.02)
    assert torch.allclose(state["deviations"], SCALES[[1, 2, 0, 3]], rtol=0.03)
    assert (state["directions"].gather(1, state["directions"].abs().argmax(1, keepdim=True)) > 0).all()


def test_a_strength_is_so_many_standard_deviations_and_zero_moves_nothing(model: Model) -> None:
    move = build(component=1)
    state = move.fit(model)
    latent = model.draw(3, seed=0, space="w")
    assert torch.equal(move(model, latent, state, 0.0).values, latent.values)
    moved = move(model, latent, state, 2.0).values - latent.values
    assert torch.allclose(moved, torch.tensor([0.0, 0.0, 2.0, 0.0]).expand(3, 4), atol=0.1)


def test_a_model_without_the_space_is_refused_in_words(model: Model) -> None:
    with pytest.raises(MissingCapability, match="no latent space 'v'"):
        build(space="v").fit(model)


def test_the_verb_writes_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert cli.run(["train", "tiny/digits-stylegan2", "train.steps=1", "eval=~", "--out", str(run)]) == 0
    out = tmp_path / "sheet.png"
    words = ["edit", str(run), "{use: ganspace, samples: 64}", "--strength", "-1,0,1", "--n", "2", "--out", str(out)]
    assert cli.run(words) == 0, capsys.readouterr().err
    assert out.stat().st_size > 0
    assert cli.run(["edit", str(run), "ganspase"]) == 2
    assert "Did you mean 'ganspace'" in capsys.readouterr().err
