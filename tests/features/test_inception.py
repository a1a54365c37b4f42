"""The FID Inception: torch-fidelity's numbers, and those of ADM's spatial features, on weights of our own making."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from made_weights import inception_state, pictures, save

from ganvas.errors import MissingExtra
from ganvas.files.published import GivenWeights
from ganvas.shelves.features import inception
from ganvas.shelves.features.inception import Inception


@pytest.fixture(scope="module")
def weights(torchvision: None, tmp_path_factory: pytest.TempPathFactory) -> GivenWeights:
    return GivenWeights(save(inception_state(), tmp_path_factory.mktemp("inception") / "inception.pth"))


@pytest.fixture(scope="module")
def theirs(weights: GivenWeights) -> Any:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    asked = ["64", "192", "768", "2048", "logits_unbiased"]
    return FeatureExtractorInceptionV3("net", asked, feature_extractor_weights_path=weights.weights)


def close(ours: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((ours - other).abs().max() <= 1e-4 * other.std())


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (299, 299)])
def test_equals_torch_fidelity(size: tuple[int, int], weights: GivenWeights, theirs: Any) -> None:
    images = pictures(2, 3, *size)
    *lower, pooled, unbiased = theirs(((images + 1) * 127.5).round().byte())
    net = Inception(source=weights)
    features, logits = net(images)
    assert logits is not None
    assert close(features, pooled)
    assert close(logits, unbiased)
    assert net.classes == logits.shape[1] == 1008
    if size == (32, 32):
        for layer, expected in zip((64, 192, 768), lower, strict=True):
            found, none = Inception(layer=layer, source=weights)(images)
            assert close(found, expected)
            assert none is None


def test_spatial_features_are_seven_channels_of_the_first_branch_of_mixed_6(weights: GivenWeights, theirs: Any) -> None:
    """TensorFlow's `mixed_6/conv`, which is what torch calls Mixed_6d.branch1x1, laid out as its graph does."""
    images = pictures(2, 3, 40, 40)
    seen = []
    with torch.no_grad():
        handle = theirs.Mixed_6d.branch1x1.register_forward_hook(lambda _, __, out: seen.append(out))
        theirs(((images + 1) * 127.5).round().byte())
    handle.remove()
    assert seen[0].shape == (2, 192, 17, 17)
    features, logits = Inception(layer="spatial", source=weights)(images)
    assert features.shape == (2, 17 * 17 * 7)
    assert logits is None
    # ADM's evaluator reads TensorFlow's (N, 17, 17, 192) and cuts [..., :7].
    expected = seen[0].permute(0, 2, 3, 1)[..., :7].reshape(2, -1)
    assert close(features, expected)


def test_clean_features_are_those_of_pillows_image(weights: GivenWeights) -> None:
    import numpy as np
    from PIL import Image

    images = pictures(1, 3, 50, 70)
    net = Inception(resizer="clean", source=weights)
    levels = ((images[0] + 1) * 127.5).round().numpy()
    resized = [np.asarray(Image.fromarray(c, mode="F").resize((299, 299), Image.BICUBIC)).clip(0, 255) for c in levels]
    with torch.inference_mode():
        expected, _ = net.embed((torch.from_numpy(np.stack(resized))[None] - 128) / 128)
    assert close(net(images)[0], expected)
    assert not close(Inception(source=weights)(images)[0], expected)


def test_the_published_file_is_known_by_its_hash() -> None:
    assert all(name.endswith("-6726825d.pth") for name in inception.WEIGHTS.files)
    assert inception.WEIGHTS.url.endswith(inception.WEIGHTS.files[0])


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, weights: GivenWeights) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("torch_fidelity")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match="'inception' needs the package torch-fidelity") as caught:
        Inception(source=weights)
    assert 'pip install "ganvas[fidelity]"' in caught.value.hint


def test_a_hostile_file_does_not_run(tmp_path: Path, torchvision: None) -> None:
    import pickle

    from ganvas.errors import CheckpointError

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit('it ran')",)

    file = tmp_path / "inception.pth"
    file.write_bytes(pickle.dumps(Hostile(), protocol=2))
    with pytest.raises(CheckpointError, match="it is refused"):
        Inception(source=GivenWeights(file))
