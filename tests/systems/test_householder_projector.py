"""Householder projector: what its catalogue row asks of the layer, of the conversion and of SeFa."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ganvas
from ganvas import parts
from ganvas.errors import BadValue
from ganvas.model import Model
from ganvas.nn.directions import sefa
from ganvas.nn.householder import HouseholderLinear, factors, orthonormal, reflections
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.networks.style.householder import HouseholderGenerator
from ganvas.training.train import train
from ganvas.types import Latent, SpacedGenerator

pytestmark = pytest.mark.system("householder-projector")
SPEC = image_spec((3, 16, 16))
STYLEGAN2 = {
    "use": "stylegan2-generator", "z_dim": 12, "w_dim": 12, "channel_base": 128, "channel_max": 16,
    "mapping": {"layers": 2},
}  # fmt: skip


def network(node: dict[str, Any]) -> Any:
    return parts.build("network", check_node("network", node), SPEC).eval()


def projected(rank: int = 5, of: dict[str, Any] = STYLEGAN2) -> HouseholderGenerator:
    return network({"use": "householder-generator", "of": of, "rank": rank})  # type: ignore[no-any-return]


def test_folded_layer_is_an_ordinary_one_of_the_same_weight() -> None:
    for bias in (True, False):
        layer, x = HouseholderLinear(12, 9, 4, bias=bias), torch.randn(5, 12)
        folded = layer.folded()
        assert type(folded) is torch.nn.Linear
        torch.testing.assert_close(folded(x), layer(x))


def spectrum(weight: Tensor) -> Tensor:
    """Eigenvalues of A Aᵀ, the largest first."""
    A = weight.detach().double()
    return torch.linalg.eigvalsh(A @ A.T).flip(0)


# ------------------------------------------------------------------------------------------- the layer


def test_reflections_are_multiplied_out_as_they_are_written() -> None:
    vectors = torch.randn(7, 3, dtype=torch.float64)
    expected = torch.eye(7, dtype=torch.float64)
    for i in range(3):
        v = vectors[:, i].clone()
        v[:i], v[i] = 0, 1
        expected = expected @ (torch.eye(7, dtype=torch.float64) - 2 * torch.outer(v, v) / v.dot(v))
    torch.testing.assert_close(orthonormal(vectors), expected[:, :3])


def test_every_orthonormal_frame_can_be_had() -> None:
    for rows, columns in ((6, 6), (9, 4), (5, 1)):
        frame = torch.linalg.qr(torch.randn(rows, columns, dtype=torch.float64)).Q
        vectors, signs = reflections(frame)
        torch.testing.assert_close(orthonormal(vectors) * signs, frame)
    trivial = torch.eye(6)[:, :4]  # nothing to reflect
    vectors, signs = reflections(trivial)
    torch.testing.assert_close(orthonormal(vectors) * signs, trivial)


@pytest.mark.parametrize(("rows", "columns"), [(64, 48), (24, 48), (48, 48)])
def test_a_layer_has_exactly_its_rank_of_unit_gains_also_after_100_steps(rows: int, columns: int) -> None:
    layer = HouseholderLinear(columns, rows, 10)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    x, target = torch.randn(256, columns), torch.randn(256, rows)
    losses = []
    for step in range(101):
        if step in (0, 100):
            values = spectrum(layer.weight)
            torch.testing.assert_close(values[:10], torch.ones(10, dtype=torch.float64), atol=1e-5, rtol=0)
            torch.testing.assert_close(values[10:], torch.zeros(rows - 10, dtype=torch.float64), atol=1e-5, rtol=0)
        optimizer.zero_grad()
        loss = (layer(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_trained_weights_singular_vectors_are_inherited() -> None:
    for rows, columns in ((30, 20), (20, 30)):
        weight = torch.randn(rows, columns)
        layer = HouseholderLinear(columns, rows, 6)
        layer.load_state_dict(factors(weight, 6), strict=False)
        U, _, Vh = torch.linalg.svd(weight)
        for ours, theirs in ((layer.directions, Vh[:6]), (orthonormal(layer.left).T, U.T[:6])):
            cosine = (ours * theirs).sum(1).abs()
            torch.testing.assert_close(cosine, torch.ones(6), atol=1e-5, rtol=0)  # up to sign
        torch.testing.assert_close(layer.weight, U[:, :6] @ Vh[:6], atol=1e-5, rtol=0)  # and with it, together


def test_rank_is_at_most_the_layers_own() -> None:
    assert HouseholderLinear(8, 5, 10).weight.shape == (5, 8)
    values = spectrum(HouseholderLinear(8, 5, 10).weight)
    torch.testing.assert_close(values, torch.ones(5, dtype=torch.float64), atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------- the generator


@pytest.mark.parametrize(
    "of",
    [
        STYLEGAN2,
        {"use": "stylegan3-generator", **parts.find("network", "stylegan3-generator").tiny},
        {"use": "mobilestylegan-generator", **parts.find("network", "mobilestylegan-generator").tiny},
    ],
    ids=lambda of: of["use"],
)
def test_every_affine_map_of_any_style_generator_is_replaced(of: dict[str, Any]) -> None:
    net = projected(3, of)
    assert isinstance(net, SpacedGenerator)
    layers = [module for module in net.modules() if isinstance(module, HouseholderLinear)]
    assert len(layers) == len(net.gains) >= 4
    for name, directions in net.directions.items():
        assert net.projector(name) in layers
        torch.testing.assert_close(directions @ directions.T, torch.eye(len(directions)), atol=1e-5, rtol=0)
    z = torch.randn(3, *next(iter(net.latents.values())).shape)
    w = net.to_space(Latent(z), "w")
    torch.testing.assert_close(net.from_space(w), net(z))


def test_steps_across_a_layers_directions_change_nothing_there() -> None:
    net = projected(5)
    w = torch.randn(4, 12)
    for name, directions in net.directions.items():
        layer = net.projector(name)
        across = torch.randn(4, 12)
        across = across - across @ directions.T @ directions
        torch.testing.assert_close(layer(w + 3 * across), layer(w), atol=1e-4, rtol=0)
        along = layer(w + directions[:1]) - layer(w)
        torch.testing.assert_close(along.norm(dim=1), torch.ones(4), atol=1e-5, rtol=0)  # of gain 1


def test_a_trained_generators_weights_become_ours() -> None:
    plain, net = network(STYLEGAN2), projected(12)  # of full rank, where a layer is wide enough
    with torch.no_grad():  # gains of 1, so that nothing is lost
        for module in plain.modules():
            if hasattr(module, "affine"):
                U, _, Vh = torch.linalg.svd(module.affine.weight, full_matrices=False)
                module.affine.weight.copy_(U @ Vh * 12**0.5)
                module.affine.bias.add_(0.3 * torch.randn_like(module.affine.bias))
    net.load_state_dict(net.adopted(plain.state_dict()))
    z = torch.randn(4, 12)
    torch.testing.assert_close(net(z), plain(z), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(net.centre.values, plain.centre.values)
    again = net.adopted(net.state_dict())
    assert again.keys() == net.state_dict().keys()


def test_a_run_of_the_plain_generator_is_converted_and_trained_on(tmp_path: Path) -> None:
    small = ("train.steps=2", "train.sample_every=2", "train.checkpoint_every=2", "eval=", "data.count=16")
    plain = tmp_path / "plain"
    of = "{use: stylegan2-generator, z_dim: 16, w_dim: 16, channel_base: 128, channel_max: 16, mapping: {layers: 2}}"
    before = train("tiny/shapes-householder", *small, f"networks.generator={of}", out=plain, device="cpu")
    after = tmp_path / "after"
    train(
        "tiny/shapes-householder", *small, "train.steps=1", "optim.lr=0.0000001", f"networks.generator.from={plain}",
        f"networks.discriminator.from={plain}", out=after, device="cpu",
    )  # fmt: skip
    net = ganvas.load(after).nets["generator"]
    assert isinstance(net, HouseholderGenerator)
    for name, directions in net.directions.items():
        own = before.nets["generator"].get_submodule(f"{name}").weight  # type: ignore[union-attr]
        Vh = torch.linalg.svd(own.double())[2][: len(directions)]
        assert ((directions * Vh).sum(1).abs() > 0.999).all(), name
    with pytest.raises(BadValue, match="do not fit"):
        train(
            "tiny/shapes-householder", *small, "networks.generator.rank=3", f"networks.generator.from={after}",
            out=tmp_path / "other", device="cpu",
        )  # fmt: skip


def test_truncation_knows_the_projected_generators_mean() -> None:
    net = projected(5)
    assert net.centre is not None
    model = Model({"sampler": {"use": "plain"}}, SPEC, {"generator": net})
    images = model.sample(4, seed=0, sampler={"use": "style", "psi": 0.0})
    assert (images - images[:1]).abs().max() < 1e-5


def test_a_generator_without_styles_is_refused() -> None:
    with pytest.raises(BadValue, match="no affine maps"):
        network({"use": "householder-generator", "of": {"use": "sngan-generator", "width": 8, "z_dim": 8}})


# ------------------------------------------------------------------------------------------- SeFa


def test_sefa_of_one_layer_is_its_right_singular_vectors() -> None:
    weight = torch.randn(40, 24)
    A = weight.numpy().astype(np.float64)
    A /= np.linalg.norm(A, axis=1, keepdims=True)
    _, S, Vh = np.linalg.svd(A)
    directions, values = sefa([weight])
    assert np.abs((directions.numpy() * Vh).sum(1)).min() > 0.9999
    np.testing.assert_allclose(values.numpy(), S**2, rtol=1e-5)


def test_sefa_of_a_projector_is_the_plane_of_its_directions() -> None:
    layer = HouseholderLinear(16, 40, 4)
    directions, values = sefa([layer.weight])
    assert (values[4:] < 1e-5).all()
    inside = directions[:4] @ layer.directions.T
    torch.testing.assert_close(inside @ inside.T, torch.eye(4), atol=1e-4, rtol=0)


def test_layers_are_looked_at_together_and_a_row_of_zeros_counts_nothing() -> None:
    weights = [torch.randn(6, 8), torch.randn(9, 8)]
    directions, values = sefa(weights)
    torch.testing.assert_close(values.sum(), torch.tensor(15.0))
    torch.testing.assert_close(sefa([torch.cat(weights)])[1], values)
    torch.testing.assert_close(directions @ directions.T, torch.eye(8), atol=1e-5, rtol=0)
    assert torch.isfinite(sefa([torch.cat([weights[0], torch.zeros(1, 8)])])[0]).all()
