"""Layers of style-based networks against their definitions, written out slowly."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.nn.equalized import LEAKY_GAIN, EqualizedConv2d, EqualizedLinear, equalized
from ganvas.nn.fir import conv2d_resample, downsample2d, filter2d, filter_taps, upfirdn2d, upsample2d
from ganvas.nn.mapping import MappingNetwork, as_condition, pixel_norm
from ganvas.nn.modulated import choose, demodulation, modulated_conv2d

DOUBLE = {"dtype": torch.float64}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def slow_upfirdn(x: Tensor, taps: Tensor, up: int, down: int, padding: tuple[int, ...], gain: float) -> Tensor:
    """The definition: every zero is there, the filter is flipped and slid, most results are thrown away."""
    N, C, H, W = x.shape
    wide = x.new_zeros(N, C, H, up, W, up)
    wide[:, :, :, 0, :, 0] = x
    wide = F.pad(wide.reshape(N, C, H * up, W * up), padding)
    square = taps if taps.dim() == 2 else torch.outer(taps, taps)
    windows = wide.unfold(2, square.shape[0], 1).unfold(3, square.shape[1], 1)  # (N, C, H', W', K, K)
    return gain * (windows * square.flip((0, 1))).sum((4, 5))[:, :, ::down, ::down]


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 6, 11, (3, 4)], ids=str)
def test_upfirdn_is_its_definition_at_every_factor_and_padding(taps: int | tuple[int, int]) -> None:
    filter_ = torch.randn(taps, **DOUBLE)  # not symmetric: the flip matters
    x = torch.randn(2, 3, 6, 5, **DOUBLE)
    for up, down, padding in product((1, 2, 3), (1, 2), ((0, 0, 0, 0), (5, 7, 6, 6), (6, 6, 5, 5), (7, 4, 9, 5))):
        reach = max(filter_.shape) - 1
        if reach > 5 * up + min(padding[0] + padding[1], padding[2] + padding[3]) - 1:
            continue  # nothing would be left
        found = upfirdn2d(x, filter_, up=up, down=down, padding=padding, gain=1.7)
        torch.testing.assert_close(found, slow_upfirdn(x, filter_, up, down, padding, 1.7))


def test_negative_padding_crops() -> None:
    x, taps = torch.randn(1, 2, 8, 8, **DOUBLE), torch.randn(4, **DOUBLE)
    for up in (1, 2):
        padding = (-1, 2, 0, -2)
        torch.testing.assert_close(
            upfirdn2d(x, taps, up=up, padding=padding), slow_upfirdn(x, taps, up, 1, padding, 1.0)
        )


def test_resampling_keeps_a_constant_image_away_from_the_border() -> None:
    x, taps = torch.full((1, 2, 16, 16), 3.0), filter_taps((1, 3, 3, 1))
    for image in (filter2d(x, taps), upsample2d(x, taps), downsample2d(x, taps), downsample2d(x, filter_taps([1] * 6))):
        inner = image[:, :, 3:-3, 3:-3]
        torch.testing.assert_close(inner, torch.full_like(inner, 3.0))
    assert upsample2d(x, taps).shape[2:] == (32, 32)
    assert downsample2d(x, taps).shape[2:] == (8, 8)


def test_upfirdn_has_derivatives_of_both_orders() -> None:
    x, taps = torch.randn(1, 2, 4, 3, requires_grad=True, **DOUBLE), torch.randn(4, **DOUBLE)
    for up, down in ((1, 2), (2, 1)):

        def cubed(x: Tensor, up: int = up, down: int = down) -> Tensor:
            return upfirdn2d(x, taps, up=up, down=down, padding=(2, 1, 2, 1)) ** 3

        assert torch.autograd.gradgradcheck(cubed, (x,))


def slow_resample(x: Tensor, weight: Tensor, taps: Tensor, up: int, down: int) -> Tensor:
    """Upsample, then convolve, then downsample, all at full size; going up, the kernel is flipped."""
    k, K = weight.shape[-1], len(taps)
    before = after = k // 2
    if up > 1:
        before, after = before + (K + up - 1) // 2, after + (K - up) // 2
        x = slow_upfirdn(x, taps, up, 1, (before, after, before, after), up**2)
        return F.conv2d(x, weight.flip((2, 3)))
    if down > 1:
        before, after = before + (K - down + 1) // 2, after + (K - down) // 2
        x = F.conv2d(F.pad(x, (before, after, before, after)), weight)
        return slow_upfirdn(x, taps, 1, down, (0, 0, 0, 0), 1.0)
    return F.conv2d(x, weight, padding=k // 2)


@pytest.mark.parametrize("K", [1, 2, 4, 6])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_convolution_commutes_with_resampling(k: int, K: int) -> None:
    x, weight, taps = torch.randn(2, 4, 8, 6, **DOUBLE), torch.randn(6, 4, k, k, **DOUBLE), torch.rand(K, **DOUBLE)
    bias = torch.randn(6, **DOUBLE)
    for up, down in ((1, 1), (2, 1), (1, 2)):
        found = conv2d_resample(x, weight, bias, taps=taps, up=up, down=down)
        torch.testing.assert_close(found, slow_resample(x, weight, taps, up, down) + bias[:, None, None])


def test_convolution_in_groups_going_up() -> None:
    x, weight, taps = torch.randn(2, 4, 6, 6, **DOUBLE), torch.randn(6, 2, 3, 3, **DOUBLE), torch.rand(4, **DOUBLE)
    halves = [conv2d_resample(x[:, i : i + 2], weight[j : j + 3], taps=taps, up=2) for i, j in ((0, 0), (2, 3))]
    torch.testing.assert_close(conv2d_resample(x, weight, taps=taps, up=2, groups=2), torch.cat(halves, 1))


# ------------------------------------------------------------------------------------------- modulation


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up", [1, 2])
def test_both_forms_of_modulated_convolution_are_the_papers_equations(up: int, demodulate: bool) -> None:
    x, weight = torch.randn(3, 4, 5, 6, **DOUBLE), torch.randn(7, 4, 3, 3, **DOUBLE)
    style, taps = torch.randn(3, 4, **DOUBLE), torch.rand(4, **DOUBLE)
    expected = []
    for image, s in zip(x, style, strict=True):
        own = s[None, :, None, None] * weight  # eq. 1
        if demodulate:
            own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()  # eq. 3
        expected.append(1.3 * conv2d_resample(image[None], own, taps=taps, up=up))
    for form in ("fused", "scaled"):
        found = modulated_conv2d(x, weight, style, demodulate=demodulate, up=up, taps=taps, gain=1.3, form=form)
        torch.testing.assert_close(found, torch.cat(expected))


@pytest.mark.system("stylegan2")
def test_demodulated_outputs_have_unit_variance() -> None:
    """Whatever the style: input of unit variance gives output of unit variance, within 5 %, away from the border."""
    weight, style = torch.randn(16, 32, 3, 3), torch.randn(4, 32) * 3 + 1
    out = modulated_conv2d(torch.randn(4, 32, 96, 96), weight, style)[:, :, 1:-1, 1:-1]
    assert (out.var((2, 3)) - 1).abs().max() < 0.1  # single channels
    assert abs(out.var().item() - 1) < 0.05
    plain = modulated_conv2d(torch.randn(4, 32, 96, 96), weight, style, demodulate=False)
    assert plain.var() > 100


def test_modulation_has_derivatives_of_both_orders_in_its_style_and_weight() -> None:
    x, weight = torch.randn(2, 2, 3, 3, **DOUBLE), torch.randn(2, 2, 3, 3, requires_grad=True, **DOUBLE)
    style = torch.randn(2, 2, requires_grad=True, **DOUBLE)
    assert torch.autograd.gradgradcheck(lambda w, s: modulated_conv2d(x, w, s), (weight, style))


def test_the_processor_takes_the_scaled_form() -> None:
    weight = torch.randn(4, 4, 3, 3)
    assert choose(torch.randn(1, 4, 64, 64), weight) == "scaled"
    elsewhere = torch.empty(1, 4, 64, 64, device="meta")
    assert choose(elsewhere, weight) == "scaled"  # a gradient is asked for
    with torch.no_grad():
        assert choose(elsewhere, weight) == "fused"
        assert choose(torch.empty(1, 4, 2, 2, device="meta"), weight) == "scaled"  # kernels are larger than the maps


def test_demodulation_does_not_depend_on_the_scale_of_the_style() -> None:
    x, weight, style = torch.randn(2, 4, 5, 5), torch.randn(3, 4, 3, 3), torch.randn(2, 4)
    torch.testing.assert_close(
        modulated_conv2d(x, weight, style), modulated_conv2d(x, weight, 50 * style), rtol=1e-4, atol=1e-5
    )
    assert demodulation(weight, style).shape == (2, 3)


# ------------------------------------------------------------------------------------------- equalised learning rate


@pytest.mark.system("progan")
@pytest.mark.parametrize("multiplier", [1.0, 0.01])
def test_equalised_layers_keep_unit_variance_whatever_their_learning_rate(multiplier: float) -> None:
    linear = EqualizedLinear(400, 300, lr_multiplier=multiplier)
    assert abs(linear(torch.randn(500, 400)).var().item() - 1) < 0.03
    assert abs(linear.weight.std().item() * multiplier - 1) < 0.02
    conv = EqualizedConv2d(32, 64, 3)
    assert abs(conv(torch.randn(4, 32, 24, 24))[:, :, 1:-1, 1:-1].var().item() - 1) < 0.05


def test_the_gain_of_an_activated_layer_is_that_of_leaky_relu() -> None:
    conv = EqualizedConv2d(3, 4, 3, activate=True)
    conv.bias.data.normal_()
    x = torch.randn(2, 3, 5, 5)
    expected = F.leaky_relu(F.conv2d(x, conv.weight / 27**0.5, conv.bias, padding=1), 0.2) * LEAKY_GAIN
    torch.testing.assert_close(conv(x), expected)
    torch.testing.assert_close(conv(x, 0.5), 0.5 * expected)
    limited = EqualizedConv2d(3, 4, 3, activate=True, clamp=0.3)
    limited.load_state_dict(conv.state_dict())
    torch.testing.assert_close(limited(x), expected.clamp(-0.3, 0.3))
    torch.testing.assert_close(limited(x, 0.5), 0.5 * expected.clamp(-0.3, 0.3))


def test_a_bias_starts_at_its_value_whatever_its_learning_rate() -> None:
    layer = EqualizedLinear(3, 2, bias=1.5, lr_multiplier=0.01)
    torch.testing.assert_close(layer(torch.zeros(1, 3)), torch.full((1, 2), 1.5))


def test_treated_layers_of_torch_are_equalised_ones() -> None:
    for layer, fan_in in ((nn.Linear(16, 8), 16), (nn.Conv2d(4, 8, 3), 36), (nn.Embedding(5, 9), 9)):
        treated = equalized(layer)
        own = treated.parametrizations.weight.original
        torch.testing.assert_close(treated.weight, own / fan_in**0.5)
        assert own.requires_grad


# ------------------------------------------------------------------------------------------- mapping


@pytest.mark.system("progan")
def test_pixel_norm_gives_mean_square_one() -> None:
    norm = pixel_norm(torch.randn(4, 16, 3, 3) * 7)
    torch.testing.assert_close(norm.square().mean(1), torch.ones(4, 3, 3))


def test_mapping_sees_the_direction_of_z_and_the_class() -> None:
    mapping = MappingNetwork(8, 6, classes=3, layers=2)
    z, label = torch.randn(4, 8), torch.tensor([0, 1, 2, 0])
    w = mapping(z, as_condition(label, 3))
    torch.testing.assert_close(mapping(5 * z, as_condition(label, 3)), w)
    assert not torch.allclose(mapping(z, as_condition((label + 1) % 3, 3)), w)
    torch.testing.assert_close(mapping(z, F.one_hot(label, 3).float()), w)  # weights of classes, here of one


def test_the_mean_of_w_is_a_moving_average_and_truncation_goes_there() -> None:
    mapping = MappingNetwork(8, 6, layers=2, beta=0.75)
    w = mapping(torch.randn(10, 8)).detach()
    mapping.track(w)
    mapping.track(w + 1)
    torch.testing.assert_close(mapping.w_avg, 0.25 * (0.75 * w.mean(0) + (w + 1).mean(0)))
    torch.testing.assert_close(mapping.truncate(w, 0.0), mapping.w_avg.expand(10, 6))
    torch.testing.assert_close(mapping.truncate(w, 1.0), w)
    layered = w[:, None].expand(-1, 5, -1)
    cut = mapping.truncate(layered, 0.5, cutoff=2)
    torch.testing.assert_close(cut[:, :2], (layered[:, :2] + mapping.w_avg) / 2)
    assert torch.equal(cut[:, 2:], layered[:, 2:])
