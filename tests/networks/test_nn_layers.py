"""Layers against their closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ganvas.nn.attention import SelfAttention
from ganvas.nn.gradients import input_gradient
from ganvas.nn.init import layer_init, normal, orthogonal
from ganvas.nn.norms import BatchNorm2d, ConditionalBatchNorm2d
from ganvas.nn.spectral import spectral


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def attention() -> SelfAttention:
    return SelfAttention(16, orthogonal)


def test_attention_starts_as_the_identity(attention: SelfAttention) -> None:
    x = torch.randn(2, 16, 6, 4)
    assert torch.equal(attention(x), x)


def test_attention_rows_sum_to_one(attention: SelfAttention) -> None:
    beta = attention.weights(torch.randn(2, 16, 6, 4))
    assert beta.shape == (2, 24, 6)
    torch.testing.assert_close(beta.sum(2), torch.ones(2, 24))


@pytest.mark.system("sagan")
def test_attention_is_the_released_formula(attention: SelfAttention) -> None:
    """The released code's form (as in BigGAN): pooled keys and values, no scale, written out per pixel."""
    attention = attention.double()
    attention.gamma.data.fill_(0.7)
    x = torch.randn(2, 16, 4, 4, dtype=torch.float64)

    def linear(conv: nn.Module) -> Tensor:
        return torch.einsum("oc,nchw->nohw", conv.weight[:, :, 0, 0], x)

    pooled = [linear(conv).unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5)) for conv in (attention.phi, attention.g)]
    phi, g = (each.reshape(2, -1, 4) for each in pooled)
    theta = linear(attention.theta)
    expected = x.clone()
    for n in range(2):
        for i in range(4):
            for j in range(4):
                beta = (theta[n, :, i, j] @ phi[n]).softmax(0)
                expected[n, :, i, j] += 0.7 * attention.out.weight[:, :, 0, 0] @ (g[n] @ beta)
    assert (attention(x) - expected).abs().max() < 1e-12


@pytest.mark.system("sagan")
def test_every_output_pixel_depends_on_every_input_pixel(attention: SelfAttention) -> None:
    """Over a few inputs: at any single one a pixel may win none of the maxima that keys and values are pooled by."""
    attention.gamma.data.fill_(1.0)
    probe = torch.zeros(4, 4, 4, 4)  # output pixel by input pixel
    for _ in range(4):
        x = torch.randn(1, 16, 4, 4)
        jacobian = torch.autograd.functional.jacobian(lambda x: attention(x).sum(1), x)
        assert isinstance(jacobian, Tensor)
        probe += jacobian[0, :, :, 0].abs().amax(2)
    assert (probe > 0).all()


@pytest.mark.parametrize(
    ("layer", "shape", "dim"),
    [
        (nn.Linear(12, 7), (3, 12), 0),
        (nn.Conv2d(6, 8, 3), (1, 6, 5, 5), 0),
        (nn.ConvTranspose2d(6, 8, 4), (1, 6, 5, 5), 1),
    ],
)
def test_top_singular_value_is_one_after_warm_up(layer: nn.Module, shape: tuple[int, ...], dim: int) -> None:
    normal(layer, std=1.0)
    spectral(layer)
    for _ in range(300):
        layer(torch.randn(shape))
    weight = layer.eval().weight
    assert isinstance(weight, Tensor)
    sigma = torch.linalg.matrix_norm(weight.transpose(0, dim).flatten(1), 2)
    assert abs(sigma.item() - 1) < 1e-3


def test_spectral_norm_in_eval_mode_stands_still() -> None:
    layer = spectral(nn.Linear(5, 5)).eval()
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    layer(torch.randn(2, 5))
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())


def test_treatment_normalises_what_it_has_started() -> None:
    layer = layer_init(orthogonal, spectral_norm=True)(nn.Linear(9, 4)).eval()
    weight = layer.weight
    assert isinstance(weight, Tensor)
    torch.testing.assert_close(weight @ weight.T, torch.eye(4), atol=1e-4, rtol=0)  # right before any forward
    assert not layer.bias.any()  # type: ignore[union-attr, operator]


def test_conditional_batch_norm_with_one_class_is_affine_batch_norm() -> None:
    conditional = ConditionalBatchNorm2d(5, 1, eps=1e-4, init=orthogonal)
    plain = BatchNorm2d(5, eps=1e-4)
    conditional.gain.weight.data.normal_()
    conditional.bias.weight.data.normal_()
    plain.weight.data = 1 + conditional.gain.weight.data[:, 0]
    plain.bias.data = conditional.bias.weight.data[:, 0]
    x, y = torch.randn(4, 5, 3, 3), torch.ones(4, 1)
    torch.testing.assert_close(conditional(x, y), plain(x))
    torch.testing.assert_close(conditional.eval()(x, y), plain.eval()(x))


def test_conditional_batch_norm_uses_the_row_of_the_class() -> None:
    norm = ConditionalBatchNorm2d(2, 3, init=orthogonal).eval()
    x = torch.randn(3, 2, 2, 2)
    out = norm(x, torch.eye(3))
    for n in range(3):
        gamma, beta = 1 + norm.gain.weight[:, n], norm.bias.weight[:, n]
        torch.testing.assert_close(out[n], x[n] / (1 + 1e-5) ** 0.5 * gamma[:, None, None] + beta[:, None, None])


def test_input_gradient_of_a_quadratic_and_its_own_gradient() -> None:
    A = torch.randn(3, 3, requires_grad=True)
    x = torch.randn(4, 3)
    gradient = input_gradient(lambda x: 0.5 * torch.einsum("ni,ij,nj->n", x, A, x), x)
    torch.testing.assert_close(gradient, x @ (A + A.T) / 2)
    (second,) = torch.autograd.grad(gradient.square().sum(), A)
    expected = torch.einsum("ni,nj->ij", gradient, x)
    torch.testing.assert_close(second, (expected + expected.T).detach())
    assert not x.requires_grad


def test_input_gradient_is_float32_under_autocast_and_without_grad() -> None:
    layer = nn.Linear(4, 1)
    x = torch.randn(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        gradient = input_gradient(layer, x.bfloat16())
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, layer.weight.expand(2, 4))  # exact: nothing was rounded to bfloat16
