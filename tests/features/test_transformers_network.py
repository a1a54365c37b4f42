"""Vision networks of transformers: their own outputs, from safetensors alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from made_weights import drawn, pictures

from ganvas import parts
from ganvas.errors import BadValue, CheckpointError, MissingExtra
from ganvas.files.published import sha256_of
from ganvas.recipe.check import check_node
from ganvas.shelves.features.resample import resample
from ganvas.shelves.features.transformers_network import Transformers

transformers: Any = pytest.importorskip("transformers", reason="needs the extra transformers")

pytestmark = pytest.mark.usefixtures("torchvision")  # which it imports where it is installed

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
ASKS = {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}


def stored(net: Any, place: Path, asks: dict[str, Any] = ASKS) -> Any:
    net.load_state_dict(drawn(net))
    net.save_pretrained(place)
    (place / "preprocessor_config.json").write_text(json.dumps(asks))
    return net.eval()


def vit(place: Path, asks: dict[str, Any] = ASKS) -> Any:
    return stored(transformers.ViTModel(transformers.ViTConfig(**SMALL, intermediate_size=64)), place, asks)


def test_outputs_are_the_networks_own(own_places: Path) -> None:
    theirs = vit(own_places / "someone" / "net")
    images = pictures(2, 3, 50, 40)
    levels = resample(((images + 1) * 127.5).round(), (32, 32), "clean") / 255
    x = (levels - torch.tensor(ASKS["image_mean"])[:, None, None]) / torch.tensor(ASKS["image_std"])[:, None, None]
    with torch.no_grad():
        out = theirs(pixel_values=x)
    wanted = {
        "pooled": out.pooler_output,
        "first": out.last_hidden_state[:, 0],
        "mean": out.last_hidden_state.mean(1),
    }
    for layer, expected in wanted.items():
        node = check_node("extractor", {"use": "transformers", "model": "someone/net", "layer": layer})
        net = parts.build("extractor", node)
        features, none = net(images)
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
        assert none is None
        assert net.provenance["layer"] == f"ViTModel {layer}, 32 values"
        assert net.provenance["sha256"] == sha256_of(own_places / "someone" / "net" / "model.safetensors")
        assert net.provenance["source"] == "someone/net"
    alone, _ = net(images[1:])
    assert (alone[0] - features[1]).norm() < 1e-5 * features[1].norm()


def test_takes_convolutional_networks_and_the_image_side_of_two(tmp_path: Path) -> None:
    small = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]}
    stored(transformers.ResNetModel(transformers.ResNetConfig(**small)), tmp_path / "resnet")
    pooled, _ = Transformers(model=str(tmp_path / "resnet"))(pictures(2))
    mean, _ = Transformers(model=str(tmp_path / "resnet"), layer="mean")(pictures(2))
    assert pooled.shape == (2, 16)
    torch.testing.assert_close(pooled, mean)
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50, "bos_token_id": 1}
    config = transformers.CLIPConfig(
        text_config={**text, "eos_token_id": 2}, vision_config={**SMALL, "intermediate_size": 64}, projection_dim=8
    )
    both = stored(transformers.CLIPModel(config), tmp_path / "clip")
    net = Transformers(model=str(tmp_path / "clip"))
    images = pictures(2)
    with torch.no_grad():
        expected = both.vision_model(pixel_values=net.intake(images)).pooler_output
    torch.testing.assert_close(net(images)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("asks", "side"),
    [
        ({"size": 48}, (48, 48)),
        ({"size": {"shortest_edge": 40}}, (40, 40)),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 24}, "do_center_crop": True}, (32, 24)),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 24}, "do_center_crop": False}, (40, 40)),
    ],
)
def test_size_is_what_the_preprocessor_ends_with(asks: dict[str, Any], side: tuple[int, int], tmp_path: Path) -> None:
    stored(
        transformers.ResNetModel(transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4)),
        tmp_path, {**ASKS, **asks},
    )  # fmt: skip
    assert Transformers(model=str(tmp_path)).intake.size == side


def test_what_is_missing_is_told(own_places: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no model 'someone/net'") as caught:
        Transformers(model="someone/net")
    assert "https://huggingface.co/someone/net" in caught.value.hint
    assert str(own_places / "someone/net") in caught.value.hint
    folder = tmp_path / "net"
    vit(folder)
    for name, said in (
        ("preprocessor_config.json", "preprocessor_config.json"),
        ("config.json", "config.json"),
        ("model.safetensors", "safetensors"),
    ):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        if name == "model.safetensors":
            torch.save({}, folder / "pytorch_model.bin")  # pickled weights do not help
        with pytest.raises(CheckpointError, match=f"lacks .*{said}"):
            Transformers(model=str(folder))
        (folder / name).write_bytes(content)
    Transformers(model=str(folder))


def test_what_is_damaged_or_of_another_network_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    vit(folder)
    whole = (folder / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="does not begin with"):
        Transformers(model=str(folder), sha256="0" * 8)
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="transformers cannot build it"):
        Transformers(model=str(folder))
    (folder / "model.safetensors").write_bytes(whole)
    for content in ("{", "[]", '{"size": "large"}'):
        (folder / "preprocessor_config.json").write_text(content)
        with pytest.raises(CheckpointError, match="does not say size and normalisation"):
            Transformers(model=str(folder))
    classifier = transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL, intermediate_size=64))
    stored(classifier, tmp_path / "classifier")
    with pytest.raises(CheckpointError, match=r"lack 2 tensors .* pooler"):  # else its values would be random
        Transformers(model=str(tmp_path / "classifier"))
    Transformers(model=str(tmp_path / "classifier"), layer="first")


def test_networks_of_other_things_than_images_are_bad_values(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50
    )
    stored(transformers.BertModel(config), tmp_path)
    with pytest.raises(BadValue, match="reads input_ids, not images"):
        Transformers(model=str(tmp_path))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match="'transformers' needs the package transformers") as caught:
        Transformers(model="someone/net")
    assert 'pip install "ganvas[transformers]"' in caught.value.hint
