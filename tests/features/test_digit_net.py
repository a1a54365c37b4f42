"""The bundled classifier: accuracy on digits it never saw, any image, any batch, damaged files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F

from ganvas import parts
from ganvas.errors import CheckpointError, UsageError
from ganvas.shelves.features import digit_net
from ganvas.shelves.features.digit_net import DigitNet, read_weights
from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features
from ganvas.types import Batch

FILE = Path(str(digit_net.WEIGHTS))


def digits(split: str) -> Batch:
    dataset = parts.build("dataset", {"use": "digits", "split": split})
    return dataset.batch(np.arange(len(dataset)), np.random.default_rng(0))


@pytest.fixture(scope="module")
def held_out() -> Batch:
    return digits("test")


def test_knows_digits_that_it_never_saw(held_out: Batch) -> None:
    net = parts.build("extractor", {"use": "digit-net"})
    features, logits = net(held_out.data)
    assert features.shape == (500, 64)
    assert logits.shape == (500, net.classes)
    assert features.dtype == logits.dtype == torch.float32
    assert (logits.argmax(1) == held_out.label).float().mean() >= 0.98
    assert (features.std(0) > 0.01).all()  # no dead feature


def test_the_file_says_where_it_comes_from() -> None:
    net = DigitNet()
    assert net.provenance["sha256"] == hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert FILE.stat().st_size < 300_000
    with safetensors.safe_open(FILE, "pt") as file:
        about = json.loads(file.metadata()["provenance"])
    pixels = ((digits("train").data + 1) * 127.5).round().byte().numpy()
    assert about["data_sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()  # it has seen the split that is
    assert float(about["test_accuracy"]) >= 0.98
    assert {"script", "seed", "torch", "train_accuracy", "data_licence"} <= set(about)


def test_an_8x8_grey_image_reaches_the_network_unchanged(held_out: Batch) -> None:
    network, _ = read_weights(digit_net.WEIGHTS)
    features, logits = network(held_out.data[:8])
    ours = DigitNet()(held_out.data[:8])
    assert torch.equal(ours[0], features)
    assert torch.equal(ours[1], logits)


def test_larger_and_coloured_digits_are_read_as_well(held_out: Batch) -> None:
    x, label = held_out.data, held_out.label
    net = DigitNet()
    for image in (
        F.interpolate(x, scale_factor=4, mode="bilinear"),
        F.interpolate(x, scale_factor=3, mode="nearest").expand(-1, 3, -1, -1),
        torch.cat([torch.ones_like(x).expand(-1, 3, -1, -1), x], dim=1),  # white ink whose alpha is the digit
        torch.cat([torch.ones_like(x), x], dim=1),
        x.expand(-1, 5, -1, -1),
    ):
        assert (net(image)[1].argmax(1) == label).float().mean() > 0.95
    assert net(torch.zeros(2, 3, 5, 40))[0].shape == (2, 64)


def test_the_batch_does_not_matter(held_out: Batch) -> None:
    net = DigitNet()
    x = torch.cat([held_out.data, held_out.data])  # more than one internal batch
    together = net(x)
    for size in (1, 7):
        for whole, alone in zip(together, net(x[:size]), strict=True):
            torch.testing.assert_close(whole[:size], alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together[0][:500], together[0][500:], rtol=1e-4, atol=1e-4)


def test_distances_in_its_features_grow_with_every_disturbance(held_out: Batch) -> None:
    x = held_out.data
    net = DigitNet()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(x.shape, generator=generator)
    corner = torch.randint(0, 5, (len(x), 2), generator=generator)

    def blurred(level: int) -> torch.Tensor:
        kernel = torch.tensor([level, 8.0, level]) / (8 + 2 * level)
        padded = F.pad(x, (1, 1, 1, 1), value=-1.0)
        return F.conv2d(padded, torch.outer(kernel, kernel)[None, None])

    def covered(level: int) -> torch.Tensor:
        y = x.clone()
        for image, (row, column) in zip(y, corner, strict=True):
            image[:, row : row + level, column : column + level] = -1
        return y

    disturbances = {
        "noise": [x + 0.2 * level * noise for level in range(1, 5)],
        "blur": [blurred(2 * level) for level in range(1, 5)],
        "rectangles": [covered(level) for level in range(1, 5)],
    }
    reference, _ = net(digits("train").data)
    for name, levels in disturbances.items():
        distances = [frechet_distance_of_features(reference, net(y)[0]) for y in (x, *levels)]
        assert distances == sorted(distances), name
        assert len(set(distances)) == 5, name


def test_refuses_what_is_no_stack_of_images() -> None:
    with pytest.raises(UsageError, match=r"not \(8, 8\)"):
        DigitNet()(torch.zeros(8, 8))


def test_missing_and_damaged_weights_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = FILE.read_bytes()
    damaged = {
        "missing": None,
        "empty": b"",
        "cut short": raw[:-100],
        "garbage": b"\xff" * 1000,
        "another network": safetensors.torch.save({"weight": torch.zeros(3)}),
    }
    for name, content in damaged.items():
        file = tmp_path / f"{name}.safetensors"
        if content is not None:
            file.write_bytes(content)
        monkeypatch.setattr(digit_net, "WEIGHTS", file)
        with pytest.raises(CheckpointError) as caught:
            DigitNet()
        assert str(file) in str(caught.value), name
        assert "train_digit_net.py" in caught.value.hint
