"""Imported StyleGAN2 networks against the published formulas, at the options that no golden case has.

The official networks' tensors are drawn at random under their official names, and a slow reference reads them: kernels
of single samples, zeros that are inserted and convolved, gains where the papers have them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganvas.errors import CheckpointError
from ganvas.interop.registry import NoImporter, OfficialCase, import_network

REPO = "NVlabs/stylegan3"
Z, W, N = 6, 5, 4


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# ------------------------------------------------------------------------------------------- official tensors


def widths(options: dict[str, Any]) -> dict[int, int]:
    sizes = [2**i for i in range(2, options["img_resolution"].bit_length())]
    return {size: min(options["channel_base"] // size, options["channel_max"]) for size in sizes}


def square_filter(taps: list[float]) -> Tensor:
    f = torch.tensor(taps)
    return torch.outer(f, f) / f.sum() ** 2


def mapping_state(options: dict[str, Any], in_: int, w_dim: int) -> dict[str, Tensor]:
    own = options.get("mapping_kwargs", {})
    embed = own.get("embed_features", w_dim) if options["c_dim"] else 0
    layers, hidden = own.get("num_layers", 8), own.get("layer_features", w_dim)
    dims = [in_ + embed, *[hidden] * (layers - 1), w_dim]
    state = {}
    if embed:
        state |= {
            "mapping.embed.weight": torch.randn(embed, options["c_dim"]),
            "mapping.embed.bias": torch.randn(embed),
        }
    for i in range(layers):
        state[f"mapping.fc{i}.weight"] = torch.randn(dims[i + 1], dims[i]) * 100
        state[f"mapping.fc{i}.bias"] = torch.randn(dims[i + 1]) * 10
    return state


def generator_state(options: dict[str, Any]) -> dict[str, Tensor]:
    state = mapping_state(options, Z, W) | {"mapping.w_avg": torch.randn(W)}
    channels, arch = widths(options), options.get("architecture", "skip")
    filter_ = square_filter(options.get("resample_filter", [1, 3, 3, 1]))
    for size, out in channels.items():
        in_, block = channels.get(size // 2), f"synthesis.b{size}"
        state[f"{block}.resample_filter"] = filter_
        if in_ is None:
            state[f"{block}.const"] = torch.randn(out, size, size)
        layers = ([("conv0", in_)] if in_ else []) + [("conv1", out)]
        for name, fan in layers:
            own = f"{block}.{name}"
            state |= {f"{own}.weight": torch.randn(out, fan, 3, 3), f"{own}.bias": torch.randn(out)}
            state[f"{own}.resample_filter"] = filter_ if name == "conv0" else square_filter([1, 3, 3, 1])
            if options.get("use_noise", True):
                state |= {f"{own}.noise_const": torch.randn(size, size), f"{own}.noise_strength": torch.randn(())}
            state |= {f"{own}.affine.weight": torch.randn(fan, W), f"{own}.affine.bias": torch.randn(fan)}
        if arch == "skip" or size == max(channels):
            own, c = f"{block}.torgb", options["img_channels"]
            state |= {f"{own}.weight": torch.randn(c, out, 1, 1), f"{own}.bias": torch.randn(c)}
            state |= {f"{own}.affine.weight": torch.randn(out, W), f"{own}.affine.bias": torch.randn(out)}
        if arch == "resnet" and in_:
            state |= {f"{block}.skip.weight": torch.randn(out, in_, 1, 1), f"{block}.skip.resample_filter": filter_}
    return state


def critic_state(options: dict[str, Any]) -> dict[str, Tensor]:
    channels, arch = widths(options), options.get("architecture", "resnet")
    filter_ = square_filter(options.get("block_kwargs", {}).get("resample_filter", [1, 3, 3, 1]))
    last = options.get("epilogue_kwargs", {})
    cmap = (options.get("cmap_dim") or channels[4]) if options["c_dim"] else 0
    state = mapping_state(options, 0, cmap) if cmap else {}

    def conv(name: str, out: int, in_: int, k: int, bias: bool = True) -> None:
        state[f"{name}.weight"] = torch.randn(out, in_, k, k)
        state[f"{name}.resample_filter"] = filter_ if name.endswith(("conv1", "skip")) else square_filter([1, 3, 3, 1])
        if bias:
            state[f"{name}.bias"] = torch.randn(out)

    for size in sorted(channels, reverse=True)[:-1]:
        here, out = channels[size], channels[size // 2]
        state[f"b{size}.resample_filter"] = filter_
        if size == max(channels) or arch == "skip":
            conv(f"b{size}.fromrgb", here, options["img_channels"], 1)
        conv(f"b{size}.conv0", here, here, 3)
        conv(f"b{size}.conv1", out, here, 3)
        if arch == "resnet":
            conv(f"b{size}.skip", out, here, 1, bias=False)
    four = channels[4]
    if arch == "skip":
        conv("b4.fromrgb", four, options["img_channels"], 1)
    conv("b4.conv", four, four + last.get("mbstd_num_channels", 1), 3)
    state |= {"b4.fc.weight": torch.randn(four, four * 16), "b4.fc.bias": torch.randn(four)}
    state |= {"b4.out.weight": torch.randn(cmap or 1, four), "b4.out.bias": torch.randn(cmap or 1)}
    return state


# ------------------------------------------------------------------------------------------- the slow reference


def firdn(x: Tensor, f: Tensor, up: int, down: int, pad: tuple[int, int], gain: float) -> Tensor:
    n, c, h, w = x.shape
    wide = x.new_zeros(n, c, h, up, w, up)
    wide[:, :, :, 0, :, 0] = x
    wide = F.pad(wide.reshape(n, c, h * up, w * up), (*pad, *pad)).reshape(
        n * c, 1, h * up + sum(pad), w * up + sum(pad)
    )
    out = gain * F.conv2d(wide, f.flip((0, 1))[None, None])
    return out.reshape(n, c, *out.shape[2:])[:, :, ::down, ::down]


def resample(x: Tensor, w: Tensor, f: Tensor, up: int = 1, down: int = 1) -> Tensor:
    k, K = w.shape[-1], len(f)
    a = b = k // 2
    if up > 1:
        a, b = a + (K + up - 1) // 2, b + (K - up) // 2
        return F.conv2d(firdn(x, f, up, 1, (a, b), up**2), w.flip((2, 3)))
    if down > 1:
        a, b = a + (K - down + 1) // 2, b + (K - down) // 2
        return firdn(F.conv2d(F.pad(x, (a, b, a, b)), w), f, 1, down, (0, 0), 1)
    return F.conv2d(x, w, padding=k // 2)


def act(x: Tensor, clamp: float | None, gain: float = 1.0, leaky: bool = True) -> Tensor:
    x = (F.leaky_relu(x, 0.2) * math.sqrt(2) if leaky else x) * gain
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def unit(x: Tensor) -> Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def slow_mapping(s: dict[str, Tensor], options: dict[str, Any], z: Tensor | None, c: Tensor | None) -> Tensor:
    rate = options.get("mapping_kwargs", {}).get("lr_multiplier", 0.01)
    parts = [] if z is None else [unit(z)]
    if c is not None:
        weight = s["mapping.embed.weight"]
        parts.append(unit(c @ weight.T / math.sqrt(weight.shape[1]) + s["mapping.embed.bias"]))
    x = torch.cat(parts, 1)
    for i in range(sum(key.startswith("mapping.fc") for key in s) // 2):
        weight, bias = s[f"mapping.fc{i}.weight"], s[f"mapping.fc{i}.bias"]
        x = act(x @ (weight * rate / math.sqrt(weight.shape[1])).T + bias * rate, None)
    return x


def slow_generator(s: dict[str, Tensor], options: dict[str, Any], z: Tensor, c: Tensor | None) -> dict[str, Tensor]:
    forward = options.get("forward", {})
    w = slow_mapping(s, options, z, c)
    sizes, arch = list(widths(options)), options.get("architecture", "skip")
    ws = w[:, None].repeat(1, 2 * len(sizes), 1)
    psi, cutoff = forward.get("truncation_psi", 1), forward.get("truncation_cutoff") or ws.shape[1]
    ws[:, :cutoff] = s["mapping.w_avg"] + psi * (ws[:, :cutoff] - s["mapping.w_avg"])
    clamp = options.get("conv_clamp", 256)

    def modulated(x: Tensor, name: str, w: Tensor, up: int, gain: float) -> Tensor:
        style = w @ s[f"{name}.affine.weight"].T / math.sqrt(W) + s[f"{name}.affine.bias"]
        outs = []
        for image, own in zip(x, style, strict=True):
            kernel = s[f"{name}.weight"] * own[None, :, None, None]
            kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
            outs.append(resample(image[None], kernel, f, up=up))
        x = torch.cat(outs)
        if f"{name}.noise_const" in s and forward.get("noise_mode") == "const":
            x = x + s[f"{name}.noise_const"] * s[f"{name}.noise_strength"]
        return act(x + s[f"{name}.bias"][:, None, None], clamp, gain)

    image, x = None, s["synthesis.b4.const"].repeat(len(z), 1, 1, 1)
    for i, size in enumerate(sizes):
        b, f = f"synthesis.b{size}", s[f"synthesis.b{size}.resample_filter"]
        half = math.sqrt(0.5) if arch == "resnet" and i else 1.0
        at = max(0, 2 * i - 1)  # the number of convolutions before
        skip = None
        if i:
            if arch == "resnet":
                weight = s[f"{b}.skip.weight"]
                skip = resample(x, weight / math.sqrt(weight.shape[1]), f, up=2) * half
            x = modulated(x, f"{b}.conv0", ws[:, at], 2, 1.0)
            at += 1
        x = modulated(x, f"{b}.conv1", ws[:, at], 1, half)
        x = x if skip is None else x + skip
        if image is not None:
            image = firdn(image, f, 2, 1, ((len(f) + 1) // 2, (len(f) - 2) // 2), 4)
        if f"{b}.torgb.weight" in s:
            weight = s[f"{b}.torgb.weight"]
            style = ws[:, at + 1] @ s[f"{b}.torgb.affine.weight"].T / math.sqrt(W) + s[f"{b}.torgb.affine.bias"]
            y = torch.einsum("oi,ni,nihw->nohw", weight[:, :, 0, 0] / math.sqrt(weight.shape[1]), style, x)
            y = act(y + s[f"{b}.torgb.bias"][:, None, None], clamp, leaky=False)
            image = y if image is None else image + y
    assert image is not None
    return {"ws": ws, "img": image}


def slow_critic(s: dict[str, Tensor], options: dict[str, Any], image: Tensor, c: Tensor | None) -> Tensor:
    arch, clamp = options.get("architecture", "resnet"), options.get("conv_clamp", 256)
    last = options.get("epilogue_kwargs", {})

    def conv(x: Tensor, name: str, f: Tensor, down: int = 1, gain: float = 1.0, clamp: float | None = clamp) -> Tensor:
        weight = s[f"{name}.weight"]
        x = resample(x, weight / math.sqrt(weight[0].numel()), f, down=down)
        return act(x + s[f"{name}.bias"][:, None, None], clamp, gain) if f"{name}.bias" in s else x * gain

    x: Tensor | None = None
    sizes = sorted(widths(options), reverse=True)
    for size in sizes[:-1]:
        b, f = f"b{size}", s[f"b{size}.resample_filter"]
        if f"{b}.fromrgb.weight" in s:
            y = conv(image, f"{b}.fromrgb", f)
            x = y if x is None else x + y
            if arch == "skip":
                image = firdn(image, f, 1, 2, ((len(f) - 1) // 2, (len(f) - 2) // 2), 1)
        assert x is not None
        half = math.sqrt(0.5) if arch == "resnet" else 1.0
        h = conv(conv(x, f"{b}.conv0", f), f"{b}.conv1", f, down=2, gain=half)
        x = h + conv(x, f"{b}.skip", f, down=2, gain=half) if arch == "resnet" else h
    assert x is not None
    if arch == "skip":
        x = x + conv(image, "b4.fromrgb", f, clamp=None)
    group, parts = last.get("mbstd_group_size", 4), last.get("mbstd_num_channels", 1)
    if parts:
        group = len(x) if group is None else min(group, len(x))
        y = x.reshape(group, -1, parts, x.shape[1] // parts, 4, 4)
        y = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean((2, 3, 4))  # (N / group, parts)
        x = torch.cat([x, y.repeat(group, 1)[:, :, None, None].expand(-1, -1, 4, 4)], 1)
    x = conv(x, "b4.conv", f).flatten(1)
    x = act(x @ (s["b4.fc.weight"] / math.sqrt(x.shape[1])).T + s["b4.fc.bias"], None)
    x = x @ (s["b4.out.weight"] / math.sqrt(x.shape[1])).T + s["b4.out.bias"]
    if c is None:
        return x
    code = slow_mapping(s, options, None, c)
    return (x * code).sum(1, keepdim=True) / math.sqrt(code.shape[1])


# ------------------------------------------------------------------------------------------- the comparison

SMALL = {"img_resolution": 16, "img_channels": 3, "channel_base": 64, "channel_max": 8, "c_dim": 0}


def official(cls: str, options: dict[str, Any], make: Callable[[dict[str, Any]], dict[str, Tensor]]) -> OfficialCase:
    kwargs = {key: value for key, value in options.items() if key != "forward"}
    if cls == "Generator":
        kwargs |= {"z_dim": Z, "w_dim": W}
    sidecar = {"forward_kwargs": options.get("forward", {})}
    return OfficialCase(f"training.networks_stylegan2.{cls}", REPO, kwargs, make(options), sidecar=sidecar)


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.std()


@pytest.mark.parametrize(
    "options",
    [
        {"architecture": "resnet"},
        {"architecture": "orig", "img_channels": 1, "forward": {"noise_mode": "none"}},
        {"c_dim": 3, "mapping_kwargs": {"num_layers": 2, "embed_features": 4, "layer_features": 7}},
        {"forward": {"truncation_psi": 0.5, "truncation_cutoff": 3}, "conv_clamp": None, "num_fp16_res": 4},
        {"conv_clamp": 0.7, "architecture": "resnet"},
        {"img_resolution": 64, "channel_base": 256, "resample_filter": [1, 2, 4]},
        {"use_noise": False, "mapping_kwargs": {"num_layers": 1, "lr_multiplier": 0.1}},
        {"img_resolution": 8, "resample_filter": [1, 2, 3, 4, 5, 6]},
    ],
    ids=str,
)
def test_generator_at_other_options(options: dict[str, Any]) -> None:
    options = {**SMALL, **options}
    options["forward"] = {"noise_mode": "const", **options.get("forward", {})}
    case = official("Generator", options, generator_state)
    inputs = {"z": torch.randn(N, Z)}
    if options["c_dim"]:
        inputs["c"] = F.one_hot(torch.arange(N) % options["c_dim"], options["c_dim"]).float()
    ours = import_network(case).run(inputs, ["synthesis.b8.conv1", "mapping"])
    theirs = slow_generator(dict(case.state), options, inputs["z"], inputs.get("c"))
    close(ours["ws"], theirs["ws"])
    close(ours["img"], theirs["img"])


@pytest.mark.parametrize(
    "options",
    [
        {"architecture": "orig"},
        {"architecture": "skip", "img_channels": 1},
        {"c_dim": 3, "mapping_kwargs": {"num_layers": 2}},
        {"c_dim": 3, "cmap_dim": 5, "architecture": "orig", "epilogue_kwargs": {"mbstd_group_size": None}},
        {"epilogue_kwargs": {"mbstd_group_size": 2, "mbstd_num_channels": 4}, "conv_clamp": 0.5},
        {"epilogue_kwargs": {"mbstd_num_channels": 0}, "conv_clamp": None, "block_kwargs": {"freeze_layers": 3}},
        {"img_resolution": 64, "channel_base": 256, "block_kwargs": {"resample_filter": [1, 2, 4]}},
    ],
    ids=str,
)
def test_critic_at_other_options(options: dict[str, Any]) -> None:
    options = {**SMALL, **options}
    case = official("Discriminator", options, critic_state)
    side = options["img_resolution"]
    image = torch.randn(N, options["img_channels"], side, side, requires_grad=True)
    inputs = {"img": image.detach()}
    if options["c_dim"]:
        inputs["c"] = F.one_hot(torch.arange(N) % options["c_dim"], options["c_dim"]).float()
    ours = import_network(case).run(inputs, [f"b{side}"])
    logits = slow_critic(dict(case.state), options, image, inputs.get("c"))
    close(ours["logits"], logits.detach())
    close(ours["grad_input"], torch.autograd.grad(logits.sum(), image)[0])


def test_the_older_code_base_has_the_same_networks() -> None:
    newer = official("Generator", {**SMALL, "forward": {"noise_mode": "const"}}, generator_state)
    outer = {key: newer.kwargs[key] for key in ("z_dim", "w_dim", "c_dim", "img_resolution", "img_channels")}
    inner = {key: newer.kwargs[key] for key in ("channel_base", "channel_max")}
    older = OfficialCase(
        "training.networks.Generator", "NVlabs/stylegan2-ada-pytorch", {**outer, "synthesis_kwargs": inner},
        newer.state, sidecar=newer.sidecar,
    )  # fmt: skip
    z = {"z": torch.randn(2, Z)}
    assert torch.equal(import_network(older).run(z)["img"], import_network(newer).run(z)["img"])


def test_what_is_not_understood_is_refused() -> None:
    other = official("Generator", {**SMALL, "activation": "relu"}, generator_state)
    with pytest.raises(NoImporter, match="activation='relu'"):
        import_network(other)
    torn = official("Generator", SMALL, generator_state)
    del torn.state["synthesis.b8.conv0.bias"]  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match=r"synthesis\.blocks\.1\.conv0\.bias is missing"):
        import_network(torn)
