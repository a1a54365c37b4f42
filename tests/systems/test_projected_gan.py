"""Projected GAN (Sauer et al. 2021): frozen features that gradients pass through, mixed at random, judged per level.

Parity with the authors' mixers, critics and generators is in tests/parity (`projgan_*`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas import parts
from ganvas.errors import BadValue, CheckpointError, MissingExtra
from ganvas.nn.projection import FeatureMixer, Frozen
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.types import Batch, DataSpec, Facts

pytestmark = pytest.mark.system("projected-gan")

SPEC = image_spec((1, 16, 16), num_classes=10)
TINY = {"width": 8, "critic_widths": (8, 8)}
OWN = {"use": "sngan-discriminator", "width": 8, "norm": "none"}


def build(name: str, spec: DataSpec = SPEC, seed: int = 0, **keys: object) -> nn.Module:
    torch.manual_seed(seed)
    return parts.build("network", check_node("network", {"use": name, **keys}), spec)


def critic(seed: int = 0, **keys: object) -> nn.Module:
    return build("projected-gan-discriminator", seed=seed, **{**TINY, **keys})


def images(n: int = 4, seed: int = 1) -> Tensor:
    return torch.rand(n, *SPEC.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ------------------------------------------------------------------------------------------- frozen


def frozen_state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items() if name.startswith(("features.", "mixer."))}


@pytest.mark.parametrize(("backbone", "steps"), [(None, 100), (OWN, 10)], ids=["random", "own"])
def test_features_and_mixers_stay_as_they_are_while_both_networks_learn(backbone: dict | None, steps: int) -> None:
    nets = {
        "generator": build("projected-gan-generator", width=2, z_dim=4, lite=True),
        "discriminator": critic(backbone=backbone),
    }
    before = frozen_state(nets["discriminator"])
    assert before
    start = {role: [each.clone() for each in net.parameters()] for role, net in nets.items()}
    task = parts.build("task", check_node("task", {"use": "adversarial", "objective": "hinge"}), nets, Facts(SPEC))
    optim = {role: torch.optim.Adam(net.train().parameters(), lr=1e-3) for role, net in nets.items()}
    for step in range(steps):
        for update in task.updates():
            (role,) = update.nets
            optim[role].zero_grad()
            losses = update.losses(Batch.labelled(images(seed=step), torch.zeros(4).long()), step)
            torch.stack(list(losses.values())).sum().backward()
            optim[role].step()
    after = frozen_state(nets["discriminator"])
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for role, net in nets.items():
        assert all(not torch.equal(a, b) for a, b in zip(start[role], net.parameters(), strict=True) if a.dim() > 1)


@pytest.mark.parametrize("backbone", [None, OWN, {**OWN, "norm": "spectral"}], ids=["random", "own", "spectral"])
def test_nothing_frozen_is_a_parameter_and_all_of_it_is_saved(backbone: dict | None) -> None:
    net, other = critic(backbone=backbone), critic(seed=1, backbone=backbone)
    assert not any(name.startswith(("features", "mixer")) for name, _ in net.named_parameters())
    assert not torch.equal(net(images()).logits, other(images()).logits)
    other.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(images()).logits, other.eval()(images()).logits)


def test_a_frozen_network_never_leaves_eval_mode() -> None:
    inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    net = nn.Sequential(Frozen(inner)).train()
    mean = inner[1].running_mean.clone()
    x = torch.randn(4, 1, 8, 8, requires_grad=True)
    net(x).sum().backward()
    assert torch.equal(inner[1].running_mean, mean)
    assert x.grad.any()
    assert list(net.parameters()) == []


def test_every_level_moves_the_image() -> None:
    net, x = critic(levels=2), images().requires_grad_()
    logits, _ = net.critics(net.project(x), None)
    assert len(logits) == 2
    for level in logits:
        (slope,) = torch.autograd.grad(level.sum(), x, retain_graph=True)
        assert slope.norm() > 0


# ------------------------------------------------------------------------------------------- mixing


def maps_of(channels: tuple[int, ...], size: int = 32) -> list[Tensor]:
    return [torch.randn(2, c, size >> i, size >> i) for i, c in enumerate(channels)]


@pytest.mark.parametrize(
    ("keys", "channels", "sizes"),
    [
        ({}, (8, 8, 16, 32), (64, 32, 16, 8)),
        ({"expand": False}, (8, 8, 8, 8), (64, 32, 16, 8)),
        ({"scales": False}, (8, 16, 32, 64), (32, 16, 8, 4)),
    ],
)
def test_shapes_of_mixed_maps(keys: dict[str, bool], channels: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    mixer = FeatureMixer((3, 5, 7, 9), width=8, **keys)
    mixed = mixer(maps_of((3, 5, 7, 9)))
    assert [tuple(x.shape) for x in mixed] == [(2, c, s, s) for c, s in zip(channels, sizes, strict=True)]
    assert tuple(mixer.outputs) == channels


# Sauer et al. 2021, section 3.2: from the coarsest level on, add, double the resolution, mix the channels
def test_mixing_across_scales_is_add_enlarge_and_mix_from_the_coarsest_map_on() -> None:
    mixer, maps = FeatureMixer((3, 5, 7), width=4).double(), [x.double() for x in maps_of((3, 5, 7))]
    expected: list[Tensor] = []
    for i in (2, 1, 0):
        x = mixer.channel_mixers[i](maps[i])
        x = x + expected[0] if expected else x
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        expected.insert(0, mixer.scale_mixers[i](x))
    for ours, each in zip(mixer(maps), expected, strict=True):
        torch.testing.assert_close(ours, each)


@pytest.mark.parametrize(("mixing", "finest"), [("scales", (8, 16, 16)), ("channels", (8, 8, 8)), ("none", (32, 8, 8))])
def test_mixing_can_be_left_out(mixing: str, finest: tuple[int, ...]) -> None:
    assert tuple(critic(mixing=mixing).project(images())[0].shape[1:]) == finest


# ------------------------------------------------------------------------------------------- backbones


def test_a_critic_of_ours_as_backbone_gives_its_maps_from_the_finest_on() -> None:
    maps = critic(backbone=OWN).features(images())
    sizes = [x.shape[2] for x in maps]
    assert sizes == sorted(set(sizes), reverse=True)
    assert all(4 <= size < 16 for size in sizes)


def test_weights_of_the_backbone_are_read_and_saved_with_the_model(tmp_path: Path) -> None:
    trained = build("sngan-discriminator", seed=5, width=8, norm="none")
    file = tmp_path / "backbone.safetensors"
    save_file({f"discriminator.{name}": value.clone() for name, value in trained.state_dict().items()}, file)
    net = critic(backbone=OWN, weights=str(file))
    inner = net.features.net.net
    assert all(torch.equal(inner.state_dict()[name], value) for name, value in trained.state_dict().items())
    with torch.no_grad():
        expected = net.eval()(images()).logits
    file.unlink()
    other = critic(seed=1, backbone=OWN, weights=str(file)).eval()
    with pytest.raises(BadValue, match="there are no weights"):
        other(images())
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(images()).logits, expected)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(2)}, file)
    with pytest.raises(CheckpointError, match="not those of the backbone"):
        critic(backbone=OWN, weights=str(file))


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(BadValue, match="both name"):
        critic(backbone=OWN, timm="resnet18")
    with pytest.raises(BadValue, match="no weights to read"):
        critic(weights="somewhere.safetensors")
    with pytest.raises(BadValue, match="widths"):
        build("projected-gan-discriminator", image_spec((3, 64, 64)), width=8, critic_widths=(8,))


def test_without_timm_its_networks_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match="needs the package timm"):
        critic(timm="resnet18")


# ------------------------------------------------------------------------------------------- the generator


def test_latents_live_on_a_sphere() -> None:
    net = build("projected-gan-generator", width=2, z_dim=6).eval()
    z = torch.randn(3, 6)
    torch.testing.assert_close(net(5 * z), net(z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lite", [False, True])
def test_classes_reach_all_norms_after_the_first(lite: bool) -> None:
    net = build("projected-gan-generator", width=2, z_dim=6, lite=lite, conditioning="batch-norm")
    z = torch.randn(1, 6).expand(2, -1)
    one, other = net.eval()(z, torch.tensor([1, 2]))
    assert not torch.equal(one, other)


def test_numbers_of_parameters_at_the_published_size() -> None:
    with torch.device("meta"):
        full, lite = (build("projected-gan-generator", image_spec((3, 256, 256)), lite=lite) for lite in (False, True))
    assert sum(each.numel() for each in full.parameters()) == 105_684_175
    assert sum(each.numel() for each in lite.parameters()) == 79_354_307
