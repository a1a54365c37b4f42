"""What holds for every extractor whose weights come from elsewhere, on weights of our own making."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from made_weights import drawn, inception_state, pictures, save

from ganvas import parts
from ganvas.errors import BadValue, CheckpointError, UsageError
from ganvas.recipe.check import check_node
from ganvas.shelves.features import lpips
from ganvas.shelves.features.inception import WEIGHTS as INCEPTION
from ganvas.types import Extractor

Make = Callable[[Path], Mapping[str, Any]]


def of_timm(part: str, model: str, /, **keys: Any) -> tuple[str, Make]:
    def make(place: Path) -> Mapping[str, Any]:
        import timm

        return {"use": part, **keys, "weights": str(save(drawn(timm.create_model(model)), place / "net.safetensors"))}

    return part, make


def of_swav() -> tuple[str, Make]:
    def make(place: Path) -> Mapping[str, Any]:
        import timm

        state = drawn(timm.create_model("resnet50", num_classes=0))
        more = {"projection_head.0.weight": torch.zeros(2, 2), "prototypes.weight": torch.zeros(2, 2)}
        wrapped = {f"module.{name}": value for name, value in {**state, **more}.items()}
        return {"use": "swav", "weights": str(save(wrapped, place / "swav.pth.tar"))}

    return "swav", make


def of_inception(**keys: Any) -> tuple[str, Make]:
    def make(place: Path) -> Mapping[str, Any]:
        return {"use": "inception", **keys, "weights": str(save(inception_state(), place / "inception.pth"))}

    return "inception", make


def of_lpips(net: str) -> tuple[str, Make]:
    def make(place: Path) -> Mapping[str, Any]:
        trunk = lpips.TRUNKS[net]
        state = {f"features.{name}": value for name, value in drawn(lpips._BUILD[net]()).items()}
        linear = {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in enumerate(trunk.widths)}
        return {
            "use": "lpips", "net": net, "weights": str(save(state, place / "net.pth")),
            "linear": str(save(linear, place / "linear.pth")),
        }  # fmt: skip

    return "lpips", make


CASES = {
    "inception": of_inception(),
    "inception-spatial": of_inception(layer="spatial", resizer="clean"),
    "timm": of_timm("timm", "test_vit", model="test_vit.r160_in1k"),
    "timm-head": of_timm("timm", "test_convnext", model="test_convnext.r160_in1k", layer="head", resizer="antialias"),
    "timm-size": of_timm("timm", "test_vit", model="test_vit.r160_in1k", size=64),
    "torchvision-inception": of_timm("torchvision-inception", "inception_v3.tv_in1k"),
    "resnet50": of_timm("resnet50", "resnet50"),
    "swav": of_swav(),
    "dino": of_timm("dino", "vit_small_patch16_224.dino", patch=16),
    "dinov2": of_timm("dinov2", "vit_small_patch14_dinov2", size="small"),
    "clip": of_timm("clip", "vit_base_patch32_clip_224.openai", model="vit_base_patch32_clip_224.openai"),
    "swin": of_timm("swin", "swin_tiny_patch4_window7_224", size="tiny"),
    "convnext": of_timm("convnext", "convnext_tiny.fb_in22k", size="tiny"),
    "lpips-alex": of_lpips("alex"),
    "lpips-vgg": of_lpips("vgg"),
    "lpips-squeeze": of_lpips("squeeze"),
}
HEAVY = {"torchvision-inception", "resnet50", "dino", "clip", "swin", "convnext"}  # as `timm`, with another name
LIGHT = ["timm", "timm-head", "timm-size", "lpips-alex", "lpips-squeeze", "inception-spatial"]


def test_every_extractor_with_weights_of_others_is_here() -> None:
    theirs = {part.name for part in parts.every("extractor") if "weights" in part.fields()}
    assert theirs == {part for part, _ in CASES.values()}


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in HEAVY)) for case in CASES])
def test_is_a_function_of_each_image_alone(case: str, tmp_path: Path) -> None:
    part, make = CASES[case]
    node = make(tmp_path)
    net: Extractor = parts.build("extractor", check_node("extractor", dict(node)))
    assert net.name == part
    images = pictures(3, 3, 36, 48)
    features, logits = net(images)
    assert features.shape[0] == 3
    assert features.dtype == torch.float32
    assert features.isfinite().all()
    assert not features.requires_grad
    assert (logits is None) == (net.classes == 0)
    if logits is not None:
        assert logits.shape == (3, net.classes)
    spread = features.std(0).norm()
    assert spread > 0
    alone, _ = net(images[1:2])
    assert (alone[0] - features[1]).norm() < 1e-5 * features[1].norm()
    assert (features[0] - features[1]).norm() > 100 * (alone[0] - features[1]).norm()
    width = features.shape[1]
    assert set(net.provenance) == {"sha256", "layer", "resizer", "source"}
    assert len(net.provenance["sha256"]) == 64
    assert part in case
    assert str(width) in net.provenance["layer"] or part == "lpips"


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("case", LIGHT)
def test_takes_any_image_and_rounds_it_to_8_bits(case: str, tmp_path: Path) -> None:
    net: Extractor = parts.build("extractor", check_node("extractor", dict(CASES[case][1](tmp_path))))
    rgb = pictures(2, 3, 33, 50)
    byte = ((rgb + 1) * 127.5).round().byte()
    # The same picture as bytes, as floats that were bytes, and as floats that round to them.
    expected, _ = net(byte.float() / 127.5 - 1)
    assert torch.equal(net(rgb)[0], expected)
    assert torch.equal(net(rgb + 0.4 / 255)[0], expected)
    assert torch.equal(net(rgb.double())[0], expected)
    grey = rgb[:, :1]
    assert torch.equal(net(grey)[0], net(grey.expand(-1, 3, -1, -1))[0])
    opaque = torch.cat([rgb, torch.ones_like(grey)], dim=1)
    assert torch.equal(net(opaque)[0], expected)
    clear = torch.cat([rgb, -torch.ones_like(grey)], dim=1)
    assert torch.equal(net(clear)[0], net(torch.ones_like(rgb))[0])
    with pytest.raises(UsageError, match="images"):
        net(torch.zeros(3, 8, 8))


@pytest.mark.usefixtures("torchvision")
def test_resizers_differ_and_are_recorded(tmp_path: Path) -> None:
    node = dict(CASES["timm"][1](tmp_path))
    images, found = pictures(2, 3, 200, 200), {}
    for resizer in ("clean", "legacy", "antialias"):
        net = parts.build("extractor", check_node("extractor", {**node, "resizer": resizer}))
        assert net.provenance["resizer"].startswith(resizer)
        found[resizer] = net(images)[0]
    assert not torch.allclose(found["clean"], found["legacy"], rtol=1e-3)
    assert not torch.allclose(found["clean"], found["antialias"], rtol=1e-3)


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("case", ["inception", "timm", "swav", "lpips-alex", "dinov2"])
def test_weights_of_another_network_are_refused(case: str, tmp_path: Path) -> None:
    node = dict(CASES[case][1](tmp_path))
    file = Path(node["weights"])
    other = save({"weight": torch.zeros(3)}, tmp_path / f"other{file.suffix}")
    with pytest.raises(CheckpointError, match="its weights are not those of") as caught:
        parts.build("extractor", check_node("extractor", {**node, "weights": str(other)}))
    assert str(other) in str(caught.value)
    assert "https://" in caught.value.hint
    raw = file.read_bytes()
    cut = tmp_path / f"cut{file.suffix}"
    cut.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(CheckpointError, match=str(cut)):
        parts.build("extractor", check_node("extractor", {**node, "weights": str(cut)}))


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("part", sorted({part for part, _ in CASES.values()} - {"timm"}))
def test_absent_weights_are_told_with_their_address(part: str, own_places: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        parts.build("extractor", check_node("extractor", part))
    assert "https://" in caught.value.hint
    assert str(own_places) in caught.value.hint
    assert caught.value.where == part


@pytest.mark.usefixtures("torchvision")
def test_the_usual_places_are_enough_and_official_files_are_read(own_places: Path, tmp_path: Path) -> None:
    import timm

    state = drawn(timm.create_model("test_resnet"))
    save(state, own_places / "test_resnet.r160_in1k.safetensors")
    short = parts.build("extractor", check_node("extractor", {"use": "timm", "model": "test_resnet"}))
    full = parts.build("extractor", check_node("extractor", {"use": "timm", "model": "test_resnet.r160_in1k"}))
    assert torch.equal(short(pictures(1))[0], full(pictures(1))[0])  # the first weights of an architecture
    save(inception_state(), tmp_path / "torch-hub" / "checkpoints" / INCEPTION.files[1])
    with pytest.raises(CheckpointError, match="does not begin with 6726825d"):  # found, and not the published one
        parts.build("extractor", check_node("extractor", "inception"))


@pytest.mark.usefixtures("torchvision")
def test_unknown_models_layers_and_sizes_are_bad_values(tmp_path: Path) -> None:
    for model, said in (("resnet50.nobody", "nobody"), ("no_such_net", "no_such_net")):
        with pytest.raises(BadValue, match=said):
            parts.build("extractor", check_node("extractor", {"use": "timm", "model": model}))
    resnet = dict(of_timm("timm", "test_resnet", model="test_resnet.r160_in1k", size=64)[1](tmp_path))
    with pytest.raises(BadValue, match="one size alone"):
        parts.build("extractor", check_node("extractor", resnet))
    dino = dict(of_timm("timm", "vit_small_patch16_224.dino", model="vit_small_patch16_224.dino")[1](tmp_path))
    with pytest.raises(BadValue, match="ends in its pooled features"):
        parts.build("extractor", check_node("extractor", {**dino, "layer": "head"}))


def test_listing_imports_no_package_of_networks() -> None:
    program = (
        "import sys; from ganvas import parts\n"
        "names = [part.name for part in parts.every('extractor')]\n"
        "assert {'timm', 'inception', 'lpips', 'critic'} <= set(names)\n"
        "[part.fields() for part in parts.every('extractor')]\n"
        "assert not {'timm', 'transformers', 'torch_fidelity', 'torchvision', 'huggingface_hub'} & set(sys.modules)\n"
    )
    listed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
