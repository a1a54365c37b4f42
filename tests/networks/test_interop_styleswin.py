"""StyleSwin's importers at sizes and options beyond the golden cases.

The official graphs are written out over official keys, in the order of operations of the official code.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganvas.errors import CheckpointError
from ganvas.interop.registry import NoImporter, OfficialCase, import_network

REPO = "microsoft/StyleSwin"
State = Mapping[str, Tensor]
TAPS = torch.tensor([1.0, 3, 3, 1]) / 8
KERNEL = TAPS[:, None] * TAPS


def same(ours: Tensor, official: Tensor) -> None:
    assert ours.shape == official.shape
    assert (ours - official).abs().max() <= 1e-4 * official.std()


def random_layer(state: dict[str, Tensor], name: str, out: int, in_: int, *kernel: int, bias: bool = True) -> None:
    state[f"{name}.weight"] = torch.randn(out, in_, *kernel) / (in_ * math.prod(kernel)) ** 0.5
    if bias:
        state[f"{name}.bias"] = 0.3 * torch.randn(out)


def equal_linear(state: State, name: str, x: Tensor, rate: float = 1.0) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.linear(x, weight * (rate / weight.shape[1] ** 0.5), state[f"{name}.bias"] * rate)


def upsampled(image: Tensor) -> Tensor:
    """Zeros between the pixels, then the filter, by its definition."""
    N, C, H, W = image.shape
    spread = image.new_zeros(N, C, 2 * H, 2 * W)
    spread[:, :, ::2, ::2] = image
    return F.conv2d(F.pad(spread, (2, 1, 2, 1)), 4 * KERNEL.expand(C, 1, 4, 4), groups=C)


def downsampled(image: Tensor) -> Tensor:
    C = image.shape[1]
    return F.conv2d(F.pad(image, (1, 1, 1, 1)), KERNEL.expand(C, 1, 4, 4), stride=2, groups=C)


# ------------------------------------------------------------------------------------------- generator


def generator_state(
    widths: Sequence[int], heads: Sequence[int], windows: Sequence[int], ratio: int
) -> dict[str, Tensor]:
    w_dim, layers = 12, 2
    state: dict[str, Tensor] = {"input.input": torch.randn(1, widths[0], 4, 4)}
    for i in range(layers):
        state[f"style.{i + 1}.weight"] = torch.randn(w_dim, w_dim) / 0.01
        state[f"style.{i + 1}.bias"] = 10 * torch.randn(w_dim)
    for i, (width, own, window) in enumerate(zip(widths, heads, windows, strict=True)):
        for j in range(2):
            name = f"layers.{i}.blocks.{j}"
            for norm in ("norm1", "norm2"):
                state[f"{name}.{norm}.style.weight"] = torch.randn(2 * width, w_dim)
                state[f"{name}.{norm}.style.bias"] = torch.randn(2 * width)
            random_layer(state, f"{name}.qkv", 3 * width, width)
            random_layer(state, f"{name}.proj", width, width)
            random_layer(state, f"{name}.mlp.fc1", ratio * width, width)
            random_layer(state, f"{name}.mlp.fc2", width, ratio * width)
            for half in range(2):
                key = f"{name}.attn.{half}"
                state[f"{key}.relative_position_bias_table"] = torch.randn((2 * window - 1) ** 2, own // 2)
                state[f"{key}.relative_position_index"] = torch.zeros(window**2, window**2, dtype=torch.int64)
            if window < 4 << i:
                state[f"{name}.attn_mask2"] = torch.zeros(((4 << i) // window) ** 2, window**2, window**2)
        last = i == len(widths) - 1
        out = width if last else widths[i + 1]
        if not last:
            up = f"layers.{i}.upsample"
            state |= {f"{up}.norm.weight": 1 + torch.randn(width), f"{up}.norm.bias": torch.randn(width)}
            state |= {f"{up}.alpha": torch.randn(1), f"{up}.sin_pos_embed._float_tensor": torch.zeros(1)}
            random_layer(state, f"{up}.reduction", out, width, bias=False)
            state[f"to_rgbs.{i}.upsample.kernel"] = 4 * KERNEL
        random_layer(state, f"to_rgbs.{i}.conv", 3, out, 1, 1)
        state[f"to_rgbs.{i}.bias"] = torch.randn(1, 3, 1, 1)
    return state


def attended(state: State, name: str, x: Tensor, heads: int, window: int, scale: float | None) -> Tensor:
    """One pixel's window at a time: who is in it, by its place, and the softmax over those."""
    N, L, C = x.shape
    side, D = math.isqrt(L), C // 2
    d = C // heads
    qkv = F.linear(x, state[f"{name}.qkv.weight"], state.get(f"{name}.qkv.bias"))
    out = torch.empty(N, L, C)
    shift = window // 2 if window < side else 0
    places = torch.arange(side)
    for half in range(2):
        moved = half * shift
        q, k, v = (each[..., half * D : (half + 1) * D].view(N, L, heads // 2, d) for each in qkv.chunk(3, 2))
        table = state[f"{name}.attn.{half}.relative_position_bias_table"]
        # A window is where pixels come from after rolling; those that came round the edge are apart.
        which = (places - moved) // window  # -1 for the first, incomplete one: its pixels see themselves alone
        mate = (which[:, None] == which).int()
        mates = (mate[:, None, :, None] * mate[None, :, None, :]).reshape(L, L)
        dy = (places[:, None] - places + window - 1)[:, None, :, None].expand(side, side, side, side).reshape(L, L)
        dx = (places[:, None] - places + window - 1)[None, :, None, :].expand(side, side, side, side).reshape(L, L)
        index = (dy * (2 * window - 1) + dx).clamp(0, len(table) - 1)
        logits = torch.einsum("nihd,njhd->nhij", q, k) * (scale or d**-0.5) + table[index].permute(2, 0, 1)
        weights = logits.masked_fill(mates == 0, -math.inf).softmax(3)
        out[..., half * D : (half + 1) * D] = torch.einsum("nhij,njhd->nihd", weights, v).flatten(2)
    return F.linear(out, state[f"{name}.proj.weight"], state[f"{name}.proj.bias"])


def generated(
    state: State,
    z: Tensor,
    heads: Sequence[int],
    windows: Sequence[int],
    scale: float | None,
    truncate: Callable[[Tensor], Tensor],
) -> Tensor:
    w = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    for i in (1, 2):
        w = F.leaky_relu(equal_linear(state, f"style.{i}", w, 0.01), 0.2) * 2**0.5
    w = truncate(w)

    def norm(name: str, x: Tensor) -> Tensor:
        gamma, beta = equal_linear(state, f"{name}.style", w)[:, :, None].chunk(2, 1)
        return (gamma * F.instance_norm(x.transpose(1, 2)) + beta).transpose(1, 2)

    x = state["input.input"].expand(len(z), -1, -1, -1).flatten(2).transpose(1, 2)
    image: Tensor | None = None
    for i, (own, window) in enumerate(zip(heads, windows, strict=True)):
        for j in range(2):
            name = f"layers.{i}.blocks.{j}"
            x = x + attended(state, name, norm(f"{name}.norm1", x), own, window, scale)
            h = F.gelu(F.linear(norm(f"{name}.norm2", x), *(state[f"{name}.mlp.fc1.{k}"] for k in ("weight", "bias"))))
            x = x + F.linear(h, *(state[f"{name}.mlp.fc2.{k}"] for k in ("weight", "bias")))
        side, up = math.isqrt(x.shape[1]), f"layers.{i}.upsample"
        if f"{up}.alpha" in state:
            x = F.interpolate(x.transpose(1, 2).unflatten(2, (side, side)), scale_factor=2, mode="bilinear")
            x = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], state[f"{up}.norm.weight"], state[f"{up}.norm.bias"])
            x = x @ state[f"{up}.reduction.weight"].T  # (N, 2 side, 2 side, C)
            side, C = 2 * side, x.shape[3]
            rate = 10000 ** (-torch.arange(C // 4) / (C // 4 - 1))
            angle = (torch.arange(side) + 1)[:, None] * rate
            code = torch.cat([angle.sin(), angle.cos()], 1)
            grid = torch.cat([code.expand(side, side, -1), code[:, None].expand(side, side, -1)], 2)
            x = (x + state[f"{up}.alpha"] * grid).flatten(1, 2)
        features = x.transpose(1, 2).unflatten(2, (side, side))
        own_image = F.conv2d(features, state[f"to_rgbs.{i}.conv.weight"], state[f"to_rgbs.{i}.conv.bias"])
        own_image = own_image + state[f"to_rgbs.{i}.bias"]
        if image is not None:
            own_image = own_image + (image if image.shape == own_image.shape else upsampled(image))
        image = own_image
    assert image is not None
    return image


@pytest.mark.parametrize(
    ("widths", "heads", "whole", "ratio", "kwargs"),
    [
        ([16, 16, 8], [4, 4, 4], 8, 2, {}),
        ([16, 24, 8], [2, 4, 2], 16, 3, {}),
        ([16, 8, 12, 8], [4, 4, 4, 4], 8, 1, {"qk_scale": 0.5}),
        ([16, 8, 16], [4, 4, 4], 4, 4, {"qkv_bias": False}),
    ],
)
def test_generator_of_any_size(
    widths: list[int], heads: list[int], whole: int, ratio: int, kwargs: dict[str, Any]
) -> None:
    windows = [(4 << i) if (4 << i) <= whole else 8 for i in range(len(widths))]
    state = generator_state(widths, heads, windows, ratio)
    if not kwargs.get("qkv_bias", True):
        state = {key: value for key, value in state.items() if not key.endswith("qkv.bias")}
    kwargs |= {"size": 4 << len(widths) - 1, "style_dim": 12, "n_mlp": 2, "enable_full_resolution": whole}
    z, mean = torch.randn(2, 12), torch.randn(1, 12)
    expected = generated(state, z, heads, windows, kwargs.get("qk_scale"), lambda w: w)
    case = OfficialCase("models.generator.Generator", REPO, kwargs, state)
    ours = import_network(case)
    same(ours.run({"z": z})["img"], expected)
    same(ours.net(z), expected)
    cut = OfficialCase(case.cls, REPO, kwargs, state, sidecar={"forward_kwargs": {"truncation": 0.6}})
    expected = generated(state, z, heads, windows, kwargs.get("qk_scale"), lambda w: mean + 0.6 * (w - mean))
    found = import_network(cut).run({"z": z, "truncation_latent": mean})
    same(found["img"], expected)
    assert found["latent"].shape == (2, 2 * len(widths), 12)


def test_the_mean_of_w_is_measured() -> None:
    state = generator_state([16, 8], [4, 4], [4, 8], 2)
    kwargs = {"size": 8, "style_dim": 12, "n_mlp": 2}
    net = import_network(OfficialCase("models.generator.Generator", REPO, kwargs, state)).net
    w = net.map(torch.randn(20_000, 12))
    assert ((net.mapping.w_avg - w.mean(0)).abs() < 0.1 * w.std(0)).all()


# ------------------------------------------------------------------------------------------- critic


def critic_state(widths: Sequence[int], spectral: bool) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}

    def layer(name: str, out: int, in_: int, *kernel: int, bias: str | None) -> None:
        weight = torch.randn(out, in_, *kernel)
        if spectral:
            state[f"{name}.weight_orig"] = weight
            state[f"{name}.weight_u"] = F.normalize(torch.randn(out), dim=0)
            state[f"{name}.weight_v"] = F.normalize(torch.randn(weight[0].numel()), dim=0)
        else:
            state[f"{name}.weight"] = weight
        if bias is not None:
            state[f"{bias}.bias"] = 0.3 * torch.randn(out)

    for i, width in enumerate(widths):
        layer(f"from_rgbs.{i}.conv.0", width, 12, 1, 1, bias=f"from_rgbs.{i}.conv.1")
        if i:
            state |= {
                f"from_rgbs.{i}.{kind}.{band}": torch.zeros(2, 2) for kind in ("dwt", "iwt") for band in ("ll", "hh")
            }
            state[f"from_rgbs.{i}.downsample.kernel"] = KERNEL
    for i, (in_, out) in enumerate(itertools.pairwise(widths)):
        layer(f"convs.{i}.conv1.0", in_, in_, 3, 3, bias=f"convs.{i}.conv1.1")
        state[f"convs.{i}.conv2.0.kernel"] = KERNEL
        layer(f"convs.{i}.conv2.1", out, in_, 3, 3, bias=f"convs.{i}.conv2.2")
    D = widths[-1]
    layer("final_conv.0", D, D + 1, 3, 3, bias="final_conv.1")
    layer("final_linear.0", D, 16 * D, bias="final_linear.0")
    if spectral:
        state["final_linear.1.bias"] = 0.3 * torch.randn(D)
    last = "final_linear.2" if spectral else "final_linear.1"
    layer(last, 1, D, bias=last)
    return state


def scored(state: State, image: Tensor, levels: int, spectral: bool) -> Tensor:
    def weight(name: str) -> Tensor:
        if not spectral:
            own = state[f"{name}.weight"]
            return own / own[0].numel() ** 0.5
        own, u, v = (state[f"{name}.weight_{each}"] for each in ("orig", "u", "v"))
        return own / torch.dot(u, own.flatten(1) @ v)

    def active(x: Tensor, bias: str) -> Tensor:
        own = state[f"{bias}.bias"]
        return F.leaky_relu(x + (own if x.dim() == 2 else own[:, None, None]), 0.2) * 2**0.5

    x: Tensor | None = None
    for i in range(levels):
        if i:
            image, name = downsampled(image), f"convs.{i - 1}"
            x = active(F.conv2d(x, weight(f"{name}.conv1.0"), padding=1), f"{name}.conv1.1")
            C = x.shape[1]
            x = F.conv2d(F.pad(x, (2, 2, 2, 2)), KERNEL.expand(C, 1, 4, 4), groups=C)
            x = active(F.conv2d(x, weight(f"{name}.conv2.1"), stride=2), f"{name}.conv2.2")
        a, b, c, d = (image[..., y::2, x_::2] for y in range(2) for x_ in range(2))
        bands = torch.cat([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d], 1) / 2
        y = active(F.conv2d(bands, weight(f"from_rgbs.{i}.conv.0")), f"from_rgbs.{i}.conv.1")
        x = y if x is None else x + y
    assert x is not None
    N, C, H, W = x.shape
    group = min(N, 4)
    varies = (x.view(group, -1, 1, C, H, W).var(0, unbiased=False) + 1e-8).sqrt().mean((2, 3, 4)).repeat(group, 1)
    x = torch.cat([x, varies[:, :, None, None].expand(-1, -1, H, W)], 1)
    x = active(F.conv2d(x, weight("final_conv.0"), padding=1), "final_conv.1").flatten(1)
    x = F.linear(x, weight("final_linear.0"))
    if spectral:
        x = active(x + state["final_linear.0.bias"], "final_linear.1")
        return F.linear(x, weight("final_linear.2"), state["final_linear.2.bias"])
    return F.linear(active(x, "final_linear.0"), weight("final_linear.1"), state["final_linear.1.bias"])


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize(("size", "widths", "n"), [(16, [8, 12], 4), (64, [4, 6, 8, 10], 8), (32, [6, 6, 8], 2)])
def test_critic_of_any_size(size: int, widths: list[int], n: int, spectral: bool) -> None:
    state, images = critic_state(widths, spectral), torch.randn(n, 3, size, size)
    case = OfficialCase("models.discriminator.Discriminator", REPO, {"size": size, "sn": spectral}, state)
    found = import_network(case).run({"img": images})
    again = images.clone().requires_grad_()
    expected = scored(state, again, len(widths), spectral)
    (slope,) = torch.autograd.grad(expected.sum(), again)
    same(found["logits"], expected.detach())
    same(found["grad_input"], slope)


def test_options_without_a_counterpart_are_refused() -> None:
    state = critic_state([8, 12], spectral=False)
    kwargs = {"size": 16, "blur_kernel": [1, 2, 1]}
    with pytest.raises(NoImporter, match="blur_kernel"):
        import_network(OfficialCase("models.discriminator.Discriminator", REPO, kwargs, state))
    with pytest.raises(CheckpointError, match="not fit"):
        import_network(
            OfficialCase("models.discriminator.Discriminator", REPO, {"size": 16}, {**state, "extra": torch.zeros(1)})
        )
