"""The critic of a run as extractor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from made_weights import pictures

import ganvas
from ganvas import parts
from ganvas.errors import BadValue, CheckpointError, MissingCapability
from ganvas.files.files import read_tensors, write_tensors
from ganvas.files.published import sha256_of
from ganvas.recipe.check import check_node
from ganvas.shelves.features.critic import CriticFeatures
from ganvas.training.train import train


@pytest.fixture(scope="module")
def classifying_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose critic classifies, too."""
    folder = tmp_path_factory.mktemp("classifying") / "run"
    head = "networks.discriminator.conditioning=auxiliary-classifier"
    train("tiny/digits", head, "train.steps=2", "eval=", out=folder, device="cpu")
    return folder


def test_features_are_those_of_the_models_critic(trained_run: Path) -> None:
    node = check_node("extractor", {"use": "critic", "run": str(trained_run)})
    net = parts.build("extractor", node)
    model = ganvas.load(trained_run)
    images = pictures(4, *model.spec.shape)
    label = torch.tensor([3, 1, 4, 1]) if model.spec.num_classes else None
    with torch.no_grad():
        expected = model.critic(images, label).features
    features, _ = net(images)
    torch.testing.assert_close(features, expected.flatten(1), rtol=1e-4, atol=1e-5)
    assert features.std(0).norm() > 0
    assert net.name == "critic"
    assert net.provenance["sha256"] == sha256_of(trained_run / "model.safetensors")
    assert "discriminator" in net.provenance["source"]
    assert "step 2" in net.provenance["source"]
    assert net.provenance["layer"].endswith(f"features, {features.shape[1]} values")
    file = CriticFeatures(run=trained_run / "model.safetensors")
    assert torch.equal(file(images)[0], features)


def test_takes_any_image_and_each_by_itself(trained_run: Path) -> None:
    net = CriticFeatures(run=trained_run)
    images = pictures(3, 3, 20, 31)
    features, _ = net(images)
    alone, _ = net(images[1:2])
    assert (alone[0] - features[1]).norm() < 1e-5 * features[1].norm()
    assert (features[0] - features[1]).norm() > 1e-3 * features[1].norm()
    byte = ((images + 1) * 127.5).round().byte()
    assert torch.equal(net(byte.float() / 127.5 - 1)[0], features)
    grey = images[:, :1]
    assert torch.equal(net(grey.expand(-1, 3, -1, -1))[0], net(grey)[0])
    assert "antialias" in net.provenance["resizer"]
    assert not torch.allclose(CriticFeatures(run=trained_run, resizer="legacy")(images)[0], features, rtol=1e-3)


def test_a_classifying_critic_gives_logits_of_its_classes(classifying_run: Path) -> None:
    net = CriticFeatures(run=classifying_run)
    model = ganvas.load(classifying_run)
    images = pictures(4, *model.spec.shape)
    with torch.no_grad():
        expected = model.critic(images, None).extra["class_logits"]
    features, logits = net(images)
    assert net.classes == model.spec.num_classes == 10
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    as_features, again = CriticFeatures(run=classifying_run, layer="logits")(images)
    assert torch.equal(as_features, logits)
    assert torch.equal(again, logits)
    assert features.shape[1] != 10


def test_asks_for_nothing_that_is_not_there(trained_run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="has no critic 'generator'"):
        CriticFeatures(run=trained_run, role="generator")
    with pytest.raises(BadValue, match="gives no logits"):
        CriticFeatures(run=trained_run, layer="logits")
    with pytest.raises(CheckpointError, match="there is no model"):
        CriticFeatures(run=tmp_path)
    (tmp_path / "model.safetensors").write_bytes((trained_run / "model.safetensors").read_bytes()[:-50])
    with pytest.raises(CheckpointError):
        CriticFeatures(run=tmp_path)


def test_a_model_without_a_critic_lacks_the_capability(trained_run: Path, tmp_path: Path) -> None:
    tensors, metadata = read_tensors(trained_run / "model.safetensors")
    content = json.loads(metadata["ganvas"])
    del content["recipe"]["networks"]["discriminator"]
    rest = {name: value for name, value in tensors.items() if not name.startswith("discriminator.")}
    write_tensors(tmp_path / "model.safetensors", rest, {"ganvas": json.dumps(content)})
    with pytest.raises(MissingCapability, match="needs a critic of images; the model has networks generator"):
        CriticFeatures(run=tmp_path)


def test_points_of_a_plane_are_no_images(tmp_path: Path) -> None:
    train("tiny/gaussians-mlp", "train.steps=1", "eval=", out=tmp_path / "run", device="cpu")
    with pytest.raises(MissingCapability, match="critic of images"):
        CriticFeatures(run=tmp_path / "run")
