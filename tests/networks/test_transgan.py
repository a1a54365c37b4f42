"""TransGAN (Jiang et al. 2021): places, windows, stages, and what its networks refuse.

The catalogue has no row for it. Parity is in tests/parity (`transgan_*`), at other sizes and options in
tests/networks/test_interop_transformers.py.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ganvas import parts
from ganvas.errors import BadValue
from ganvas.nn.relative_position import RelativePositionBias, distances
from ganvas.nn.windows import join_windows, split_windows
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.networks.transformer.transgan import GridAttention
from ganvas.types import DataSpec


def build(use: str, spec: DataSpec, **keys: object) -> nn.Module:
    return parts.build("network", check_node("network", {"use": use, **keys}), spec)


def attention(**keys: object) -> GridAttention:
    options = {"window": None, "relative": True, "noise": False, "init": lambda module: module, **keys}
    layer = GridAttention(8, 2, (4, 6), **options).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


@pytest.mark.parametrize(("h", "w"), [(4, 4), (2, 5), (1, 1)])
def test_two_pairs_of_places_share_a_number_if_they_share_the_distance(h: int, w: int) -> None:
    index = distances(h, w)
    places = [(y, x) for y in range(h) for x in range(w)]
    seen: dict[tuple[int, int], int] = {}
    for i, (yi, xi) in enumerate(places):
        for j, (yj, xj) in enumerate(places):
            assert seen.setdefault((yi - yj, xi - xj), int(index[i, j])) == index[i, j]
    assert sorted(seen.values()) == list(range((2 * h - 1) * (2 * w - 1)))


def test_attention_with_relative_positions_is_the_paper_s_formula() -> None:
    layer, x = attention(), torch.randn(3, 24, 8, dtype=torch.float64)
    q, k, v = (each.unflatten(2, (2, 4)).transpose(1, 2) for each in layer.qkv(x).chunk(3, dim=2))
    assert isinstance(layer.bias, RelativePositionBias)
    table = layer.bias.table.T.view(2, 7, 11)  # (heads, distances down, distances across)
    y, across = torch.arange(24) // 6, torch.arange(24) % 6
    E = table[:, y[:, None] - y + 3, across[:, None] - across + 5]  # (2, 24, 24)
    weights = (q @ k.transpose(2, 3) / math.sqrt(4) + E).softmax(-1)
    expected = layer.out((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
    with torch.no_grad():  # where a fused kernel may serve
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


def test_windows_part_the_grid_and_come_back() -> None:
    tokens = torch.arange(2 * 24).view(2, 24, 1)
    windows = split_windows(tokens, 4, 6, 2)
    assert windows.shape == (2 * 6, 4, 1)
    assert windows[1, :, 0].tolist() == [2, 3, 8, 9]  # rows and columns 0 and 1 of the second window of the first row
    assert torch.equal(join_windows(windows, 4, 6, 2), tokens)


def test_attention_in_windows_does_not_look_beyond_them() -> None:
    layer = attention(window=2)
    x = torch.randn(1, 24, 8, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(x)[0, 9].sum(), x)  # row 1, column 3: in the window of columns 2 and 3
    assert slope[0].abs().sum(1).nonzero().flatten().tolist() == [2, 3, 8, 9]
    wide = attention(window=4)  # no smaller than the shorter side: the whole grid
    (slope,) = torch.autograd.grad(wide(x)[0, 9].sum(), x)
    assert slope[0].abs().sum(1).all()


@pytest.mark.parametrize("name", ["transgan-generator", "transgan-discriminator"])
def test_noise_is_of_learnt_strength_and_for_training_alone(name: str) -> None:
    keys = {"width": 32, "heads": 2, "noise": True} | (
        {"depths": [1, 1], "z_dim": 4} if "gen" in name else {"depth": 1}
    )
    net = build(name, image_spec((1, 8, 8)), **keys)
    data = torch.randn(2, 4) if "gen" in name else torch.randn(2, 1, 8, 8)

    def said() -> torch.Tensor:
        out = net(data)
        return out if isinstance(out, torch.Tensor) else out.logits

    assert torch.equal(said(), said())  # the strength starts at 0
    for module in net.modules():
        if isinstance(module, GridAttention):
            nn.init.constant_(module.noise, 0.5)
    assert not torch.equal(said(), said())
    net.eval()
    assert torch.equal(said(), said())


def test_stages_double_the_sides_and_quarter_the_channels() -> None:
    net = build("transgan-generator", image_spec((3, 16, 24)), width=64, depths=[1, 2, 1], heads=2, z_dim=4)
    assert [tuple(each.shape) for each in net.positions] == [(1, 24, 64), (1, 96, 16), (1, 384, 4)]
    assert [len(stage) for stage in net.stages] == [1, 2, 1]
    assert net(torch.randn(2, 4)).shape == (2, 3, 16, 24)


def test_normalised_latents_are_read_by_direction_alone() -> None:
    keys = {"width": 16, "depths": [1], "heads": 2, "z_dim": 4}
    z = torch.randn(3, 4)
    net = build("transgan-generator", image_spec((1, 8, 8)), **keys, normalize_latent=True)
    torch.testing.assert_close(net(z), net(5 * z))
    net = build("transgan-generator", image_spec((1, 8, 8)), **keys)
    assert (net(z) - net(5 * z)).abs().max() > 1e-3


def test_the_critic_reads_small_and_large_patches() -> None:
    """Without the small ones its stages still see the image, and without the large ones, too."""
    for silent in ("embed1", "embed2"):
        net = build("transgan-discriminator", image_spec((1, 8, 8)), width=16, depth=1, heads=2).eval()
        nn.init.zeros_(getattr(net, silent).weight)
        image = torch.randn(1, 1, 8, 8, requires_grad=True)
        (slope,) = torch.autograd.grad(net(image).logits.sum(), image)
        assert slope.abs().min() > 0


@pytest.mark.parametrize(
    ("use", "shape", "keys"),
    [
        ("transgan-generator", (3, 30, 30), {}),
        ("transgan-generator", (3, 32, 32), {"width": 1000}),
        ("transgan-generator", (3, 32, 32), {"heads": 3}),
        ("transgan-generator", (3, 32, 32), {"window": 3}),
        ("transgan-generator", (8,), {}),
        ("transgan-discriminator", (3, 30, 30), {}),
        ("transgan-discriminator", (3, 32, 32), {"width": 30, "heads": 2}),
        ("transgan-discriminator", (3, 32, 32), {"heads": 7}),
        ("transgan-discriminator", (3, 32, 32), {"window": 3}),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint(use: str, shape: tuple[int, ...], keys: dict[str, object]) -> None:
    with pytest.raises(BadValue) as caught:
        build(use, image_spec(shape), **keys)
    assert caught.value.hint
