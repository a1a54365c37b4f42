"""What the catalogue says of BigGAN. Equality with the reference code is in tests/parity and tests/networks."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

import ganvas
from ganvas import parts
from ganvas.model import Model
from ganvas.parts import image_spec
from ganvas.types import Generator, LatentSpec

pytestmark = pytest.mark.system("biggan")
IMAGENET128 = image_spec((3, 128, 128), 1000)


@pytest.mark.parametrize(
    ("name", "keys", "count"),
    [
        ("biggan-generator", {"width": 1536, "z_dim": 120}, 70_433_988),
        ("biggan-discriminator", {"width": 1536}, 87_982_370),
        # The paper's 50.4 million count a last convolution to 128 channels, of which three are used.
        ("biggan-deep-generator", {"width": 2048, "z_dim": 128}, 50_388_609 - 125 * (128 * 9 + 1)),
        ("biggan-deep-discriminator", {"width": 2048}, 34_590_210),
    ],
)
def test_parameter_counts_at_128_pixels(name: str, keys: dict[str, int], count: int) -> None:
    conditioning = "shared" if name.endswith("generator") else {"use": "projection"}
    with torch.device("meta"):
        node = {"use": name, "conditioning": conditioning, "attention": 64, **keys}
        net: nn.Module = parts.build("network", node, IMAGENET128)
    assert sum(each.numel() for each in net.parameters()) == count


class Echo(Generator):
    """A generator whose image is an eighth of its latent, which keeps it within the range of images."""

    latents = {"z": LatentSpec((1024,))}  # noqa: RUF012
    conditional = False

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return latent.reshape(-1, 1, 32, 32) / 8


@pytest.mark.parametrize("a", [0.5, 1.0, 2.0])
def test_truncated_latents_have_the_std_of_a_truncated_normal(a: float) -> None:
    model = Model({"sampler": {"use": "plain"}}, image_spec((1, 32, 32)), {"generator": Echo()})
    z = 8 * model.sample(200, seed=0, sampler={"use": "truncated", "threshold": a})
    expected = math.sqrt(1 - 2 * a * norm.pdf(a) / (2 * norm.cdf(a) - 1))
    assert z.abs().max() <= a
    assert abs(z.std().item() / expected - 1) < 0.01


def orthogonality(net: nn.Module) -> Tensor:
    turn = SimpleNamespace(nets={"generator": net}, real=torch.zeros(1))
    value: Tensor = parts.build("regularizer", {"use": "orthogonal"})(turn)
    return value


def test_the_orthogonal_penalty_is_its_equation() -> None:
    """R(W) = ‖W Wᵀ ⊙ (1 − I)‖_F², whose gradient is 4 (W Wᵀ ⊙ (1 − I)) W."""
    layer = nn.Linear(9, 4)
    nn.init.orthogonal_(layer.weight)
    assert orthogonality(layer).item() < 1e-9
    nn.init.normal_(layer.weight)
    value = orthogonality(layer)
    value.backward()
    W = layer.weight.detach()
    off = W @ W.T * (1 - torch.eye(4))
    torch.testing.assert_close(value, off.square().sum())
    torch.testing.assert_close(layer.weight.grad, 4 * off @ W)
    assert layer.bias.grad is None


def test_the_orthogonal_penalty_reaches_every_matrix_of_the_generator_but_the_embedding() -> None:
    torch.manual_seed(0)
    node = {"use": "biggan-generator", "width": 16, "z_dim": 8, "conditioning": "shared", "attention": 8}
    net: nn.Module = parts.build("network", node, image_spec((3, 16, 16), 5))
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    orthogonality(net).backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == (parameter.ndim > 1 and name != "shared.weight"), name


TAUS = (2.0, 1.0, 0.5, 0.1)


def fidelity_and_variety(model: Model, tau: float) -> tuple[float, float]:
    """Mean confidence of the digit net, and mean distance of two images of one class."""
    label = torch.arange(10).repeat(40)
    images = model.sample(400, seed=1, label=label, sampler={"use": "truncated", "threshold": tau})
    with torch.no_grad():
        _, logits = parts.build("extractor", {"use": "digit-net"})(images)
    distances = [torch.pdist(images[label == each].flatten(1)).mean().item() for each in range(10)]
    return logits.softmax(1).amax(1).mean().item(), sum(distances) / len(distances)


@pytest.mark.slow
def test_lower_thresholds_trade_variety_for_fidelity(tmp_path: Path) -> None:
    """A claim on digits, shown on seeds 0, 1 and 2: about two minutes of training, then four thresholds."""
    model = ganvas.train(
        "tiny/digits-biggan",
        "data={use: digits, split: train}",
        "networks.generator={use: biggan-generator, width: 32, z_dim: 32, conditioning: shared, shared_dim: 16}",
        "networks.discriminator={use: biggan-discriminator, width: 32, conditioning: projection}",
        "optim={use: adam, lr: 0.0005, betas: [0.0, 0.9], roles: {discriminator: {lr: 0.001}}}",
        "train={steps: 1500, batch: 64, channels_last: true, log_every: 500, checkpoint_every: 1500}",
        "eval=",
        out=tmp_path / "run",
        device="cpu",
    )
    confidence, distance = zip(*(fidelity_and_variety(model, tau) for tau in TAUS), strict=True)
    assert list(distance) == sorted(distance, reverse=True)
    assert list(confidence) == sorted(confidence)
