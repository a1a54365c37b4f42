"""A term of a task may bring a network of its own, which is given and not taught."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganvas import parts
from ganvas.errors import RecipeError
from ganvas.files.files import read_tensors
from ganvas.recipe.recipe import Recipe
from ganvas.training.train import train

TERM = '''
from ganvas.parts import regularizer
from ganvas.types import Generator, Regularizer, Role


@regularizer("pull-towards")
class PullTowards(Regularizer):
    """Generated data near those of a frozen source."""

    side = "generator"
    roles = {"source": Role((Generator,), frozen=True)}

    def __call__(self, turn):
        made = turn.nets["source"].make(turn.latent, turn.fake_condition)
        return (turn.fake - made).square().mean()
'''
WITH = ("task.regularizers.pull-towards={weight: 1.0}",)
SOURCE = "networks.source={use: sngan-generator, width: 8, z_dim: 8, conditioning: batch-norm}"
CRITIC = "networks.source={use: sngan-discriminator, width: 8}"


@pytest.fixture(autouse=True)
def term(tmp_path: Path) -> None:
    file = tmp_path / "pull.py"
    file.write_text(TERM, encoding="utf-8")
    parts.add_file(file)


def test_its_role_is_asked_for_and_its_kind_checked() -> None:
    recipe = Recipe.load("tiny/digits", WITH)
    with pytest.raises(RecipeError, match="needs a network 'source'"):
        recipe.resolve()
    with pytest.raises(RecipeError, match="'sngan-discriminator' is no generator"):
        recipe.override(CRITIC).resolve()
    with pytest.raises(RecipeError, match="no role 'source'"):
        Recipe.load("tiny/digits", [SOURCE]).resolve()


def test_its_network_trains_along_without_learning(tmp_path: Path) -> None:
    runs = []
    for steps in (1, 3):
        out = tmp_path / str(steps)
        train("tiny/digits", *WITH, SOURCE, f"train.steps={steps}", "eval=~", out=out, device="cpu")
        runs.append(read_tensors(out / "model.safetensors")[0])
    early, late = runs
    source = [name for name in early if name.startswith("source.")]
    assert source and all((early[name] == late[name]).all() for name in source)
    assert any((early[name] != late[name]).any() for name in early if name.startswith("generator."))
