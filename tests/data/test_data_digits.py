"""The bundled digits, and that every part of the shelf is fit for a recipe."""

from __future__ import annotations

import hashlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganvas import parts
from ganvas.parts import image_spec
from ganvas.parts.values import read_value
from ganvas.shelves.data.reading.options import ImageOptions
from ganvas.shelves.data.sets.digits import Digits
from ganvas.types import DataSpec


def values(data: Any) -> np.ndarray:
    return ((data.batch(np.arange(len(data)), np.random.default_rng(0)).data.numpy() + 1) * 127.5).round()


def test_they_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    data = Digits(split="all")
    images, labels = load_digits(return_X_y=True)
    assert np.array_equal(values(data).reshape(-1, 64), np.rint(images * 255 / 16))
    assert np.array_equal(data.batch(np.arange(1797), np.random.default_rng(0)).label, labels)


def test_the_split_is_fixed_and_even() -> None:
    train, test = Digits(), Digits(split="test")
    assert (len(train), len(test)) == (1297, 500)
    label = test.batch(np.arange(500), np.random.default_rng(0)).label
    assert np.bincount(label).tolist() == [50] * 10
    assert test.fingerprint == Digits(split="test").fingerprint
    # Written down, so that a change of the split cannot go unseen: scores across versions would not be comparable.
    assert hashlib.sha256(values(test).astype(np.uint8).tobytes()).hexdigest()[:16] == "19c297ead9d57070"
    together = np.concatenate([values(train), values(test)]).reshape(1797, -1)
    everything = values(Digits(split="all")).reshape(1797, -1)
    assert np.array_equal(together[np.lexsort(together.T)], everything[np.lexsort(everything.T)])


def test_options() -> None:
    data = Digits(images=ImageOptions(size=32, channels=3, limit=100))
    assert data.spec == image_spec((3, 32, 32), 10) == Digits.preview(images=ImageOptions(size=32, channels=3))
    assert Digits().spec == image_spec((1, 8, 8), 10) == Digits.preview()
    assert len(data) == 100


def test_without_its_file_scikit_learn_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Digits().fingerprint
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    assert Digits().fingerprint == expected


def test_scikit_learn_is_not_imported() -> None:
    code = "import sys; from ganvas.shelves.data.sets.digits import Digits; Digits(); print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("name", ["digits", "shapes", "folder", "zip", "arrays", "idx", "cifar"])
def test_every_part_has_a_summary_keys_and_a_preview(name: str) -> None:
    part = parts.find("dataset", name)
    assert part.summary.endswith(".")
    assert len(part.summary) < 100
    fields = part.fields()
    assert set(part.tiny) <= set(fields)
    for key, value in part.tiny.items():
        read_value(fields[key].annotation, value)
    thing: Any = part.load()
    assert inspect.ismethod(thing.preview)
    assert isinstance(thing.preview(path=Path("x")), DataSpec)


def test_built_from_a_recipe_node() -> None:
    data = parts.build("dataset", {"use": "digits", "split": "test", "size": [4, 6], "limit": 20, "flip": True})
    assert data.spec.shape == (1, 4, 6)
    for key, value in (("size", 0), ("size", [4]), ("limit", 1), ("channels", 2), ("fit", "zoom"), ("size", "8")):
        with pytest.raises(ValueError, match=r"."):
            parts.build("dataset", {"use": "digits", key: value})
