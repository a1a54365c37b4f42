"""SeFa's directions and ours on the same weights. Cases are found as in `test_parity`; -s shows the deviations."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ganvas.interop.registry import OfficialCase
from ganvas.nn.directions import sefa

DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "golden"
FOLDERS = [Path(each) for each in os.environ.get("GANVAS_GOLDEN", str(DEFAULT)).split(os.pathsep) if each]


def cases() -> list[OfficialCase]:
    sidecars = [path for folder in FOLDERS for path in sorted(folder.glob("*/*.json"))]
    sidecars = [path for path in sidecars if "utils.factorize_weight" in path.read_text()]
    return [OfficialCase.read(path.with_suffix(".safetensors")) for path in sidecars]


def test_sefa() -> None:
    """The official eigenvectors are in no order, and their signs are arbitrary."""
    found = cases()
    if not found:
        pytest.skip("no golden case of SeFa; set GANVAS_GOLDEN")
    for case in found:
        weights = [value for key, value in case.inputs.items() if key.startswith("style_weight.")]
        if case.kwargs.get("gan_type", "").startswith("stylegan"):
            weights = [weight.flatten(1) for weight in weights]
        directions, values = sefa(weights)
        order = case.outputs["eigen_values"].argsort(descending=True)
        official, boundaries = case.outputs["eigen_values"][order], case.outputs["boundaries"][order]
        deviation = (values - official).abs().max() / official.std()
        cosine = (directions * boundaries).sum(1).abs()
        print(f"SeFa: eigenvalues {deviation:.1e} of the spread, |cosine| at least {cosine.min():.6f}")  # noqa: T201
        assert deviation < 1e-4
        assert cosine.min() > 0.9999
