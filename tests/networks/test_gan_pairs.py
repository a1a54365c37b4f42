"""What every generator and critic promises, and the facts about particular ones."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.errors import BadValue, UsageError
from ganvas.nn.gradients import input_gradient
from ganvas.parts import data_spec, image_spec
from ganvas.shelves.networks.gan.dcgan import DCGANDiscriminator, DCGANGenerator
from ganvas.shelves.networks.gan.sngan import SNGANDiscriminator, SNGANGenerator, critic_channels, generator_channels
from ganvas.types import Critic, DataSpec, Generator, Scores

SIZES = [(8, 8), (16, 16), (28, 28), (32, 48), (64, 64)]
GENERATORS = ["sngan-generator", "dcgan-generator", "dcgan-deep-generator"]
CRITICS = ["sngan-discriminator", "dcgan-discriminator", "dcgan-deep-discriminator"]
GENERATOR_VARIANTS = [
    *((name, {}) for name in GENERATORS),
    *((name, {"conditioning": "batch-norm"}) for name in GENERATORS),
    ("dcgan-generator", {"conditioning": "concat"}),
    ("sngan-generator", {"conditioning": "batch-norm", "attention": 8, "spectral_norm": True}),
    ("dcgan-deep-generator", {"attention": "block1", "spectral_norm": True}),
]
CRITIC_VARIANTS = [
    *((name, {"norm": norm}) for name in CRITICS for norm in ("spectral", "batch", "none")),
    *((name, {"conditioning": {"use": "projection"}}) for name in CRITICS),
    ("sngan-discriminator", {"conditioning": {"use": "projection"}, "attention": [8, "block3"]}),
    ("dcgan-deep-discriminator", {"attention": 8}),
]
SPEC = image_spec((3, 16, 16), 5)
LABEL = torch.tensor([0, 3, 4, 1])


def tiny(name: str, spec: DataSpec = SPEC, **keys: Any) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = parts.build("network", {"use": name, **parts.find("network", name).tiny, **keys}, spec)
    for module in net.modules():
        if hasattr(module, "gamma"):
            module.gamma.data.fill_(0.5)  # attention is the identity otherwise
    return net


def noise(net: nn.Module, n: int = 4) -> Tensor:
    assert isinstance(net, Generator)
    (space,) = net.latents.values()
    return torch.randn(n, *space.shape, generator=torch.Generator().manual_seed(1))


def generate(net: nn.Module, n: int = 4, label: Tensor | None = LABEL) -> Tensor:
    images: Tensor = net(noise(net, n), label)
    return images


def pictures(spec: DataSpec = SPEC, n: int = 4) -> Tensor:
    return torch.rand(n, *spec.shape, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize(("name", "keys"), GENERATOR_VARIANTS)
def test_generator_contract(name: str, keys: dict[str, Any]) -> None:
    net = tiny(name, **keys)
    images = generate(net)
    assert images.shape == (4, *SPEC.shape)
    assert images.abs().max() <= 1
    (images * torch.randn_like(images)).sum().backward()
    check_gradients(net)
    z = noise(net)
    check_state_and_batch(net, lambda net, rows: net(z[rows], LABEL[rows]))


@pytest.mark.parametrize(("name", "keys"), CRITIC_VARIANTS)
def test_critic_contract(name: str, keys: dict[str, Any]) -> None:
    net = tiny(name, **keys)
    assert isinstance(net, Critic)
    scores = net(pictures(), LABEL)
    assert isinstance(scores, Scores)
    assert scores.logits.shape == (4,)
    assert scores.features.shape[0] == 4
    assert scores.features.ndim == 2
    (scores.logits * torch.randn(4)).sum().backward()
    check_gradients(net)
    check_state_and_batch(net, lambda net, rows: net(pictures()[rows], LABEL[rows]).logits)


def check_gradients(net: nn.Module) -> None:
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def check_state_and_batch(net: nn.Module, run: Callable[[nn.Module, slice], Tensor]) -> None:
    """A copy from the state dict alone is the same function, and in eval mode a datum's result is its own."""
    net.eval()
    twin = copy.deepcopy(net)
    for parameter in twin.parameters():
        nn.init.zeros_(parameter)
    twin.load_state_dict(net.state_dict())
    with torch.no_grad():
        whole = run(net, slice(None))
        assert torch.equal(run(twin, slice(None)), whole)
        assert torch.equal(run(net, slice(None)), whole)
        torch.testing.assert_close(run(net, slice(1, 2)), whole[1:2], rtol=1e-4, atol=1e-4 * whole.abs().max().item())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_size_and_channel_count(size: tuple[int, int], channels: int) -> None:
    spec = image_spec((channels, *size))
    for generator, critic in zip(GENERATORS, CRITICS, strict=True):
        images = generate(tiny(generator, spec), n=2, label=None)
        assert images.shape == (2, channels, *size)
        assert tiny(critic, spec)(images).logits.shape == (2,)


@pytest.mark.parametrize("name", [*GENERATORS, *CRITICS])
@pytest.mark.parametrize("size", [(6, 6), (34, 40), (30, 30), (32, 50)], ids=str)
def test_impossible_sizes_are_refused_with_a_way_out(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(BadValue) as caught:
        tiny(name, image_spec((3, *size)))
    assert "x".join(map(str, size)) in caught.value.problem
    assert caught.value.hint == "data.size=32"


@pytest.mark.parametrize("name", [*GENERATORS, *CRITICS])
def test_data_that_are_no_images_are_refused(name: str) -> None:
    with pytest.raises(BadValue, match="images"):
        tiny(name, data_spec("audio", (1, 16000)))


def test_residual_widths_end_at_512_pixels() -> None:
    with pytest.raises(BadValue, match="512"):
        SNGANGenerator(image_spec((3, 1024, 1024)), width=8)
    assert generator_channels(64, 3) == [64] * 4
    assert generator_channels(64, 4) == [64, 32, 16, 8, 4]
    assert critic_channels(64, 4) == [4, 8, 16, 32, 64]
    assert generator_channels(4, 7)[-1] == 1  # never none


def test_labels_asked_for_and_not_there() -> None:
    unlabelled = image_spec((3, 16, 16))
    for name in GENERATORS:
        with pytest.raises(BadValue, match="no classes") as caught:
            tiny(name, unlabelled, conditioning="batch-norm")
        assert caught.value.key == "conditioning"
        with pytest.raises(UsageError, match="no labels"):
            generate(tiny(name, conditioning="batch-norm"), label=None)
    for name in CRITICS:
        with pytest.raises(BadValue, match="no classes") as caught:
            tiny(name, unlabelled, conditioning={"use": "projection"})
        assert caught.value.hint == "networks.discriminator.conditioning=plain"
        with pytest.raises(UsageError, match="no labels"):
            tiny(name, conditioning={"use": "projection"})(pictures())


def test_attention_stands_where_it_is_asked_for() -> None:
    generator = SNGANGenerator(image_spec((3, 64, 64)), width=16, attention=(16, 64))
    assert [type(block).__name__ for block in generator.blocks].index("SelfAttention") == 2
    assert type(generator.blocks[-1]).__name__ == "SelfAttention"
    critic = SNGANDiscriminator(image_spec((3, 32, 32)), width=16, attention="block3")
    assert type(critic.blocks[3]).__name__ == "SelfAttention"
    for place in (7, "block9", 0):
        with pytest.raises(BadValue, match="there are 16, 8 pixels") as caught:
            SNGANDiscriminator(image_spec((3, 32, 32)), width=16, attention=place)
        assert caught.value.key == "attention"


def test_head_by_name_by_node_and_by_factory_is_the_same() -> None:
    def scores(conditioning: Any) -> Tensor:
        torch.manual_seed(3)
        return SNGANDiscriminator(SPEC, width=8, conditioning=conditioning).eval()(pictures(), LABEL).logits

    node = functools.partial(parts.build, "conditioning", {"use": "projection"})
    assert torch.equal(scores("projection"), scores(node))


@pytest.mark.parametrize("name", CRITICS)
def test_projection_head_is_the_formula(name: str) -> None:
    net = tiny(name, conditioning={"use": "projection"}, norm="none").eval()
    scores = net(pictures(), LABEL)
    phi, head = scores.features, net.head
    psi = phi @ head.linear.weight[0] + (0 if head.linear.bias is None else head.linear.bias)
    expected = psi + torch.stack([head.embedding.weight[y] @ phi[n] for n, y in enumerate(LABEL)])
    torch.testing.assert_close(scores.logits, expected)


def test_class_vectors_are_spectrally_normalised_with_the_critic() -> None:
    net = tiny("sngan-discriminator", conditioning={"use": "projection"})
    for _ in range(100):
        net(pictures(), LABEL)
    net.eval()
    normed = [module for module in net.modules() if isinstance(getattr(module, "weight", None), Tensor)]
    assert net.head.embedding in normed
    for module in normed:
        sigma = torch.linalg.matrix_norm(module.weight.flatten(1), 2)
        assert abs(sigma.item() - 1) < 1e-3


@pytest.mark.system("sagan")
def test_sagan_pair_is_spectrally_normalised_throughout() -> None:
    generator = tiny("sngan-generator", conditioning="batch-norm", attention=8, spectral_norm=True)
    critic = tiny("sngan-discriminator", conditioning={"use": "projection"}, attention=8)
    for _ in range(60):
        critic(generate(generator), LABEL)
    layers = (nn.Conv2d, nn.Linear, nn.Embedding)
    for module in [*generator.eval().modules(), *critic.eval().modules()]:
        if isinstance(module, layers):
            sigma = torch.linalg.matrix_norm(module.weight.flatten(1), 2)
            assert abs(sigma.item() - 1) < 1e-3


@pytest.mark.parametrize("norm", ["spectral", "none"])
def test_gradient_penalties_train_through_the_critic(norm: str) -> None:
    net = tiny("sngan-discriminator", norm=norm, attention=8, conditioning={"use": "projection"})
    gradient = input_gradient(lambda x: net(x, LABEL).logits, pictures())
    gradient.square().sum().backward()
    weights = [each for name, each in net.named_parameters() if "conv1" in name and each.ndim > 1]
    assert weights
    assert all(each.grad is not None and each.grad.isfinite().all() and each.grad.any() for each in weights)


def test_the_critic_sums_over_pixels_and_skips_from_relu() -> None:
    """With residual branches silenced, a block without norms passes on relu(x) and features are sums."""
    net = tiny("sngan-discriminator", norm="none", width=4).eval()
    for block in net.blocks:
        block.conv2.weight.data.zero_()
    first = net.blocks[0](pictures())
    second = net.blocks[1](first)
    torch.testing.assert_close(second, net.blocks[1].skip(nn.functional.avg_pool2d(first.relu(), 2)))
    torch.testing.assert_close(net(pictures()).features, second.relu().sum((2, 3)))


@pytest.mark.system("dcgan")
def test_dcgan_has_the_example_s_parameter_counts() -> None:
    spec = image_spec((3, 64, 64))
    assert sum(each.numel() for each in DCGANGenerator(spec).parameters()) == 3_576_704
    assert sum(each.numel() for each in DCGANDiscriminator(spec).parameters()) == 2_765_568


@pytest.mark.system("dcgan")
def test_dcgan_starts_from_the_paper_s_noise() -> None:
    torch.manual_seed(0)
    spec = image_spec((3, 64, 64))
    for net in (DCGANGenerator(spec), DCGANDiscriminator(spec)):
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                tolerance = 0.02 if module.weight.numel() > 10_000 else 0.1  # 3,072 weights know their std to 1.3 %
                assert abs(module.weight.std().item() / 0.02 - 1) < tolerance
        weights = [each.flatten() for name, each in net.named_parameters() if each.ndim == 4]
        assert abs(torch.cat(weights).std().item() / 0.02 - 1) < 0.02
        gains = torch.cat([each.weight for each in net.modules() if isinstance(each, nn.BatchNorm2d)])
        assert abs(gains.mean().item() - 1) < 0.003
        assert abs(gains.std().item() / 0.02 - 1) < 0.15
