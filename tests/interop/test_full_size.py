"""Published sizes: state dicts in official layout with random weights, and how many parameters they have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ganvas
from ganvas import parts
from ganvas.interop.checkpoints import import_checkpoint
from ganvas.interop.official import export_official
from ganvas.model import Model
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.types import DataSpec

pytestmark = pytest.mark.slow

# BigGAN at ch 96: also what google/compare_gan's tests count. Brock et al. 2019, table 1: 158.3 M together.
BIGGAN = {"generator": 70_433_988, "discriminator": 87_982_370}
# StyleGAN2 at 256 pixels with half of the channels, `paper256` of NVIDIA's program.
STYLEGAN2 = {"generator": 24_767_458, "discriminator": 24_001_089}
# Rows of the tables that this program prints, for layers of the same widths (its repository's issue 182 and
# open-mmlab/mmgeneration's issue 394).
ROWS = {
    "mapping.fc0": 262_656, "synthesis.b4.conv1": 2_622_465, "synthesis.b4.torgb": 264_195,
    "synthesis.b8.conv0": 2_622_465, "synthesis.b64.conv0": 1_442_561, "synthesis.b64.conv1": 721_409,
    "synthesis.b64.torgb": 132_099, "synthesis.b128.conv0": 426_369, "synthesis.b128.conv1": 213_249,
    "synthesis.b128.torgb": 66_051, "synthesis.b256.conv0": 139_457,
}  # fmt: skip

NETWORKS: dict[str, dict[str, dict[str, Any]]] = {
    "biggan": {
        "generator": {
            "use": "biggan-generator", "width": 1536, "z_dim": 120, "conditioning": "shared", "shared_dim": 128,
            "attention": 64,
        },
        "discriminator": {
            "use": "biggan-discriminator", "width": 1536, "conditioning": "projection", "attention": 64,
        },
    },
    "stylegan2-ada": {
        "generator": {"use": "stylegan2-generator", "channel_base": 16384, "clamp": 256.0},
        "discriminator": {"use": "stylegan2-discriminator", "channel_base": 16384, "clamp": 256.0},
    },
}  # fmt: skip
FIXED = re.compile(r"\.(u0|sv0|stored_mean|stored_var|resample_filter|noise_const|w_avg)$")


def learnt(state: Mapping[str, Tensor]) -> int:
    """Parameters of an official state dict."""
    return sum(each.numel() for name, each in state.items() if not FIXED.search(name))


def made(family: str, role: str, spec: DataSpec, monkeypatch: pytest.MonkeyPatch) -> Model:
    """One network with random weights; orthogonal ones would take a minute."""
    node = check_node("network", NETWORKS[family][role])
    with monkeypatch.context() as patch:
        patch.setattr(nn.init, "orthogonal_", lambda weight, *_: weight.data.normal_(0, 0.02))
        net = parts.build("network", node, spec)
    return Model({"networks": {role: node}}, spec, {role: net})


@pytest.mark.parametrize("role", ["generator", "discriminator"])
def test_biggan_of_imagenet_at_128_pixels(role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("biggan", role, image_spec((3, 128, 128), 1000), monkeypatch)
    file = tmp_path / "official.pth"
    export_official(model, "biggan", file, role=role)
    official = torch.load(file, weights_only=True)
    assert learnt(official) == BIGGAN[role]
    found = import_checkpoint(file, "biggan")
    assert found.parameters == {role: BIGGAN[role]}
    assert found.spec == image_spec((3, 128, 128), 1000)
    for key, value in found.imported[role].net.state_dict().items():  # type: ignore[index]
        torch.testing.assert_close(value, model.nets[role].state_dict()[key], rtol=0, atol=1e-5)
    if role == "generator":
        found.save(tmp_path / "model.safetensors")
        images = ganvas.load(tmp_path / "model.safetensors").sample(2, seed=0, label=207)
        assert images.shape == (2, 3, 128, 128) and bool(images.isfinite().all())


def test_stylegan2_of_ffhq_at_256_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = image_spec((3, 256, 256))
    one = {role: made("stylegan2-ada", role, spec, monkeypatch) for role in STYLEGAN2}
    networks = {role: model.recipe["networks"][role] for role, model in one.items()}
    both = Model({"networks": networks}, spec, {role: model.nets[role] for role, model in one.items()})
    file = tmp_path / "official.pt"
    export_official(both, "stylegan2-ada", file)
    official = torch.load(file, weights_only=True)
    assert {"generator": learnt(official["G_ema"]), "discriminator": learnt(official["D"])} == STYLEGAN2
    for row, count in ROWS.items():
        own = {name: each for name, each in official["G_ema"].items() if name.startswith(f"{row}.")}
        assert learnt(own) == count, row
    found = import_checkpoint(file, "stylegan2-ada")
    assert found.parameters == STYLEGAN2
    found.save(tmp_path / "model.safetensors")
    assert ganvas.load(tmp_path / "model.safetensors").sample(1, seed=0).shape == (1, 3, 256, 256)
