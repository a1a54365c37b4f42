"""Importers of transformer pairs at sizes and options beyond the golden cases.

The official graphs are written out over official keys, in the order of operations of the official code.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganvas.errors import CheckpointError
from ganvas.interop.registry import NoImporter, OfficialCase, import_network

LADAGAN, VITGAN, TRANSGAN = (
    "milmor/LadaGAN (pytorch/)", "mlpc-ucsd/ViTGAN (authors' PyTorch reproduction)", "VITA-Group/TransGAN",
)  # fmt: skip


class Keys(dict[str, Tensor]):
    """A random state dict under official names."""

    def add(self, name: str, *shape: int, around: float = 0.0) -> None:
        fan_in = max(1, int(torch.tensor(shape[1:]).prod())) if len(shape) > 1 else 100
        self[name] = around + torch.randn(*shape) / fan_in**0.5

    def linear(self, name: str, in_: int, out: int, *kernel: int, bias: bool = True) -> None:
        self.add(f"{name}.weight", out, in_, *kernel)
        if bias:
            self.add(f"{name}.bias", out)

    def batch_norm(self, name: str, channels: int) -> None:
        self.add(f"{name}.weight", channels, around=1)
        self.add(f"{name}.bias", channels)
        self.add(f"{name}.running_mean", channels)
        self[f"{name}.running_var"] = 0.5 + torch.rand(channels)


def same(ours: Tensor, official: Tensor) -> None:
    assert ours.shape == official.shape
    assert (ours - official).abs().max() <= 1e-4 * official.std()


class Graph:
    """Layers by their official names."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state

    def get(self, name: str) -> Tensor | None:
        return self.state.get(name)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.get(f"{name}.bias"))

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.get(f"{name}.bias"), stride, padding)

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self.state[f"{name}.{key}"] for key in keys))


def as_map(x: Tensor) -> Tensor:
    side = int(x.shape[1] ** 0.5)
    return x.permute(0, 2, 1).reshape(len(x), x.shape[2], side, side)


def as_tokens(x: Tensor) -> Tensor:
    return x.flatten(2).permute(0, 2, 1)


# ------------------------------------------------------------------------------------------- LadaGAN


class LadaGAN(Graph):
    def attention(self, name: str, x: Tensor) -> Tensor:
        q, k, v = self.linear(f"{name}.to_qkv", x).chunk(3, dim=-1)
        heads = len(self.state[f"{name}.q_attn.weight"])
        alpha = (self.linear(f"{name}.q_attn", q) * (q.shape[2] // heads) ** -0.5).softmax(1)  # (N, L, h)
        parts = []
        for head, (qh, kh, vh) in enumerate(zip(q.chunk(heads, 2), k.chunk(heads, 2), v.chunk(heads, 2), strict=True)):
            parts.append(vh * kh * (alpha[:, :, head, None] * qh).sum(1, keepdim=True))
        return self.linear(f"{name}.to_out", torch.cat(parts, 2))

    def modulated(self, name: str, x: Tensor, z: Tensor) -> Tensor:
        h = self.linear(f"{name}.h.0", z).relu()
        gamma, beta = self.linear(f"{name}.mlp_gamma", h)[:, None], self.linear(f"{name}.mlp_beta", h)[:, None]
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * gamma + beta

    def mlp(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f"{name}.mlp.2", F.gelu(self.linear(f"{name}.mlp.0", x)))

    def generate(self, z: Tensor, patch: int) -> Tensor:
        x = self.linear("init.0", z).view(len(z), 64, -1)
        for tokens in (64, 256, 1024):
            if tokens > 64:
                x = as_tokens(self.conv(f"conv_{tokens}", F.pixel_shuffle(as_map(x), 2), padding=1))
            x = x + self.state[f"pos_{tokens}"]
            name = f"block_{tokens}"
            x = self.attention(f"{name}.attn", self.modulated(f"{name}.ln_1", x, z)) + x
            x = self.mlp(name, self.modulated(f"{name}.ln_2", x, z))
        return self.conv("ch_conv", F.pixel_shuffle(as_map(x), patch), padding=1)

    def score(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv("inp_conv.0", x, padding=1), 0.2)
        for i in range(3):
            name = f"encoder.{i}"
            if f"{name}.main.0.weight" not in self.state:
                break
            a = F.leaky_relu(self.batch_norm(f"{name}.main.1", self.conv(f"{name}.main.0", x, 2, 1)), 0.2)
            a = F.leaky_relu(self.batch_norm(f"{name}.main.4", self.conv(f"{name}.main.3", a, 1, 1)), 0.2)
            b = self.batch_norm(f"{name}.direct.2", self.conv(f"{name}.direct.1", F.avg_pool2d(x, 2)))
            x = (a + F.leaky_relu(b, 0.2)) / 2
        x = as_tokens(x) + self.state["pos_256"]
        for name, inner in (("ln_1", "attn"), ("ln_2", "mlp")):
            weight, bias = self.state[f"block_256.{name}.weight"], self.state[f"block_256.{name}.bias"]
            y = F.layer_norm(x, x.shape[-1:], weight, bias)
            x = (self.attention("block_256.attn", y) if inner == "attn" else self.mlp("block_256", y)) + x
        x = self.conv("conv_256", F.pixel_unshuffle(as_map(x), 2), padding=1)
        return self.conv("logits.2", F.leaky_relu(self.conv("logits.0", x), 0.2)).flatten(1)


def lada_block(keys: Keys, name: str, width: int, heads: int, hidden: int, z_dim: int | None) -> None:
    keys.linear(f"{name}.attn.to_qkv", width, 3 * width)
    keys.linear(f"{name}.attn.q_attn", width, heads)
    keys.linear(f"{name}.attn.to_out", width, width)
    keys.linear(f"{name}.mlp.0", width, hidden)
    keys.linear(f"{name}.mlp.2", hidden, width)
    for norm in ("ln_1", "ln_2"):
        if z_dim is None:
            keys.add(f"{name}.{norm}.weight", width, around=1)
            keys.add(f"{name}.{norm}.bias", width)
        else:
            keys.linear(f"{name}.{norm}.h.0", z_dim, width)
            keys.linear(f"{name}.{norm}.mlp_gamma", width, width)
            keys.linear(f"{name}.{norm}.mlp_beta", width, width)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_ladagan_generators(patch: int) -> None:
    keys, widths = Keys(), (256, 64, 16)
    keys.linear("init.0", 12, 64 * widths[0], bias=False)
    for tokens, width, heads, hidden in zip((64, 256, 1024), widths, (4, 2, 1), (20, 24, 12), strict=True):
        lada_block(keys, f"block_{tokens}", width, heads, hidden, 12)
        keys.add(f"pos_{tokens}", 1, tokens, width)
        if tokens > 64:
            keys.linear(f"conv_{tokens}", width, width, 3, 3)
    keys.linear("ch_conv", widths[-1] // patch**2, 3, 3, 3)
    ours = import_network(OfficialCase("model.Generator", LADAGAN, {"img_size": 32 * patch}, keys))
    z = torch.randn(2, 12)
    same(ours.run({"z": z})["img"], LadaGAN(keys).generate(z, patch))


@pytest.mark.parametrize("widths", [(6, 8), (4, 6, 8), (2, 4, 6, 8)])
def test_ladagan_critics(widths: tuple[int, ...]) -> None:
    keys = Keys()
    keys.linear("inp_conv.0", 3, widths[0], 3, 3, bias=False)
    for i, (in_, out) in enumerate(pairwise(widths)):
        keys.linear(f"encoder.{i}.main.0", in_, out, 3, 3, bias=False)
        keys.linear(f"encoder.{i}.main.3", out, out, 3, 3, bias=False)
        keys.linear(f"encoder.{i}.direct.1", in_, out, 1, 1, bias=False)
        for norm in ("main.1", "main.4", "direct.2"):
            keys.batch_norm(f"encoder.{i}.{norm}", out)
    keys.add("pos_256", 1, 256, 8)
    lada_block(keys, "block_256", 8, 2, 20, None)
    keys.linear("conv_256", 32, 10, 3, 3)
    keys.linear("logits.0", 10, 14, 1, 1, bias=False)
    keys.linear("logits.2", 14, 1, 4, 4, bias=False)
    ours = import_network(OfficialCase("model.Discriminator", LADAGAN, {}, keys))
    image = torch.randn(2, 3, 16 << (len(widths) - 1), 16 << (len(widths) - 1))
    same(ours.run({"img": image})["logits"], LadaGAN(keys).score(image))


# ------------------------------------------------------------------------------------------- ViTGAN


class ViTGAN(Graph):
    def __init__(self, state: Mapping[str, Tensor], multipliers: Mapping[str, Tensor]) -> None:
        super().__init__(state)
        self.multipliers = multipliers

    def equal(self, name: str, x: Tensor, lr: float = 1.0, start: float = 0.0) -> Tensor:
        weight = self.state[f"{name}.weight"] * (weight_gain(self.state[f"{name}.weight"]) * lr)
        return F.linear(x, weight, self.state[f"{name}.bias"] * lr + start)

    def spectral(self, name: str, x: Tensor) -> Tensor:
        weight, u = self.state[f"{name}.module.weight_bar"], self.state[f"{name}.module.weight_u"]
        v = weight.T @ u
        v = v / (v.norm() + 1e-4)
        u = weight @ v
        u = u / (u.norm() + 1e-4)
        weight = self.multipliers[name] * weight / (u @ weight @ v)
        return F.linear(x, weight * weight_gain(weight), self.state[f"{name}.module.bias"])

    def mapping(self, prefix: str, z: Tensor, layers: int) -> Tensor:
        z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for i in range(1, layers + 1):
            z = F.leaky_relu(self.equal(f"{prefix}style.{i}", z, lr=0.01), 0.2) * 2**0.5
        return z

    def places(self, prefix: str, side: int) -> Tensor:
        line = torch.linspace(-1, 1, side)
        x, y = line.view(1, 1, 1, -1).repeat(1, 1, side, 1), line.view(1, 1, -1, 1).repeat(1, 1, 1, side)
        return torch.sin(self.conv(f"{prefix}lff.ffm.conv", torch.cat([x, y], 1)))

    def norm(self, name: str, x: Tensor, w: Tensor) -> Tensor:
        gamma, beta = self.equal(f"{name}.mlp_gamma", w)[:, None], self.equal(f"{name}.mlp_beta", w)[:, None]
        return F.layer_norm(x, x.shape[-1:], eps=0.001) * (1 + gamma) + beta

    def block(self, name: str, x: Tensor, w: Tensor) -> Tensor:
        x = self.norm(f"{name}.layernorm1", x, w)
        q, k, v = (
            each.unflatten(2, (6, -1)).transpose(1, 2) for each in self.spectral(f"{name}.attn.to_qkv", x).chunk(3, -1)
        )
        squares = q.square().mean(-1, keepdim=True)
        dots = (squares - 2 * q @ k.transpose(2, 3) + squares.transpose(2, 3)) * q.shape[-1] ** -0.5
        weights = (dots * self.state[f"{name}.attn.temperature"]).softmax(-1)
        x = self.spectral(f"{name}.attn.to_out.0", (weights @ v).transpose(1, 2).flatten(2)) + x
        x = self.norm(f"{name}.layernorm2", x, w)
        return self.spectral(f"{name}.ff.net.3", F.silu(self.spectral(f"{name}.ff.net.0", x))) + x

    def modulated(self, name: str, x: Tensor, w: Tensor, *, up: bool = False, demodulate: bool = True) -> Tensor:
        """One kernel a sample, and the batch as groups."""
        style = self.equal(f"{name}.modulation", w, start=1.0)
        weight = self.state[f"{name}.weight"] * style[:, None, :, None, None]
        weight = weight * weight_gain(self.state[f"{name}.weight"][0])
        if demodulate:
            weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        N, out, _, k, _ = weight.shape
        groups = x.reshape(1, -1, *x.shape[2:])
        if not up:
            return F.conv2d(groups, weight.flatten(0, 1), padding=k // 2, groups=N).view(N, out, *x.shape[2:])
        y = F.conv_transpose2d(groups, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=N)
        kernel = self.state[f"{name}.blur.kernel"]
        return F.conv2d(F.pad(y.view(N * out, 1, *y.shape[2:]), (1, 1, 1, 1)), kernel[None, None]).unflatten(
            0, (N, out)
        )[:, :, 0]

    def styled(self, name: str, x: Tensor, w: Tensor, *, up: bool = False) -> Tensor:
        x = self.modulated(f"{name}.conv", x, w, up=up) + self.state[f"{name}.activate.bias"][:, None, None]
        return F.leaky_relu(x, 0.2) * 2**0.5

    def to_rgb(self, name: str, x: Tensor, w: Tensor) -> Tensor:
        return self.modulated(f"{name}.conv", x, w, demodulate=False) + self.state[f"{name}.bias"]

    def generate(self, z: Tensor, layers: int, n_mlp: int, tokens: int, patch: int, implicit: bool) -> Tensor:
        w = self.mapping("", z, n_mlp)
        x = as_tokens(self.places("", tokens)).expand(len(z), -1, -1)
        for i in range(layers):
            x = self.block(f"layers.{i}", x, w)
        x = self.norm("layernorm", x, w)
        if not implicit:
            x = as_map(x)
            for i in range(2 * (patch.bit_length() - 1)):
                x = self.styled(f"convs.{i}", x, w, up=i % 2 == 0)
            return self.to_rgb("to_rgb", x, w)
        s = self.mapping("cips.", x.flatten(0, 1), 4)
        x = self.places("cips.", patch).repeat(len(s), 1, 1, 1)
        for name in ("conv1", "layers.0", "layers.1"):
            x = self.styled(f"cips.{name}", x, s)
        x = (0.5 * self.to_rgb("cips.to_rgbs.0", x, s) + 0.5).clamp(0, 1)
        x = x.view(len(z), tokens, tokens, 3, patch, patch).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(len(z), 3, tokens * patch, tokens * patch)


def weight_gain(weight: Tensor) -> float:
    return weight[0].numel() ** -0.5


def styled_keys(keys: Keys, name: str, in_: int, out: int, kernel: int, style: int, *, blur: bool) -> None:
    keys[f"{name}.conv.weight"] = torch.randn(1, out, in_, kernel, kernel)
    keys[f"{name}.conv.modulation.weight"] = torch.randn(in_, style)
    keys.add(f"{name}.conv.modulation.bias", in_)
    if blur:
        taps = torch.tensor([1.0, 3, 3, 1])
        keys[f"{name}.conv.blur.kernel"] = torch.outer(taps, taps) / 16
    if "rgb" in name:
        keys[f"{name}.bias"] = torch.randn(1, out, 1, 1)
    else:
        keys[f"{name}.noise.weight"] = torch.zeros(1)
        keys.add(f"{name}.activate.bias", out)


def vitgan_keys(width: int, layers: int, n_mlp: int, patch: int, implicit: bool) -> tuple[Keys, dict[str, Tensor]]:
    keys, multipliers, inner = Keys(), {}, 6 * (width // 6)

    def equal(name: str, in_: int, out: int, scale: float = 1.0) -> None:
        keys[f"{name}.weight"] = torch.randn(out, in_) * scale
        keys[f"{name}.bias"] = torch.randn(out) * 0.1 * scale

    for prefix, count in (("", n_mlp), ("cips.", 4 if implicit else 0)):
        for i in range(1, count + 1):
            equal(f"{prefix}style.{i}", width, width, 100.0)
        if count:
            keys.linear(f"{prefix}lff.ffm.conv", 2, width, 1, 1)
    for i in range(layers):
        for name, in_, out in (
            ("attn.to_qkv", width, 3 * inner), ("attn.to_out.0", inner, width),
            ("ff.net.0", width, 4 * width), ("ff.net.3", 4 * width, width),
        ):  # fmt: skip
            module = f"layers.{i}.{name}"
            keys[f"{module}.module.weight_bar"] = torch.randn(out, in_)
            keys[f"{module}.module.weight_u"] = F.normalize(torch.randn(out), dim=0)
            keys[f"{module}.module.weight_v"] = F.normalize(torch.randn(out), dim=0)  # of its wrong length there, too
            keys[f"{module}.module.bias"] = 0.1 * torch.randn(out)
            multipliers[module] = torch.tensor(float(in_**0.5 + out**0.5))
        keys[f"layers.{i}.attn.temperature"] = torch.tensor([0.8])
        for norm in ("layernorm1", "layernorm2"):
            equal(f"layers.{i}.{norm}.mlp_gamma", width, width)
            equal(f"layers.{i}.{norm}.mlp_beta", width, width)
    equal("layernorm.mlp_gamma", width, width)
    equal("layernorm.mlp_beta", width, width)
    if implicit:
        for name, in_ in (("conv1", width), ("layers.0", 20), ("layers.1", 20)):
            styled_keys(keys, f"cips.{name}", in_, 20, 1, width, blur=False)
        styled_keys(keys, "cips.to_rgbs.0", 20, 3, 1, width, blur=False)
        return keys, multipliers
    in_ = width
    for i in range(patch.bit_length() - 1):
        out = max(6, width >> i)
        styled_keys(keys, f"convs.{2 * i}", in_, out, 3, width, blur=True)
        styled_keys(keys, f"convs.{2 * i + 1}", out, out, 3, width, blur=False)
        in_ = out
    styled_keys(keys, "to_rgb", in_, 3, 1, width, blur=False)
    return keys, multipliers


@pytest.mark.parametrize("told", [True, False], ids=["multipliers", "none"])
@pytest.mark.parametrize(
    ("width", "size", "tokens", "implicit"),
    [(24, 64, 8, False), (26, 16, 8, False), (24, 32, 8, True), (24, 24, 4, True)],
)
def test_vitgan_generators(width: int, size: int, tokens: int, implicit: bool, told: bool) -> None:
    patch = size // tokens
    keys, multipliers = vitgan_keys(width, 3, 4, patch, implicit)
    if told:
        multipliers = {name: value * 1.1 for name, value in multipliers.items()}
    kwargs = {"size": size, "token_width": tokens, "num_layers": 3, "style_dim": width, "n_mlp": 4}
    inputs = {f"spectral_multiplier.{name}": value for name, value in multipliers.items()} if told else {}
    case = OfficialCase(
        "models.gan.stylegan2.vit_generator.Generator",
        VITGAN,
        kwargs | {"use_nerf_proj": implicit},
        keys,
        inputs=inputs,
    )
    z = torch.randn(2, width)
    ours, official = import_network(case), ViTGAN(keys, multipliers)
    outputs = ours.run({"z": z}, ["lff", "layers.1", "layernorm"])
    x = official.norm("layernorm", outputs["tap.layers.1"], official.mapping("", z, 4))
    assert x.shape == outputs["tap.layernorm"].shape
    same(outputs["img"], official.generate(z, 3, 4, tokens, patch, implicit))


def test_vitgan_with_another_filter_is_refused() -> None:
    keys, _ = vitgan_keys(12, 1, 2, 2, False)
    keys["convs.0.conv.blur.kernel"] = torch.ones(4, 4)
    with pytest.raises(NoImporter, match="blur_kernel"):
        import_network(OfficialCase("models.gan.stylegan2.vit_generator.Generator", VITGAN, {}, keys))


# ------------------------------------------------------------------------------------------- TransGAN


class TransGAN(Graph):
    def __init__(self, state: Mapping[str, Tensor], norm: str, act: str, heads: int) -> None:
        super().__init__(state)
        self.kind, self.act, self.heads = norm, act, heads

    def norm(self, name: str, x: Tensor) -> Tensor:
        if self.kind == "pn":
            return x * torch.rsqrt((x**2).mean(2, keepdim=True) + 1e-8)
        if self.kind == "ln":
            return F.layer_norm(x, x.shape[-1:], self.state[f"{name}.norm.weight"], self.state[f"{name}.norm.bias"])
        if self.kind == "bn":
            return self.batch_norm(f"{name}.norm", x.transpose(1, 2)).transpose(1, 2)
        return F.instance_norm(x.transpose(1, 2)).transpose(1, 2) if self.kind == "in" else x

    def attention(self, name: str, x: Tensor) -> Tensor:
        N, L, D = x.shape
        q, k, v = self.linear(f"{name}.qkv", x).view(N, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(2, 3) * (D // self.heads) ** -0.5
        table = self.get(f"{name}.relative_position_bias_table")
        if table is not None:
            index = self.state[f"{name}.relative_position_index"]
            logits = logits + table[index.flatten()].view(L, L, -1).permute(2, 0, 1)
        return self.linear(f"{name}.proj", (logits.softmax(-1) @ v).transpose(1, 2).reshape(N, L, D))

    def block(self, name: str, x: Tensor, gain: float = 1.0) -> Tensor:
        x = x * gain + self.attention(f"{name}.attn", self.norm(f"{name}.norm1", x)) * gain
        h = self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", x))
        h = F.gelu(h) if self.act == "gelu" else F.leaky_relu(h, 0.2)
        return x * gain + self.linear(f"{name}.mlp.fc2", h) * gain

    def generate(self, z: Tensor, depths: tuple[int, ...], *, latent_norm: bool) -> Tensor:
        if latent_norm:
            z = z / z.norm(dim=-1, keepdim=True) * z.shape[-1] ** 0.5
        first = self.state["pos_embed_1"]
        x = self.linear("l1", z).view(len(z), *first.shape[1:]) + first
        for stage, depth in enumerate(depths):
            name = f"upsample_blocks.{stage - 1}.block" if stage else "blocks.block"
            if stage:
                x = as_tokens(F.pixel_shuffle(as_map(x), 2)) + self.state[f"pos_embed_{stage + 1}"]
            for i in range(depth):
                x = self.block(f"{name}.{i}", x)
        return self.conv("deconv.0", as_map(x))

    def generate_256(self, z: Tensor, depths: tuple[int, ...], window: int) -> Tensor:
        """Two bicubic enlargements between whole maps, then pixel shuffles and windows, blocks and all."""
        first = self.state["pos_embed_1"]
        x = self.linear("l1", z).view(len(z), *first.shape[1:]) + first
        for stage, depth in enumerate(depths):
            if stage:
                big = F.interpolate(as_map(x), scale_factor=2, mode="bicubic") if stage <= 2 else None
                x = as_tokens(F.pixel_shuffle(as_map(x), 2) if big is None else big)
                x = x + self.state[f"pos_embed_{stage + 1}"]
            N, side = len(x), round(x.shape[1] ** 0.5)
            own = window if stage > 2 else side
            parted = as_map(x).unfold(2, own, own).unfold(3, own, own)  # (N, D, side/own, side/own, own, own)
            x = parted.permute(0, 2, 3, 4, 5, 1).reshape(-1, own * own, x.shape[2])
            for i in range(depth):
                x = self.block(f"blocks_{stage + 1}.block.{i}", x)
            whole = x.view(N, side // own, side // own, own, own, -1).permute(0, 5, 1, 3, 2, 4)
            x = as_tokens(whole.reshape(N, -1, side, side))
        return self.conv("deconv.0", as_map(x))

    def score(self, image: Tensor, depth: int, patch: int) -> Tensor:
        gain = 0.5**0.5 if self.kind == "none" else 1.0
        x = as_tokens(self.conv("fRGB_1", image, patch)) + self.state["pos_embed_1"]
        for i in range(depth):
            x = self.block(f"blocks_1.{i}", x, gain)
        x = as_tokens(F.avg_pool2d(as_map(x), 2))
        x = torch.cat([x, as_tokens(self.conv("fRGB_2", image, 2 * patch))], -1) + self.state["pos_embed_2"]
        for i in range(depth):
            x = self.block(f"blocks_2.{i}", x, gain)
        x = self.block("last_block.0", torch.cat([self.state["cls_token"].expand(len(x), -1, -1), x], 1), gain)
        return self.linear("head", self.norm("norm", x)[:, 0])


def transgan_norm(keys: Keys, name: str, width: int, norm: str) -> None:
    if norm == "ln":
        keys.add(f"{name}.norm.weight", width, around=1)
        keys.add(f"{name}.norm.bias", width)
    elif norm == "bn":
        keys.batch_norm(f"{name}.norm", width)
        keys[f"{name}.norm.num_batches_tracked"] = torch.tensor(3)


def transgan_block(
    keys: Keys, name: str, width: int, side: int, norm: str, ratio: float, heads: int, *, noise: bool
) -> None:
    keys.linear(f"{name}.attn.qkv", width, 3 * width, bias=False)
    keys.linear(f"{name}.attn.proj", width, width)
    keys.linear(f"{name}.mlp.fc1", width, int(width * ratio))
    keys.linear(f"{name}.mlp.fc2", int(width * ratio), width)
    if side:
        keys.add(f"{name}.attn.relative_position_bias_table", (2 * side - 1) ** 2, heads)
        line = torch.arange(side)
        places = torch.stack(torch.meshgrid(line, line, indexing="ij")).flatten(1)
        apart = places[:, :, None] - places[:, None, :] + side - 1
        keys[f"{name}.attn.relative_position_index"] = apart[0] * (2 * side - 1) + apart[1]
    if noise:
        keys[f"{name}.attn.noise_strength_1"] = torch.tensor(0.0)
    transgan_norm(keys, f"{name}.norm1", width, norm)
    transgan_norm(keys, f"{name}.norm2", width, norm)


@pytest.mark.parametrize(
    ("norm", "act", "ratio", "relative", "latent_norm"),
    [("ln", "gelu", 4, True, False), ("bn", "leakyrelu", 2, True, True), ("in", "gelu", 1.5, False, True),
     ("none", "gelu", 2.3, True, False), ("pn", "leakyrelu", 3, False, False)],
)  # fmt: skip
def test_transgan_generators(norm: str, act: str, ratio: float, relative: bool, latent_norm: bool) -> None:
    keys, bottom, width, depths = Keys(), 3, 64, (2, 1, 2)
    keys.linear("l1", 10, bottom**2 * width)
    for stage, depth in enumerate(depths):
        side, D = bottom << stage, width >> (2 * stage)
        keys.add(f"pos_embed_{stage + 1}", 1, side**2, D)
        for i in range(depth):
            name = f"upsample_blocks.{stage - 1}.block.{i}" if stage else f"blocks.block.{i}"
            transgan_block(keys, name, D, side * relative, norm, ratio, 4, noise=not relative)
    keys.linear("deconv.0", width // 16, 3, 1, 1)
    args = {"bottom_width": bottom, "g_norm": norm, "g_act": act, "g_mlp": ratio, "latent_norm": latent_norm}
    cls = f"models_search.ViT_custom{'_rp' if relative else ''}.Generator"
    ours, z = import_network(OfficialCase(cls, TRANSGAN, {"args": args}, keys)), torch.randn(2, 10)
    same(ours.run({"z": z})["img"], TransGAN(keys, norm, act, 4).generate(z, depths, latent_norm=latent_norm))


def transgan_256(norm: str, depths: tuple[int, ...], window: int, noise: bool) -> Keys:
    keys, bottom, width = Keys(), 2, 256
    keys.linear("l1", 10, bottom**2 * width)
    for stage, depth in enumerate(depths):
        side, D = bottom << stage, width >> (2 * max(stage - 2, 0))
        keys.add(f"pos_embed_{stage + 1}", 1, side**2, D)
        for i in range(depth):
            own = window if stage > 2 else side
            transgan_block(keys, f"blocks_{stage + 1}.block.{i}", D, own, norm, 2, 2, noise=noise)
    keys.linear("deconv.0", width // 64, 3, 1, 1)
    return keys


@pytest.mark.parametrize(("norm", "window", "noise"), [("pn", 4, False), ("ln", 8, True)])
def test_transgan_generator_with_windows(norm: str, window: int, noise: bool) -> None:
    """As at 256 pixels, four times smaller; stages 1 to 3 are whole even where the window is smaller."""
    depths = (2, 1, 1, 1, 2, 1)
    keys = transgan_256(norm, depths, window, noise)
    cls = f"models_search.ViT_custom_local544444_256_rp{'_noise' if noise else ''}.Generator"
    ours = import_network(OfficialCase(cls, TRANSGAN, {"args": {"g_norm": norm}}, keys))
    assert (ours.node["window"], ours.spec.shape) == (window, (3, 64, 64))
    z = torch.randn(2, 10)
    same(ours.run({"z": z})["img"], TransGAN(keys, norm, "gelu", 2).generate_256(z, depths, window))
    with pytest.raises(NoImporter, match="over the tokens of a window"):
        import_network(OfficialCase(cls, TRANSGAN, {"args": {"g_norm": "bn"}}, keys))


@pytest.mark.parametrize(
    ("norm", "act", "patch", "noise"),
    [("ln", "gelu", 2, True), ("none", "leakyrelu", 4, False), ("bn", "gelu", 1, True), ("in", "gelu", 2, True)],
)
def test_transgan_critics(norm: str, act: str, patch: int, noise: bool) -> None:
    keys, side, width, depth = Keys(), 6, 48, 2
    keys.linear("fRGB_1", 3, 36, patch, patch)
    keys.linear("fRGB_2", 3, 12, 2 * patch, 2 * patch)
    keys.add("cls_token", 1, 1, width)
    keys.add("pos_embed_1", 1, side**2, 36)
    keys.add("pos_embed_2", 1, side**2 // 4, width)
    for i in range(depth):
        transgan_block(keys, f"blocks_1.{i}", 36, side, norm, 4, 4, noise=noise)
        transgan_block(keys, f"blocks_2.{i}", width, side // 2, norm, 4, 4, noise=noise)
    transgan_block(keys, "last_block.0", width, 0, norm, 4, 4, noise=noise)
    transgan_norm(keys, "norm", width, norm)
    keys.linear("head", width, 1)
    cls = f"models_search.ViT_custom_scale2{'_rp_noise' if noise else ''}.Discriminator"
    ours = import_network(OfficialCase(cls, TRANSGAN, {"args": {"d_norm": norm, "d_act": act}}, keys))
    image = torch.randn(3, 3, side * patch, side * patch)
    same(ours.run({"img": image})["logits"], TransGAN(keys, norm, act, 4).score(image, depth, patch))


def test_unknown_options_and_missing_tensors_are_refused() -> None:
    keys = Keys()
    keys.linear("l1", 4, 9 * 16)
    keys.add("pos_embed_1", 1, 9, 16)
    cls = "models_search.ViT_custom.Generator"
    with pytest.raises(NoImporter, match="'wn'"):
        import_network(OfficialCase(cls, TRANSGAN, {"args": {"g_norm": "wn"}}, keys))
    lada = Keys()
    lada.linear("inp_conv.0", 3, 8, 3, 3, bias=False)
    lada.add("pos_256", 1, 256, 8)
    lada_block(lada, "block_256", 8, 2, 20, None)
    lada.linear("conv_256", 32, 10, 3, 3)
    lada.linear("logits.0", 10, 14, 1, 1, bias=False)
    lada.linear("logits.2", 14, 1, 4, 4, bias=False)
    del lada["block_256.ln_1.bias"]
    with pytest.raises(CheckpointError, match="missing"):
        import_network(OfficialCase("model.Discriminator", LADAGAN, {}, lada))
