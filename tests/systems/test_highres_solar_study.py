"""Cherti et al. 2023 (solar images): what sees fine detail, and a comparison of recipes that comes out the same twice.

The blind A/B page belongs to the studio, and diffusion is not built yet; neither is tested here. The third recipe of
the comparison is FastGAN. More of the metrics is in tests/metrics/test_power_spectrum.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ganvas import cli, parts
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics.fine_detail import HighPassDistance, PatchDistance, gaussian_blur
from ganvas.shelves.metrics.power_spectrum import SpectralDistance
from ganvas.types import Evidence, EvidenceSet

pytestmark = pytest.mark.system("highres-solar-study")

SIGMAS = (0.5, 1.0, 1.5, 2.0)


def pictures(seed: int) -> torch.Tensor:
    """(N, 3, 256, 256) uint8: large for their blur, as the solar images are; at 128 pixels contrast falls by 6 %."""
    dataset = parts.build("dataset", check_node("dataset", {"use": "shapes", "count": 24, "size": 256, "seed": seed}))
    data = dataset.batch(np.arange(24), np.random.default_rng(0)).data
    return ((data + 1) * 127.5).round().byte()


@pytest.mark.filterwarnings("ignore:24 samples cannot fill a covariance")  # it rises all the same
def test_blur_raises_distances_of_fine_detail_and_leaves_the_whole_alone() -> None:
    net = parts.build("extractor", check_node("extractor", "random-net"))
    real = pictures(0)
    found = []
    for sigma in (None, *SIGMAS):
        fake = real if sigma is None else gaussian_blur(real.float(), sigma).round().byte()
        case = Evidence(EvidenceSet(images=real), EvidenceSet(images=fake), extractor=net)
        found.append({**HighPassDistance()(case), **SpectralDistance()(case), **PatchDistance()(case)})
        for of_all in (torch.mean, torch.std):
            assert of_all(fake.float()).item() == pytest.approx(of_all(real.float()).item(), rel=0.05)
    for name in ("high_pass_distance", "spectral_distance", "spectral_shape_distance", "patch_distance"):
        values = [each[name] for each in found]
        print(name, [f"{value:.3g}" for value in values])  # noqa: T201
        assert (np.diff(values) > 0).all(), (name, values)


STUDY = """
summary: three generators on one budget
recipes: {style: tiny/digits-stylegan2, projected: tiny/digits-projected-gan, fast: tiny/digits-fastgan}
overrides: [data.size=32, train.steps=STEPS, train.batch=8, train.checkpoint_every=STEPS, eval.protocol=PROTOCOL]
metrics: [frechet_distance, high_pass_distance, spectral_distance]
seeds: [0, 1, 2]
"""
PROTOCOL = """
reference: {use: digits, split: test, size: 32, limit: 200}
extractor: random-net
samples: 200
metrics: {frechet-distance: {}, high-pass-distance: {}, spectral-distance: {}}
seeds: [0]
halves: 0
"""


@pytest.mark.slow
def test_three_recipes_on_one_budget_make_one_table_and_the_same_one_again(tmp_path: Path) -> None:
    (tmp_path / "fine.yaml").write_text(PROTOCOL)
    file = tmp_path / "three.yaml"
    file.write_text(STUDY.replace("STEPS", "4").replace("PROTOCOL", str(tmp_path / "fine.yaml")))
    tables = []
    for name in ("one", "again"):
        assert cli.run(["bench", str(file), "--out", str(tmp_path / name), "--jobs", "2"]) == 0
        tables.append(json.loads((tmp_path / name / "table.json").read_text()))
    assert tables[0] == tables[1]
    assert {cell["recipe"] for cell in tables[0]["cells"]} == {"style", "projected", "fast"}
    for cell in tables[0]["cells"]:
        assert not cell["failures"]
        assert all(len(values) == 3 for values in cell["values"].values())
    print((tmp_path / "one" / "table.md").read_text())  # noqa: T201
