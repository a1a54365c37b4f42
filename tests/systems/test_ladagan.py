"""LadaGAN (Morales-Juarez & Fuentes-Pineda 2024): what additive attention computes and what it costs.

Parity of the blocks and both networks with the authors' code is in tests/parity (`ladagan_*`), at other sizes in
tests/networks/test_interop_transformers.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformer_toys import distances

from ganvas import parts
from ganvas.errors import BadValue
from ganvas.nn.additive_attention import AdditiveAttention
from ganvas.nn.init import orthogonal
from ganvas.nn.multi_head import MultiHeadAttention
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.types import DataSpec

pytestmark = pytest.mark.system("ladagan")


def attention(width: int = 12, heads: int = 3) -> AdditiveAttention:
    layer = AdditiveAttention(width, heads, orthogonal).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def build(use: str, spec: DataSpec, **keys: object) -> nn.Module:
    return parts.build("network", check_node("network", {"use": use, **keys}), spec)


def test_attention_is_the_paper_s_formula_token_by_token() -> None:
    layer, x = attention(), torch.randn(2, 5, 12, dtype=torch.float64)
    expected = torch.empty_like(x)
    for n in range(2):
        q, k, v = (
            F.linear(x[n], W, b) for W, b in zip(layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3), strict=True)
        )
        r = torch.empty_like(q)
        for head in range(3):
            own = slice(4 * head, 4 * head + 4)
            a = torch.stack([(layer.score.weight[head] @ q[j] + layer.score.bias[head]) / 2 for j in range(5)])
            alpha = a.exp() / a.exp().sum()
            g = sum(alpha[j] * q[j, own] for j in range(5))
            for j in range(5):
                r[j, own] = v[j, own] * k[j, own] * g
        expected[n] = F.linear(r, layer.out.weight, layer.out.bias)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


def test_permuted_tokens_give_permuted_outputs() -> None:
    layer, x = attention(), torch.randn(2, 9, 12, dtype=torch.float64)
    order = torch.randperm(9)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order], rtol=0, atol=1e-12)


def flops(layer: nn.Module, tokens: int, width: int) -> int:
    """Of a forward; with gradients, for then no fused kernel hides what it does from the counter."""
    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(1, tokens, width))
    return counter.get_total_flops()


def test_twice_the_tokens_cost_twice_as_much_and_dense_attention_four_times() -> None:
    additive, dense = AdditiveAttention(64, 4, orthogonal), MultiHeadAttention(64, 4, linear=nn.Linear)
    for tokens in (64, 256, 1024):
        assert flops(additive, 2 * tokens, 64) == 2 * flops(additive, tokens, 64)
        linear = 2 * tokens * 64 * 4 * 64  # of both maps: queries, keys and values, and out
        attending = flops(dense, tokens, 64) - linear
        assert attending == 2 * 2 * tokens**2 * 64  # products of queries with keys, and of weights with values
        assert flops(dense, 2 * tokens, 64) - 2 * linear == 4 * attending
    assert flops(additive, 1024, 64) < flops(dense, 1024, 64) / 7  # on the last map of 32 pixels


def test_generator_blocks_have_a_residual_around_attention_and_none_around_the_mlp() -> None:
    block = build("ladagan-generator", image_spec((1, 8, 8)), widths=[8], heads=2, mlp_width=8, z_dim=4).blocks[0]
    x, z = torch.randn(3, 64, 8), torch.randn(3, 4)
    nn.init.zeros_(block.attention.out.weight)
    torch.testing.assert_close(block(x, z), block.mlp(block.norm2(x, z)))  # attention adds nothing: x is still there
    nn.init.zeros_(block.mlp[2].weight)
    assert torch.equal(block(x, z), torch.zeros_like(x))  # the MLP adds nothing: nothing is left


def test_the_logit_is_the_mean_over_all_windows() -> None:
    critic = build("ladagan-discriminator", image_spec((2, 16, 24)), widths=[4, 8], out_widths=[6, 5], heads=2).eval()
    images = torch.randn(3, 2, 16, 24)
    last = critic.last_map(images)
    assert last.shape == (3, 5, 4, 6)
    windows = F.conv2d(last, critic.head.linear.weight.view(1, 5, 4, 4))  # (3, 1, 1, 3)
    torch.testing.assert_close(critic(images).logits, windows.mean((1, 2, 3)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "patch"), [(32, 1), (64, 2), (128, 4), (16, 1)])
def test_the_first_map_has_8_pixels_and_patches_grow_as_published(size: int, patch: int) -> None:
    net = build("ladagan-generator", image_spec((3, size, size)), widths=[64, 32, 16], mlp_width=8, z_dim=4)
    assert net.patch == patch
    assert net.sizes[0] == (min(8, size // 4),) * 2
    assert net(torch.randn(2, 4)).shape == (2, 3, size, size)


def test_the_published_generator_has_19_9_million_parameters() -> None:
    """The README says 19 M for 32 and 64 pixels."""
    with torch.device("meta"):
        net = build("ladagan-generator", image_spec((3, 32, 32)))
    assert sum(each.numel() for each in net.parameters()) == 19_901_647


@pytest.mark.parametrize(
    ("use", "shape", "keys"),
    [
        ("ladagan-generator", (3, 30, 30), {}),  # 4 does not divide 30
        ("ladagan-generator", (3, 32, 32), {"widths": [30, 8]}),  # 4 does not divide 30 channels
        ("ladagan-generator", (3, 32, 32), {"heads": 3}),
        ("ladagan-generator", (3, 32, 32), {"heads": [4, 4]}),
        ("ladagan-generator", (3, 32, 32), {"widths": [64, 6], "patch": 2, "heads": 2}),
        ("ladagan-generator", (8,), {}),
        ("ladagan-discriminator", (3, 16, 16), {}),  # three widths leave 2x2
        ("ladagan-discriminator", (3, 32, 32), {"heads": 7}),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint(use: str, shape: tuple[int, ...], keys: dict[str, object]) -> None:
    with pytest.raises(BadValue) as caught:
        build(use, image_spec(shape), **keys)
    assert caught.value.hint


# Not asserted: seconds. One forward and backward of a block at 1,024 tokens and 64 channels is in the closing note.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:regularizer 'r1'")
def test_training_is_stable_and_ends_nearer_to_the_digits_over_three_seeds() -> None:
    found = [distances("tiny/digits-ladagan", seed, 150) for seed in range(3)]
    print(f"distances before and after: {found}")  # noqa: T201
    assert all(after < before for before, after in found)


def outputs(net: nn.Module, z: Tensor) -> Tensor:
    with torch.no_grad():
        images: Tensor = net.eval()(z)
    return images


def test_the_latent_reaches_every_block() -> None:
    """Not only the first map: with the same first map another latent makes another image."""
    net = build("ladagan-generator", image_spec((1, 16, 16)), widths=[16, 8], heads=2, mlp_width=8, z_dim=4)
    nn.init.zeros_(net.project.weight)
    made = outputs(net, torch.randn(2, 4))
    assert (made[0] - made[1]).abs().max() > 1e-3
