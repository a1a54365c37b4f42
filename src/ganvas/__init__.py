"""Ganvas: generative image models from recipes of named parts.

>>> import ganvas
>>> model = ganvas.train("digits", "train.steps=500")       # or ganvas.load("runs/digits")
>>> images = model.sample(64, seed=0, label=3)              # (64, 1, 8, 8) in [-1, 1]

Names are loaded when they are first used: `import ganvas` is quick and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganvas import parts, types
    from ganvas.errors import (
        CheckpointError,
        DataError,
        DivergenceError,
        GanvasError,
        MissingCapability,
        MissingExtra,
        RecipeError,
        ResumeMismatch,
        UsageError,
    )
    from ganvas.evaluation.evaluate import evaluate
    from ganvas.model import Model, load
    from ganvas.recipe.recipe import Recipe
    from ganvas.training.check import check
    from ganvas.training.train import train
    from ganvas.types import Condition, DataSpec, Latent

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "Condition",
    "DataError",
    "DataSpec",
    "DivergenceError",
    "GanvasError",
    "Latent",
    "MissingCapability",
    "MissingExtra",
    "Model",
    "Recipe",
    "RecipeError",
    "ResumeMismatch",
    "UsageError",
    "__version__",
    "check",
    "evaluate",
    "load",
    "parts",
    "train",
    "types",
]

_HOMES = {
    "Condition": "types",
    "DataSpec": "types",
    "Latent": "types",
    "Model": "model",
    "Recipe": "recipe.recipe",
    "check": "training.check",
    "evaluate": "evaluation.evaluate",
    "load": "model",
    "train": "training.train",
}  # every other name is an error's


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ganvas' has no attribute {name!r}")
    if name in ("parts", "types"):
        return importlib.import_module(f"ganvas.{name}")
    value = getattr(importlib.import_module(f"ganvas.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
