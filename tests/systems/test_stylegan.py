"""What the catalogue says of StyleGAN: adaptive normalisation, mixing, truncation, noise, growth, path length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganvas import parts
from ganvas.errors import BadValue
from ganvas.model import Model
from ganvas.nn.growing import double, halve
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.shelves.metrics.perceptual_path_length import path_distances, trimmed_mean
from ganvas.shelves.networks.style.spaces import crossed
from ganvas.shelves.networks.style.stylegan import StyleGANGenerator, adain
from ganvas.training.train import train
from ganvas.types import NO_CONDITION, Condition, DataSpec, Extractor, Latent, LatentSpec

pytestmark = pytest.mark.system("stylegan")

SPEC = image_spec((3, 16, 16), 4)
TINY = {"z_dim": 6, "w_dim": 5, "channel_base": 64, "channel_max": 8, "mapping": {"layers": 2}}
WIDTHS = {"channel_base": 64, "channel_max": 8}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def network(role: str, spec: DataSpec = SPEC, **keys: Any) -> Any:
    return parts.build("network", check_node("network", {"use": f"stylegan-{role}", **keys}), spec)


def generator(spec: DataSpec = SPEC, *, noise: float = 0.5, **keys: Any) -> StyleGANGenerator:
    """One whose layers add noise of this strength, which is 0 at the start of training."""
    net: StyleGANGenerator = network("generator", spec, **{**TINY, **keys})
    for name, parameter in net.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(noise)
    return net


# ------------------------------------------------------------------------------------------- layers


def test_adaptive_normalisation_gives_each_channel_the_mean_and_deviation_of_the_style() -> None:
    x = 3 * torch.randn(4, 7, 9, 5) + 2
    scale, shift = torch.rand(4, 7) + 0.5, torch.randn(4, 7)
    y = adain(x, scale, shift)
    torch.testing.assert_close(y.mean((2, 3)), shift, atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std((2, 3), correction=0), scale, atol=1e-4, rtol=0)
    torch.testing.assert_close(adain(100 * x - 7, scale, shift), y, atol=1e-4, rtol=1e-3)


def test_a_style_scales_by_one_where_w_says_nothing() -> None:
    """The bias of y_s is 1 and that of y_b 0, so that a layer with w = 0 is normalised and nothing more."""
    layer = generator().blocks[1].style0
    x = torch.randn(3, 8, 8, 8)
    y = layer(x, torch.zeros(3, 5), "none")
    torch.testing.assert_close(y.mean((2, 3)), torch.zeros(3, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std((2, 3), correction=0), torch.ones(3, 8), atol=1e-4, rtol=0)


def test_noise_is_one_map_with_a_strength_for_each_channel() -> None:
    layer = generator().blocks[1].style0
    layer.noise_strength.data = torch.arange(8.0)
    seen: list[Tensor] = []
    layer.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    x = torch.zeros(2, 8, 8, 8)
    added = F.leaky_relu(torch.arange(8.0)[:, None, None] * layer.noise_const, 0.2)  # (C, H, W)
    expected = adain(added.expand(2, -1, -1, -1), torch.ones(2, 8), torch.zeros(2, 8))
    torch.testing.assert_close(layer(x, torch.zeros(2, 5), "const"), expected)


def test_maps_are_doubled_convolved_and_smoothed() -> None:
    """Borders included: nearest doubling, the convolution, the binomial filter."""
    block = generator().blocks[2]
    x = torch.randn(2, block.conv0.weight.shape[1], 8, 8)
    gain = (2 / block.conv0.weight[0].numel()) ** 0.5
    y = F.conv2d(double(x), gain * block.conv0.weight.flip((2, 3)), padding=1)
    taps = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (taps[:, None] * taps).expand(y.shape[1], 1, 3, 3)
    y = F.conv2d(y, kernel, padding=1, groups=y.shape[1])
    ws = torch.randn(2, 2, 5)
    expected = block.style1(block.conv1(block.style0(y, ws[:, 0], "const"), 2**0.5), ws[:, 1], "const")
    torch.testing.assert_close(block(x, ws, "const"), expected, atol=1e-4, rtol=1e-3)


def test_parameter_counts_are_the_published_ones() -> None:
    """26.2 M at 1024 pixels, in 18 layers (Karras et al. 2019, section 2); the critic's are those of ProGAN's."""
    with torch.device("meta"):
        nets = [network(role, image_spec((3, 1024, 1024))) for role in ("generator", "discriminator")]
    generator, critic = (sum(each.numel() for each in net.parameters()) for net in nets)
    assert generator == 26_212_019 and abs(generator / 26.2e6 - 1) < 0.01
    assert critic == 23_077_137
    assert nets[0].layers == 18


# ------------------------------------------------------------------------------------------- styles


def test_mixing_from_the_first_or_beyond_the_last_layer_is_one_image() -> None:
    net = generator().eval()
    a, b = (net.to_space(Latent(torch.randn(3, 6)), "w+").values for _ in range(2))
    L = a.shape[1]
    assert L == 6
    torch.testing.assert_close(net.draw(crossed(a, b, 0)), net.draw(b))
    torch.testing.assert_close(net.draw(crossed(a, b, L)), net.draw(a))
    images = [net.draw(crossed(a, b, at)) for at in range(L + 1)]
    assert all(not torch.allclose(images[at], images[at + 1]) for at in range(L))


def test_training_mixes_a_share_of_the_batches() -> None:
    z = torch.randn(2, 6)
    net = generator(mixing=0.0, noise=0.0)
    assert torch.equal(net(z), net(z))
    always = generator(mixing=1.0, noise=0.0)
    alone = always.draw(always.broadcast(always.map(z)), "none")
    assert all(not torch.allclose(always(z), alone) for _ in range(5))


def test_the_mean_of_w_follows_training_and_truncation_goes_to_it() -> None:
    net = generator(average_decay=0.9)
    for _ in range(100):
        net(torch.randn(64, 6))
    w = net.map(torch.randn(4000, 6))
    assert (net.centre.values[0] - w.mean(0)).abs().max() < 0.1 * w.std()
    net.eval()
    model = Model({"sampler": {"use": "plain"}}, SPEC, {"generator": net})

    def images(psi: float, cutoff: int | None = None) -> Tensor:
        return model.sample(6, seed=3, sampler={"use": "style", "psi": psi, "cutoff": cutoff})

    still = images(0.0)
    torch.testing.assert_close(still, still[:1].expand_as(still))
    torch.testing.assert_close(images(1.0), model.sample(6, seed=3))
    torch.testing.assert_close(images(0.0, 0), images(1.0))
    assert not torch.allclose(images(0.5), images(1.0)) and not torch.allclose(images(0.5, 2), images(0.5))


def test_without_noise_an_image_is_a_function_of_w() -> None:
    net, w = generator(noise=0.0), Latent(torch.randn(3, 5), "w")
    assert net.noisy and net.training
    assert torch.equal(net.from_space(w), net.from_space(w))
    noisy = generator(noise=0.5)
    assert not torch.allclose(noisy.from_space(w), noisy.from_space(w))
    assert torch.equal(noisy.noised(w, noise="none"), noisy.noised(w, noise="none"))
    noisy.eval()
    assert torch.equal(noisy.from_space(w), noisy.noised(w, noise="const"))


def test_labels_reach_w_where_they_are_asked_for() -> None:
    net = generator(conditioning="mapping").eval()
    z = torch.randn(2, 6)
    assert not torch.allclose(net(z, torch.tensor([0, 1])), net(z, torch.tensor([1, 0])))
    with pytest.raises(BadValue, match="no classes"):
        network("generator", image_spec((3, 16, 16)), conditioning="mapping")


# ------------------------------------------------------------------------------------------- growth


@pytest.mark.parametrize("size", [4, 8])
def test_growing_begins_with_the_old_image_and_the_old_score(size: int) -> None:
    small, large = image_spec((3, size, size)), image_spec((3, 2 * size, 2 * size))
    old, new = generator(small, noise=0.0), generator(large, noise=0.0, fade=0.0)
    new.load_state_dict(new.adopted(old.state_dict()))
    z, x = torch.randn(4, 6), torch.randn(4, 3, 2 * size, 2 * size)
    assert torch.equal(new.eval()(z), double(old.eval()(z)))
    assert torch.equal(new.centre.values, old.centre.values)
    critic, grown = network("discriminator", small, **WIDTHS), network("discriminator", large, **WIDTHS, fade=0.0)
    grown.load_state_dict(grown.adopted(critic.state_dict()))
    torch.testing.assert_close(grown(x).logits, critic(halve(x)).logits, atol=1e-6, rtol=1e-6)
    new.knobs()["fade"](1.0)
    assert not torch.allclose(new(z), double(old(z)))


# ------------------------------------------------------------------------------------------- path length


class Linear:
    """G(w) = A w with w = z³, as a 1 x 1 x D image in float64."""

    spec, num_classes = image_spec((1, 1, 6)), 0
    latents: ClassVar[Mapping[str, LatentSpec]] = {"z": LatentSpec((6,)), "w": LatentSpec((6,), "none")}

    def __init__(self) -> None:
        self.A = torch.randn(6, 6, dtype=torch.float64)

    def draw(self, n: int, *, seed: int, space: str | None = None, label: Tensor | None = None) -> Latent:
        z = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return Latent(z**3 if space == "w" else z, space or "z")

    def labels(self, n: int, *, seed: int, label: object = None) -> Tensor | None:
        return None

    def synthesize(self, latent: Latent, condition: Condition = NO_CONDITION) -> Tensor:
        assert latent.space == "w"
        return (latent.values @ self.A.T).view(-1, 1, 1, 6)


class Pixels(Extractor):
    name, classes = "pixels", 0
    provenance: ClassVar[dict[str, str]] = {}

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        return images.flatten(1), None


def test_path_length_in_w_of_a_linear_generator_is_that_of_the_straight_line() -> None:
    """E ‖A (w2 − w1)‖², whatever the step."""
    model, n = Linear(), 500
    w1, w2 = model.draw(2 * n, seed=0, space="w").values.split(n)
    expected = ((w2 - w1) @ model.A.T).square().sum(1).mean().item()
    for epsilon in (1e-4, 1e-2):
        found = path_distances(model, Pixels(), samples=n, space="w", epsilon=epsilon).mean()
        assert found == pytest.approx(expected, rel=1e-2)


@pytest.mark.slow
def test_path_length_of_trained_toys_in_both_spaces(tmp_path: Path) -> None:
    """Digits at 8 pixels, 600 steps of 32, three seeds: shorter in w (134 to 180) than in z (485 to 709)."""
    extractor = parts.build("extractor", {"use": "digit-net"})
    for number in range(3):
        model = train(Recipe(TOY), f"train.seed={number}", out=tmp_path / str(number), device="cpu")
        found = {
            space: trimmed_mean(path_distances(model, extractor, samples=1000, space=space)) for space in ("z", "w")
        }
        print(number, found)  # noqa: T201
        assert found["w"] < found["z"], number


TOY = {
    "data": {"use": "digits", "size": 8},
    "networks": {
        "generator": {"use": "stylegan-generator", "z_dim": 32, "w_dim": 32, "channel_base": 256, "channel_max": 32},
        "discriminator": {"use": "stylegan-discriminator", "channel_base": 256, "channel_max": 32},
    },
    "task": {"use": "adversarial", "objective": "non-saturating", "regularizers": {"r1": {"weight": 1}}},
    "optim": {"use": "adam", "lr": 0.0025, "betas": [0.0, 0.99]},
    "ema": {"decay": 0.99},
    "train": {"steps": 600, "batch": 32, "checkpoint_every": 600},
}
