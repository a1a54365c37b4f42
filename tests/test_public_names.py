"""What `import ganvas` promises: few names, all there, and nothing slow before one is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ganvas


def test_names_are_few_and_all_there() -> None:
    assert len(ganvas.__all__) <= 30
    assert ganvas.__all__ == sorted(set(ganvas.__all__))
    for name in ganvas.__all__:
        assert getattr(ganvas, name) is not None


PUBLIC = {
    "CheckpointError", "Condition", "DataError", "DataSpec", "DivergenceError", "GanvasError", "Latent",
    "MissingCapability", "MissingExtra", "Model", "Recipe", "RecipeError", "ResumeMismatch", "UsageError",
    "__version__", "check", "evaluate", "load", "parts", "train", "types",
}  # fmt: skip
LOOSE = {"__init__.py", "errors.py", "py.typed"}


def test_the_public_surface_is_this() -> None:
    """Whoever adds a name here promises to keep it."""
    assert set(ganvas.__all__) == PUBLIC


def test_nothing_else_lies_loose_at_the_top() -> None:
    top = Path(ganvas.__file__).parent
    assert {each.name for each in top.iterdir() if each.is_file()} == LOOSE
    assert all((each / "__init__.py").is_file() for each in top.iterdir() if each.is_dir() and any(each.glob("*.py")))


def test_they_are_the_same_things_as_in_their_modules() -> None:
    from ganvas import errors, model, parts, types
    from ganvas.recipe.recipe import Recipe
    from ganvas.training.check import check
    from ganvas.training.train import train

    assert ganvas.load is model.load and ganvas.Model is model.Model
    assert ganvas.train is train and ganvas.check is check
    assert ganvas.Recipe is Recipe and ganvas.parts is parts
    assert ganvas.Latent is types.Latent and ganvas.DataSpec is types.DataSpec
    assert issubclass(ganvas.RecipeError, errors.GanvasError)


def test_dir_shows_them_and_a_wrong_name_is_an_attribute_error() -> None:
    assert dir(ganvas) == ganvas.__all__
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = ganvas.trian
    with pytest.raises(ImportError):
        exec("from ganvas import trian")


# In a fresh interpreter: in this one everything is imported already.
FRESH = [
    "import ganvas; dir(ganvas); ganvas.__version__; ganvas.GanvasError; ganvas.Recipe; ganvas.parts",
    "from ganvas import cli; assert cli.run(['--help']) == 0",
    "from ganvas import cli; assert cli.run(['train', '--help']) == 0",
    "from ganvas import cli; assert cli.run(['--version']) == 0",
    "from ganvas import cli; assert cli.run(['list']) == 0",
    "from ganvas import cli; assert cli.run(['list', 'networks', 'gan', '--json']) == 0",
    "from ganvas import cli; assert cli.run(['list', 'recipes']) == 0",
    "from ganvas import cli; assert cli.run(['list', 'systems', '--json']) == 0",
]
SLOW = {"torch", "numpy", "scipy", "sklearn", "PIL", "pydantic", "rich", "ruamel.yaml", "safetensors"}


@pytest.mark.parametrize("code", FRESH)
def test_nothing_slow_is_imported_before_it_is_used(code: str) -> None:
    loaded = f"\nimport sys; print('loaded', *sorted({SLOW!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + loaded], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split()[1:] == []
