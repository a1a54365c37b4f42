"""BigGAN and BigGAN-deep: what every pair promises, and the facts about these."""

from __future__ import annotations

import functools
from typing import Any, Literal

import pytest
import torch
from test_gan_pairs import LABEL, check_gradients, check_state_and_batch, generate, noise, pictures, tiny
from torch import nn
from torch.nn import functional as F

from ganvas.errors import BadValue, UsageError
from ganvas.nn.init import orthogonal
from ganvas.nn.norms import ConditionalBatchNorm2d
from ganvas.nn.residual import CriticBlock
from ganvas.parts import data_spec, image_spec
from ganvas.shelves.networks.gan.biggan import BigGANGenerator
from ganvas.shelves.networks.gan.biggan_deep import BigGANDeepGenerator, DeepCriticBlock, DeepGeneratorBlock
from ganvas.types import Critic, Scores

GENERATORS = ["biggan-generator", "biggan-deep-generator"]
CRITICS = ["biggan-discriminator", "biggan-deep-discriminator"]
GENERATOR_VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in GENERATORS),
    *((name, {"conditioning": "shared", "attention": 8}) for name in GENERATORS),
    *((name, {"conditioning": "shared", "spectral_norm": False}) for name in GENERATORS),
    ("biggan-generator", {"conditioning": "batch-norm"}),
    ("biggan-generator", {"conditioning": "shared", "hierarchical": False}),
    ("biggan-generator", {"hierarchical": False, "z_dim": 7}),
    ("biggan-deep-generator", {"depth": 1, "width": [24, 16, 8]}),
]
CRITIC_VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"norm": norm}) for name in CRITICS for norm in ("spectral", "none")),
    *((name, {"conditioning": {"use": "projection"}, "attention": [8, "block3"]}) for name in CRITICS),
    *((name, {"skip": "relu"}) for name in CRITICS),
    ("biggan-discriminator", {"norm": "batch"}),
    ("biggan-discriminator", {"wide": False}),
    ("biggan-deep-discriminator", {"depth": 3}),
]


@pytest.mark.parametrize(("name", "keys"), GENERATOR_VARIANTS)
def test_generator_contract(name: str, keys: dict[str, Any]) -> None:
    net = tiny(name, **keys)
    images = generate(net)
    assert images.shape == (4, 3, 16, 16)
    assert images.abs().max() <= 1
    assert net.conditional == (keys.get("conditioning") is not None)
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
    (scores.logits * torch.randn(4)).sum().backward()
    check_gradients(net)
    check_state_and_batch(net, lambda net, rows: net(pictures()[rows], LABEL[rows]).logits)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 48), (64, 64)], ids=str)
@pytest.mark.parametrize("channels", [1, 4])
def test_every_size_and_channel_count(size: tuple[int, int], channels: int) -> None:
    spec = image_spec((channels, *size))
    for generator, critic in zip(GENERATORS, CRITICS, strict=True):
        images = generate(tiny(generator, spec), n=2, label=None)
        assert images.shape == (2, channels, *size)
        assert tiny(critic, spec)(images).logits.shape == (2,)


@pytest.mark.parametrize("name", [*GENERATORS, *CRITICS])
def test_impossible_sizes_are_refused_with_a_way_out(name: str) -> None:
    for size in ((6, 6), (34, 40), (1024, 1024)):
        with pytest.raises(BadValue, match="x".join(map(str, size))) as caught:
            tiny(name, image_spec((3, *size)))
        assert caught.value.hint == "data.size=32"
    with pytest.raises(BadValue, match="images"):
        tiny(name, data_spec("audio", (1, 16000)))


def test_listed_widths_say_how_often_the_image_is_halved() -> None:
    net = BigGANGenerator(image_spec((3, 64, 96)), width=(8, 8, 4), z_dim=9)
    assert net.stem_shape == (8, 16, 24)
    assert generate(net, 2, None).shape == (2, 3, 64, 96)
    for widths, size, word in (((8, 4, 2), 30, "2 times"), ((8,), 32, "one after each")):
        with pytest.raises(BadValue, match=word) as caught:
            BigGANGenerator(image_spec((3, size, size)), width=widths)
        assert caught.value.key == "width"
    with pytest.raises(BadValue, match="never rise"):
        BigGANDeepGenerator(image_spec((3, 32, 32)), width=(8, 16, 8))


def test_the_latent_is_cut_into_equal_chunks() -> None:
    spec = image_spec((3, 64, 64), 5)
    assert BigGANGenerator(spec, width=16, z_dim=128).latents["z"].shape == (125,)  # 5 chunks of 25, as published
    assert BigGANGenerator(spec, width=16, z_dim=128, hierarchical=False).latents["z"].shape == (128,)
    with pytest.raises(BadValue, match="5 chunks") as caught:
        BigGANGenerator(spec, width=16, z_dim=4)
    assert caught.value.key == "z_dim"
    with pytest.raises(RuntimeError):
        BigGANGenerator(spec, width=16, z_dim=10)(torch.randn(2, 12))


def test_each_chunk_enters_at_its_block() -> None:
    """Block k's output depends on the first chunk and on chunks 1 to k, and on no later one."""
    net = BigGANGenerator(image_spec((3, 32, 32)), width=8, z_dim=8).eval()
    z, seen = torch.randn(1, 8), []
    for block in net.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    net(z)
    for chunk in range(4):
        changed = z.clone()
        changed[:, 2 * chunk : 2 * chunk + 2] += 1
        before, seen[:] = seen[-3:], []
        net(changed)
        assert [not torch.equal(*pair) for pair in zip(before, seen, strict=True)] == [k >= chunk - 1 for k in range(3)]
        net(z)


def test_labels_asked_for_and_not_there() -> None:
    for name in GENERATORS:
        with pytest.raises(BadValue, match="no classes") as caught:
            tiny(name, image_spec((3, 16, 16)), conditioning="shared")
        assert caught.value.key == "conditioning"
        with pytest.raises(UsageError, match="no labels"):
            generate(tiny(name, conditioning="shared"), label=None)
    with pytest.raises(UsageError, match="no labels"):
        generate(tiny("biggan-generator", conditioning="batch-norm"), label=None)


def test_the_class_embedding_is_the_one_weight_that_is_not_normalised() -> None:
    for name in GENERATORS:
        net = tiny(name, conditioning="shared", attention=8)
        free = {key for key, value in net.named_parameters() if value.ndim > 1 and "original" not in key}
        assert free == {"shared.weight"}
        rows = net.shared.weight
        torch.testing.assert_close(rows.T @ rows, torch.eye(4), atol=1e-5, rtol=0)  # 5 classes in 4 dimensions


@pytest.mark.parametrize("skip", ["input", "relu"])
def test_skips_with_silent_residuals(skip: Literal["input", "relu"]) -> None:
    x = pictures(image_spec((8, 6, 6)))
    passed = x if skip == "input" else x.relu()
    pooled = F.avg_pool2d(passed, 2)
    block = CriticBlock(
        8, 12, lambda channels: nn.Identity(), orthogonal, first=False, halve=True, wide=True, skip=skip
    )
    nn.init.zeros_(block.conv2.weight)
    torch.testing.assert_close(block(x), block.skip(pooled))
    deep = DeepCriticBlock(8, 12, orthogonal, halve=True, skip=skip)
    nn.init.zeros_(deep.conv4.weight)
    torch.testing.assert_close(deep(x), torch.cat([pooled, deep.skip(pooled)], 1))
    same = DeepCriticBlock(8, 8, orthogonal, halve=False, skip=skip)
    nn.init.zeros_(same.conv4.weight)
    assert torch.equal(same(x), passed)


def test_deep_generator_blocks_drop_the_last_channels() -> None:
    x = pictures(image_spec((8, 3, 3)))
    norm = functools.partial(ConditionalBatchNorm2d, condition_dim=2, init=orthogonal)
    block = DeepGeneratorBlock(8, 4, norm, orthogonal, upsample=True)
    nn.init.zeros_(block.conv4.weight)
    expected = x[:, :4].repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(block(x, torch.randn(4, 2)), expected)
