"""timm's networks as extractors: the same functions as torchvision's and the authors' own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from made_weights import drawn, pictures, save

from ganvas.errors import MissingExtra
from ganvas.files.published import GivenWeights
from ganvas.shelves.features.resample import resample
from ganvas.shelves.features.timm_network import CLIP, SWAV, DINOv2, ResNet50, SwAV, Timm, TorchvisionInception

pytestmark = pytest.mark.usefixtures("torchvision")

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def imagenet(images: torch.Tensor, side: int) -> torch.Tensor:
    """What torchvision's networks expect of images in [-1, 1]."""
    resized = resample(((images + 1) * 127.5).round(), (side, side), "clean") / 255
    return (resized - MEAN[:, None, None]) / STD[:, None, None]


def close(ours: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((ours - other).abs().max() <= 1e-4 * other.std())


def test_resnet50_and_swav_are_torchvisions_network(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    theirs = resnet50(weights=None).eval()
    state = drawn(theirs)
    theirs.load_state_dict(state)
    images = pictures(2)
    with torch.no_grad():
        logits = theirs(imagenet(images, 224))
        theirs.fc = torch.nn.Identity()
        pooled = theirs(imagenet(images, 224))
    ours = ResNet50(source=GivenWeights(save(state, tmp_path / "resnet50.pth")))
    features, own_logits = ours(images)
    assert own_logits is not None
    assert close(features, pooled)
    assert close(own_logits, logits)
    # The authors' file: wrapped for several devices, with heads that are thrown away, without a classifier.
    official = {f"module.{name}": value for name, value in state.items() if not name.startswith("fc.")}
    official |= {"module.projection_head.0.weight": torch.zeros(2, 2), "module.prototypes.weight": torch.zeros(2, 2)}
    swav = SwAV(source=GivenWeights(save(official, tmp_path / SWAV.files[0])))
    features, none = swav(images)
    assert close(features, pooled)
    assert none is None
    assert swav.classes == 0


@pytest.mark.slow
def test_torchvisions_inception_is_torchvisions(tmp_path: Path) -> None:
    from torchvision.models import inception_v3

    theirs = inception_v3(weights=None, transform_input=True, init_weights=False).eval()
    state = drawn(theirs)
    assert any(name.startswith("AuxLogits.") for name in state)
    theirs.load_state_dict(state)
    images = pictures(2)
    with torch.no_grad():
        logits = theirs(imagenet(images, 299))
    ours = TorchvisionInception(source=GivenWeights(save(state, tmp_path / "inception.pth")))(images)
    assert close(ours[1], logits)


def test_dinov2_reads_positions_as_its_authors_do(tmp_path: Path) -> None:
    import timm

    state = drawn(timm.create_model("vit_small_patch14_dinov2"))
    state["pos_embed"] = 0.5 * torch.randn(1, 1 + 37 * 37, 384, generator=torch.Generator().manual_seed(1))
    official = {**state, "mask_token": torch.zeros(1, 384)}
    file = GivenWeights(save(official, tmp_path / "dinov2_vits14_pretrain.pth"))
    images = pictures(2)
    ours = DINOv2(size="small", source=file)
    features, logits = ours(images)
    assert features.shape == (2, 384)
    assert logits is None

    # Oquab et al.'s interpolate_pos_encoding: 16 patches and a tenth, over 37
    grid = state["pos_embed"][:, 1:].reshape(1, 37, 37, 384).permute(0, 3, 1, 2)
    fewer = F.interpolate(grid, scale_factor=((16 + 0.1) / 37, (16 + 0.1) / 37), mode="bicubic")
    assert fewer.shape[2:] == (16, 16)
    positions = torch.cat([state["pos_embed"][:, :1], fewer.permute(0, 2, 3, 1).reshape(1, 256, 384)], 1)
    plain = timm.create_model("vit_small_patch14_dinov2", img_size=224).eval()
    plain.load_state_dict({**state, "pos_embed": positions})
    with torch.no_grad():
        tokens = plain.forward_features(imagenet(images, 224))
    assert close(features, tokens[:, 0])
    other = Timm(model="vit_small_patch14_dinov2", size=224, source=GivenWeights(save(state, tmp_path / "plain.pth")))
    assert not close(other(images)[0], features)  # timm's own resampling is not the authors'


@pytest.mark.slow
def test_clips_embedding_is_its_projection(tmp_path: Path) -> None:
    import timm

    name = "vit_base_patch32_clip_quickgelu_224.openai"
    state = drawn(timm.create_model(name))
    file = GivenWeights(save(state, tmp_path / "clip.safetensors"))
    images = pictures(2)
    embedding, none = CLIP(model=name, source=file)(images)
    pooled, _ = CLIP(model=name, layer="pooled", source=file)(images)
    assert none is None
    assert close(embedding, pooled @ state["head.weight"].T + state["head.bias"])


def test_default_names_are_weights_that_timm_knows() -> None:
    import timm

    known = set(timm.list_pretrained())
    for size in ("tiny", "small", "base", "large"):
        assert f"swin_{size}_patch4_window7_224.ms_in22k_ft_in1k" in known
    for size in ("tiny", "small", "base", "large", "xlarge"):
        assert f"convnext_{size}.fb_in22k" in known
    for size in ("small", "base", "large", "giant"):
        assert f"vit_{size}_patch14_dinov2.lvd142m" in known
    for size in ("small", "base"):
        assert {f"vit_{size}_patch8_224.dino", f"vit_{size}_patch16_224.dino"} <= known
    assert {
        "resnet50.tv_in1k", "inception_v3.tv_in1k", "vit_large_patch14_clip_quickgelu_336.openai",
        "vit_large_patch14_clip_224.datacompxl",
    } <= known  # fmt: skip


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match="extractor 'resnet50' needs the package timm") as caught:
        ResNet50()
    assert 'pip install "ganvas[timm]"' in caught.value.hint
