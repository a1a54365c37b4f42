from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test its own cache, so that none is fed by another or writes into the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GANVAS_CACHE", str(folder))
    return folder


@pytest.fixture
def write_images() -> Callable[..., list[np.ndarray]]:
    """Write random RGB PNGs under the given names; gives the pixels (H, W, 3) in the order of the sorted names."""

    def write(root: Path, *names: str, size: tuple[int, int] = (8, 8), seed: int = 0) -> list[np.ndarray]:
        random = np.random.default_rng(seed)
        pixels = []
        for name in sorted(names):
            pixels.append(random.integers(0, 256, (*size, 3), dtype=np.uint8))
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[-1]).save(file)
        return pixels

    return write
