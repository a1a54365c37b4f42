"""A Survey of Techniques for Optimizing Transformer Inference (Chitty-Venkata et al. 2023): counters, and methods by
which a transformer generator gets smaller."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ganvas import cli, parts
from ganvas.cost.flops import FLOPS_PER_MAC, bytes_of, flops, parameter_count
from ganvas.errors import MissingCapability
from ganvas.nn import variants
from ganvas.nn.multi_head import MultiHeadAttention, TiedL2Attention
from ganvas.nn.plain import with_linears
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.networks.transformer.vitgan import CriticBlock, gelu_mlp

pytestmark = pytest.mark.system("transformer-inference-survey")

# ------------------------------------------------------------------------------------------- counters


@pytest.mark.parametrize("ratio", [2, 4])
def test_macs_and_parameters_of_a_vit_block_are_their_closed_forms(ratio: int) -> None:
    L, D, hidden = 64, 48, ratio * 48
    block = CriticBlock(D, MultiHeadAttention(D, 4, linear=nn.Linear), gelu_mlp(D, hidden, nn.Linear)).eval()
    with torch.no_grad():
        counted = flops(lambda: block(torch.randn(1, L, D))) / FLOPS_PER_MAC
    assert counted == pytest.approx(4 * L * D**2 + 2 * L**2 * D + 2 * L * D * hidden, rel=0.005)
    biases = 3 * D + D + hidden + D
    assert parameter_count(block) == 4 * D**2 + 2 * D * hidden + biases + 2 * 2 * D


def test_eight_bit_products_count_as_their_float_ones() -> None:
    linear, x = nn.Linear(24, 40), torch.randn(8, 24)
    with torch.no_grad():
        assert flops(lambda: variants.Int8Linear(linear)(x)) == flops(lambda: linear(x)) == FLOPS_PER_MAC * 8 * 24 * 40


# ------------------------------------------------------------------------------------------- methods


@pytest.fixture(scope="module")
def generator() -> nn.Module:
    """A small ViTGAN generator, with what training would have left: weights that are not those of the start."""
    torch.manual_seed(1)
    node = {"use": "vitgan-generator", "width": 64, "layers": 3, "heads": 4, "patch": 4, "z_dim": 32}
    net: nn.Module = parts.build("network", check_node("network", node), image_spec((3, 16, 16)))
    return net.eval()


@pytest.fixture
def z() -> Tensor:
    return torch.randn(16, 32, generator=torch.Generator().manual_seed(0))


def likeness(one: Tensor, other: Tensor) -> float:
    return float(cosine_similarity(one.flatten(1), other.flatten(1)).min())


@torch.no_grad()
def test_the_plain_copy_does_the_same_and_the_network_stays_as_it_is(generator: nn.Module, z: Tensor) -> None:
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    torch.testing.assert_close(with_linears(generator)(z), generator(z), rtol=1e-5, atol=1e-6)
    for make in variants.VARIANTS.values():
        make(generator)
    after = generator.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@torch.no_grad()
@pytest.mark.parametrize(("kind", "least"), [("int8 dynamic", 0.99), ("bf16", 0.999), ("fp16", 0.9999)])
def test_fewer_bits_leave_the_images_alike_in_fewer_bytes(
    generator: nn.Module, z: Tensor, kind: str, least: float
) -> None:
    own = variants.VARIANTS[kind](generator)
    assert likeness(own(z), generator(z)) >= least
    assert parameter_count(own) == parameter_count(generator)
    share = bytes_of([*own.parameters(), *own.buffers()]) / bytes_of(generator.parameters())
    assert share < (0.4 if kind == "int8 dynamic" else 0.6)


@torch.no_grad()
def test_an_eight_bit_layer_is_off_by_at_most_half_a_step_in_each_factor() -> None:
    linear, x = nn.Linear(32, 20), torch.randn(2, 5, 32)
    s_x, s_w = x.abs().amax(-1, keepdim=True) / 127, linear.weight.abs().amax(-1) / 127
    bound = s_x / 2 * linear.weight.abs().sum(1) + s_w / 2 * x.abs().sum(-1, keepdim=True) + 32 * s_x * s_w / 4
    off = (variants.Int8Linear(linear)(x) - linear(x)).abs()
    assert (off <= bound + 1e-6).all()
    assert off.max() > 0
    scaled = torch.tensor([[1.0], [1e4]]) * x[0, :1]  # a row's scale is its own
    small, large = variants.Int8Linear(linear)(scaled) - linear.bias
    torch.testing.assert_close(large, 1e4 * small, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_pruning_sets_exactly_so_many_of_the_smallest_weights_to_0(generator: nn.Module, sparsity: float) -> None:
    own, dense = variants.prune_magnitude(generator, sparsity), with_linears(generator)
    layers = [name for name, each in dense.named_modules() if type(each) in (nn.Linear, nn.Conv2d)]
    assert len(layers) > 10
    for name in layers:
        before, after = dense.get_submodule(name).weight, own.get_submodule(name).weight
        gone = after == 0
        assert int(gone.sum()) == round(sparsity * after.numel())
        assert torch.equal(after[~gone], before[~gone])
        if gone.any() and not gone.all():
            assert before[gone].abs().max() <= before[~gone].abs().min()
    assert variants.zeros(own) == pytest.approx(sparsity, abs=1e-3)


def test_ties_do_not_spoil_the_sparsity() -> None:
    net = nn.Sequential(nn.Linear(10, 10))
    nn.init.ones_(net[0].weight)
    assert variants.zeros(variants.prune_magnitude(net, 0.37)) == 0.37


@torch.no_grad()
@pytest.mark.parametrize("kind", [MultiHeadAttention, TiedL2Attention])
def test_a_head_that_writes_nothing_can_go(kind: type[nn.Module]) -> None:
    attention = kind(24, 4, linear=nn.Linear)
    attention.out.weight[:, 6:12] = 0  # of the second head
    net, x = nn.Sequential(attention), torch.randn(2, 7, 24)
    own = variants.prune_heads(net, 0.25)
    assert own[0].heads == 3
    torch.testing.assert_close(own(x), net(x), rtol=1e-5, atol=1e-6)
    maps = 3 if kind is MultiHeadAttention else 2
    assert parameter_count(net) - parameter_count(own) == 6 * (maps * (24 + 1) + 24)
    assert variants.prune_heads(net, 1.0)[0].heads == 1


@torch.no_grad()
def test_at_full_rank_low_rank_changes_nothing_and_at_rank_r_it_has_r_times_m_plus_n_weights() -> None:
    linear, x = nn.Linear(48, 30), torch.randn(9, 48)
    torch.testing.assert_close(variants.factorised(linear, 30)(x), linear(x), rtol=1e-5, atol=1e-5)
    for rank in (1, 7, 30):
        assert parameter_count(variants.factorised(linear, rank)) == rank * (30 + 48) + 30
    # the nearest of its rank: what is left is what the smaller singular values hold
    first, second = variants.factorised(linear, 7)
    left = torch.linalg.matrix_norm(linear.weight - second.weight @ first.weight)
    assert left == pytest.approx(float(torch.linalg.svdvals(linear.weight)[7:].norm()), rel=1e-4)


@torch.no_grad()
def test_a_generator_in_full_rank_makes_the_same_images(generator: nn.Module, z: Tensor) -> None:
    own = with_linears(generator)
    for name, layer in [*own.named_modules()]:
        if type(layer) is nn.Linear:
            own.set_submodule(name, variants.factorised(layer, min(layer.weight.shape)))
    torch.testing.assert_close(own(z), generator(z), rtol=0, atol=1e-5)


def test_low_rank_keeps_at_most_its_share(generator: nn.Module) -> None:
    own, dense = variants.low_rank(generator, 0.5), with_linears(generator)
    for name, layer in dense.named_modules():
        if type(layer) is nn.Linear and isinstance(pair := own.get_submodule(name), nn.Sequential):
            weights = sum(each.weight.numel() for each in pair)
            assert weights <= layer.weight.numel() / 2
            assert weights % sum(layer.weight.shape) == 0


def test_what_a_network_does_not_have_cannot_be_pruned() -> None:
    with pytest.raises(MissingCapability, match="MultiHeadAttention or TiedL2Attention"):
        variants.prune_heads(nn.Sequential(nn.Linear(3, 3)))


def test_the_report_shows_six_methods_beside_the_network(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.run(["profile", "tiny/digits-vitgan", "--variants", "--json", "--out", str(tmp_path)]) == 0
    rows = json.loads(capsys.readouterr().out)["networks"]
    assert [row["name"].partition(", ")[2] for row in rows] == ["", *variants.VARIANTS]
    base = rows[0]
    by_kind = {row["name"].partition(", ")[2]: row for row in rows}
    assert by_kind["int8 dynamic"]["likeness"] >= 0.99
    assert by_kind["half the weights at 0"]["zeros"] == pytest.approx(0.5, abs=1e-3)
    for row in rows:
        assert 0 < row["bytes"] <= base["bytes"]
        assert row["macs"] <= base["macs"]
        assert 0 < row["p50"] <= row["p95"] < math.inf
    assert (tmp_path / "profile.html").is_file()
