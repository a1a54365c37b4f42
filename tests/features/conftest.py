"""Weights of our own making in official layouts, and a torchvision that imports where its build does not fit torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

_DECLARED: list[torch.library.Library] = []


@pytest.fixture(scope="session")
def torchvision() -> None:
    """timm and torch-fidelity import torchvision, but use none of its compiled operators.

    A torchvision built for CUDA has none of them beside a torch built for the CPU, and refuses to be imported for two
    that it wants to describe. Declaring those is enough.
    """
    try:
        import torchvision
    except RuntimeError as error:
        library = torch.library.Library("torchvision", "FRAGMENT")
        _DECLARED.append(library)  # it lives as long as its declarations
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            pytest.skip(f"torchvision does not fit this torch: {error}")
    except ImportError:
        pytest.skip("torchvision is not installed")


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that weights are looked for in; neither the user's caches nor the Hub are asked."""
    place = tmp_path / "weights"
    place.mkdir()
    monkeypatch.setenv("GANVAS_WEIGHTS", str(place))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch-hub"))
    away = ", and the Hub is out of reach"
    monkeypatch.setattr("ganvas.files.published._from_hub", lambda repository, file: (None, away))
    monkeypatch.setattr("ganvas.shelves.features.transformers_network._from_hub", lambda model: (None, away))
    return place
