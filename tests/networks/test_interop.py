"""Importers at sizes and options beyond the golden cases, against the official graph written out over official keys."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganvas.errors import CheckpointError
from ganvas.interop.registry import NoImporter, OfficialCase, import_network
from ganvas.interop.studiogan import REPO

# Channels as the official constructor lists them, in units of g_conv_dim and d_conv_dim.
G_WIDTHS = {32: [4, 4, 4, 4], 64: [16, 8, 4, 2, 1], 128: [16, 16, 8, 4, 2, 1], 256: [16, 16, 8, 8, 4, 2, 1]}
D_WIDTHS = {32: [2, 2, 2, 2], 64: [1, 2, 4, 8, 16], 128: [1, 2, 4, 8, 16, 16], 256: [1, 2, 4, 8, 8, 16, 16]}
CLASSES = 5


class Keys(dict[str, Tensor]):
    """A random state dict under official names."""

    def __init__(self, seed: int, spectral: bool) -> None:
        super().__init__()
        self.rng = torch.Generator().manual_seed(seed)
        self.spectral = spectral

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.rng)

    def layer(self, name: str, *shape: int, bias: bool = True, transposed: bool = False) -> None:
        weight = self.noise(*shape)
        weight = weight / weight[0].numel() ** 0.5
        if bias:
            self[f"{name}.bias"] = 0.1 * self.noise(shape[1] if transposed else shape[0])
        if not self.spectral:
            self[f"{name}.weight"] = weight
            return
        matrix = (weight.transpose(0, 1) if transposed else weight).flatten(1)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        self[f"{name}.weight_orig"] = weight
        self[f"{name}.weight_u"], self[f"{name}.weight_v"] = u[:, 0].contiguous(), v[0].contiguous()

    def norm(self, name: str, channels: int, conditional: bool = False) -> None:
        inner = f"{name}.bn" if conditional else name
        self[f"{inner}.running_mean"] = 0.1 * self.noise(channels)
        self[f"{inner}.running_var"] = 0.5 + self.noise(channels).square()
        if conditional:
            self.layer(f"{name}.gain", channels, CLASSES, bias=False)
            self.layer(f"{name}.bias", channels, CLASSES, bias=False)
        else:
            self[f"{name}.weight"] = 1 + 0.1 * self.noise(channels)
            self[f"{name}.bias"] = 0.1 * self.noise(channels)

    def attention(self, name: str, channels: int) -> None:
        self[f"{name}.sigma"] = torch.ones(1)
        for inner, shape in {
            "theta": (channels // 8, channels),
            "phi": (channels // 8, channels),
            "g": (channels // 2, channels),
            "attn": (channels, channels // 2),
        }.items():
            self.layer(f"{name}.conv1x1_{inner}", *shape, 1, 1, bias=False)

    def head(self, features: int, projection: bool) -> None:
        self.layer("linear1", 1, features)
        if projection:
            self.layer("embedding", CLASSES, features, bias=False)


class Official:
    """The official graph, read from the keys."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state

    def has(self, name: str) -> bool:
        return any(key.startswith(f"{name}.") for key in self.state)

    def weight(self, name: str, transposed: bool = False) -> Tensor:
        if f"{name}.weight" in self.state:
            return self.state[f"{name}.weight"]
        weight = self.state[f"{name}.weight_orig"]
        matrix = (weight.transpose(0, 1) if transposed else weight).flatten(1)
        return weight / (self.state[f"{name}.weight_u"] @ matrix @ self.state[f"{name}.weight_v"])

    def conv(self, name: str, x: Tensor) -> Tensor:
        weight = self.weight(name)
        kernel = weight.shape[2]
        stride, padding = (2, 1) if kernel == 4 else (1, kernel // 2)
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), stride, padding)

    def norm(self, name: str, x: Tensor, onehot: Tensor | None = None) -> Tensor:
        if not self.has(name):
            return x
        if f"{name}.bn.running_mean" not in self.state:
            keys = (f"{name}.{each}" for each in ("running_mean", "running_var", "weight", "bias"))
            return F.batch_norm(x, *(self.state[key] for key in keys), eps=1e-4)
        assert onehot is not None
        x = F.batch_norm(x, self.state[f"{name}.bn.running_mean"], self.state[f"{name}.bn.running_var"], eps=1e-4)
        gain, bias = (onehot @ self.weight(f"{name}.{each}").T for each in ("gain", "bias"))
        return x * (1 + gain)[:, :, None, None] + bias[:, :, None, None]

    def attention(self, name: str, x: Tensor) -> Tensor:
        theta, phi, g = (self.conv(f"{name}.conv1x1_{each}", x) for each in ("theta", "phi", "g"))
        phi, g = F.max_pool2d(phi, 2), F.max_pool2d(g, 2)
        beta = torch.einsum("ncp,ncq->npq", theta.flatten(2), phi.flatten(2)).softmax(2)
        o = torch.einsum("npq,ncq->ncp", beta, g.flatten(2)).view(len(x), -1, *x.shape[2:])
        return x + self.state[f"{name}.sigma"] * self.conv(f"{name}.conv1x1_attn", o)

    def blocks(self) -> list[str]:
        count = 0
        while self.has(f"blocks.{count}.0"):
            count += 1
        return [f"blocks.{number}.0" for number in range(count)]

    def generator(self, z: Tensor, label: Tensor) -> Tensor:
        onehot = F.one_hot(label, CLASSES).float()
        x = F.linear(z, self.weight("linear0"), self.state["linear0.bias"]).view(len(z), -1, 4, 4)
        for name in self.blocks():
            if self.has(f"{name}.conv1x1_g"):
                x = self.attention(name, x)
            elif self.has(f"{name}.deconv0"):
                weight = self.weight(f"{name}.deconv0", transposed=True)
                x = F.conv_transpose2d(x, weight, self.state[f"{name}.deconv0.bias"], 2, 1)
                x = self.norm(f"{name}.bn0", x, onehot).relu()
            else:
                h = F.interpolate(self.norm(f"{name}.bn1", x, onehot).relu(), scale_factor=2)
                h = self.norm(f"{name}.bn2", self.conv(f"{name}.conv2d1", h), onehot).relu()
                skip = self.conv(f"{name}.conv2d0", F.interpolate(x, scale_factor=2))
                x = self.conv(f"{name}.conv2d2", h) + skip
        last = "conv4" if self.has("conv4") else "conv2d5"
        x = x if last == "conv4" else self.norm("bn4", x).relu()
        return self.conv(last, x).tanh()

    def critic(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        x, deep, downs = image, self.has("conv1"), 2 if image.shape[2] == 32 else 99
        residual = [name for name in self.blocks() if self.has(f"{name}.conv2d1")]
        for name in self.blocks():
            if self.has(f"{name}.conv1x1_g"):
                x = self.attention(name, x)
            elif deep:
                x = self.norm(f"{name}.bn0", self.conv(f"{name}.conv0", x)).relu()
                x = self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x)).relu()
            elif name == residual[0]:
                h = self.norm(f"{name}.bn1", self.conv(f"{name}.conv2d1", x)).relu()
                skip = self.conv(f"{name}.conv2d0", self.norm(f"{name}.bn0", F.avg_pool2d(x, 2)))
                x = F.avg_pool2d(self.conv(f"{name}.conv2d2", h), 2) + skip
            else:
                h = self.norm(f"{name}.bn1", x).relu()
                skip = x if self.has(f"{name}.bn1") else h  # relu in place reaches the skip
                h = self.norm(f"{name}.bn2", self.conv(f"{name}.conv2d1", h)).relu()
                h = self.conv(f"{name}.conv2d2", h)
                if self.has(f"{name}.conv2d0"):
                    skip = self.conv(f"{name}.conv2d0", self.norm(f"{name}.bn0", skip))
                halve = residual.index(name) < min(downs, len(residual) - 1)
                x = F.avg_pool2d(h, 2) + F.avg_pool2d(skip, 2) if halve else h + skip
        if deep:
            x = self.norm("bn1", self.conv("conv1", x))
        h = x.relu().sum((2, 3))
        logits = F.linear(h, self.weight("linear1"), self.state["linear1.bias"]).squeeze(1)
        if self.has("embedding"):
            logits = logits + (self.weight("embedding")[label] * h).sum(1)
        return logits, h


def resnet_generator(size: int, ch: int, z_dim: int, *, cbn: bool, spectral: bool, attn: list[int]) -> OfficialCase:
    state = Keys(size + ch, spectral)
    widths = [ch * each for each in G_WIDTHS[size]]
    state.layer("linear0", widths[0] * 16, z_dim)
    block = 0
    for number, (in_, out) in enumerate(itertools.pairwise(widths), 1):
        name = f"blocks.{block}.0"
        state.norm(f"{name}.bn1", in_, cbn)
        state.norm(f"{name}.bn2", out, cbn)
        state.layer(f"{name}.conv2d0", out, in_, 1, 1)
        state.layer(f"{name}.conv2d1", out, in_, 3, 3)
        state.layer(f"{name}.conv2d2", out, out, 3, 3)
        block += 1
        if number in attn:
            state.attention(f"blocks.{block}.0", out)
            block += 1
    state.norm("bn4", widths[-1])
    state.layer("conv2d5", 3, widths[-1], 3, 3)
    kwargs = {
        "img_size": size,
        "z_dim": z_dim,
        "g_conv_dim": ch,
        "g_cond_mtd": "cBN" if cbn else "W/O",
        "num_classes": CLASSES,
        "apply_attn": bool(attn),
        "attn_g_loc": attn or ["N/A"],
    }
    return OfficialCase("models.resnet.Generator", REPO, kwargs, state, model={"info_type": "N/A"})


def critic_kwargs(size: int, norm: str, projection: bool, attn: list[int]) -> dict[str, Any]:
    return {
        "img_size": size,
        "apply_d_sn": norm == "spectral",
        "d_cond_mtd": "PD" if projection else "W/O",
        "aux_cls_type": "W/O",
        "num_classes": CLASSES,
        "apply_attn": bool(attn),
        "attn_d_loc": attn or ["N/A"],
    }


def resnet_critic(size: int, ch: int, *, norm: str, projection: bool, attn: list[int]) -> OfficialCase:
    state = Keys(size + ch, norm == "spectral")
    outs = [ch * each for each in D_WIDTHS[size]]
    halved = 2 if size == 32 else len(outs) - 1
    block = 0
    for number, (in_, out) in enumerate(zip([3, *outs], outs, strict=False), 1):
        name = f"blocks.{block}.0"
        skips = number <= halved or in_ != out
        if skips:
            state.layer(f"{name}.conv2d0", out, in_, 1, 1)
        state.layer(f"{name}.conv2d1", out, in_, 3, 3)
        state.layer(f"{name}.conv2d2", out, out, 3, 3)
        if norm == "batch":
            if skips:
                state.norm(f"{name}.bn0", in_)
            state.norm(f"{name}.bn1", out if number == 1 else in_)
            if number > 1:
                state.norm(f"{name}.bn2", out)
        block += 1
        if number in attn:
            state.attention(f"blocks.{block}.0", out)
            block += 1
    state.head(outs[-1], projection)
    return OfficialCase("models.resnet.Discriminator", REPO, critic_kwargs(size, norm, projection, attn), state)


def deep_generator(widths: list[int], *, cbn: bool, spectral: bool, attn: list[int]) -> OfficialCase:
    state = Keys(sum(widths), spectral)
    state.layer("linear0", widths[0] * 16, 7)
    block = 0
    for number, (in_, out) in enumerate(itertools.pairwise(widths), 1):
        state.layer(f"blocks.{block}.0.deconv0", in_, out, 4, 4, transposed=True)
        state.norm(f"blocks.{block}.0.bn0", out, cbn)
        block += 1
        if number in attn:
            state.attention(f"blocks.{block}.0", out)
            block += 1
    state.layer("conv4", 3, widths[-1], 3, 3)
    kwargs = {"img_size": 32, "g_cond_mtd": "cBN" if cbn else "W/O", "num_classes": CLASSES}
    kwargs |= {"apply_attn": bool(attn), "attn_g_loc": attn}
    return OfficialCase("models.deep_conv.Generator", REPO, kwargs, state)


def deep_critic(widths: list[int], *, norm: str, projection: bool, attn: list[int]) -> OfficialCase:
    state = Keys(sum(widths), norm == "spectral")
    block = 0
    for number, (in_, out) in enumerate(zip([3, *widths[:-2]], widths[:-1], strict=True), 1):
        state.layer(f"blocks.{block}.0.conv0", out, in_, 3, 3)
        state.layer(f"blocks.{block}.0.conv1", out, out, 4, 4)
        if norm == "batch":
            state.norm(f"blocks.{block}.0.bn0", out)
            state.norm(f"blocks.{block}.0.bn1", out)
        block += 1
        if number in attn:
            state.attention(f"blocks.{block}.0", out)
            block += 1
    state.layer("conv1", widths[-1], widths[-2], 3, 3)
    if norm == "batch":
        state.norm("bn1", widths[-1])
    state.head(widths[-1], projection)
    return OfficialCase("models.deep_conv.Discriminator", REPO, critic_kwargs(32, norm, projection, attn), state)


GENERATORS = {
    "32-plain": resnet_generator(32, 5, 9, cbn=False, spectral=False, attn=[]),
    "32-cbn": resnet_generator(32, 4, 12, cbn=True, spectral=False, attn=[1, 3]),
    "64-cbn-sn": resnet_generator(64, 8, 20, cbn=True, spectral=True, attn=[4]),
    "64-sn": resnet_generator(64, 4, 10, cbn=False, spectral=True, attn=[2]),
    "128-cbn": resnet_generator(128, 2, 8, cbn=True, spectral=False, attn=[3]),
    "256-plain": resnet_generator(256, 1, 8, cbn=False, spectral=False, attn=[]),
    "deep": deep_generator([24, 20, 16, 12], cbn=False, spectral=False, attn=[]),
    "deep-cbn-sn": deep_generator([24, 16, 16, 8], cbn=True, spectral=True, attn=[2]),
}
CRITICS = {
    "32-sn": resnet_critic(32, 12, norm="spectral", projection=False, attn=[2]),
    "32-sn-late-attention": resnet_critic(32, 8, norm="spectral", projection=True, attn=[1, 4]),
    "32-bn": resnet_critic(32, 6, norm="batch", projection=True, attn=[]),
    "64-sn": resnet_critic(64, 4, norm="spectral", projection=True, attn=[2, 5]),
    "64-bn": resnet_critic(64, 3, norm="batch", projection=False, attn=[]),
    "64-none": resnet_critic(64, 3, norm="none", projection=True, attn=[]),
    "128-sn": resnet_critic(128, 2, norm="spectral", projection=True, attn=[3]),
    "256-bn": resnet_critic(256, 1, norm="batch", projection=False, attn=[]),
    "deep-bn": deep_critic([8, 12, 20, 28], norm="batch", projection=False, attn=[]),
    "deep-sn": deep_critic([8, 16, 20, 28], norm="spectral", projection=True, attn=[2]),
}


@pytest.mark.parametrize("case", GENERATORS.values(), ids=GENERATORS)
def test_generators_come_across(case: OfficialCase) -> None:
    ours = import_network(case)
    z_dim = ours.node["z_dim"]
    inputs = {"z": torch.randn(2, z_dim, generator=torch.Generator().manual_seed(1)), "label": torch.tensor([0, 4])}
    images = ours.run(inputs)["img"]
    assert images.shape == (2, *ours.spec.shape)
    assert ours.spec.height == case.kwargs["img_size"]
    torch.testing.assert_close(images, Official(case.state).generator(inputs["z"], inputs["label"]), rtol=0, atol=2e-5)


@pytest.mark.parametrize("case", CRITICS.values(), ids=CRITICS)
def test_critics_come_across(case: OfficialCase) -> None:
    ours = import_network(case)
    rng = torch.Generator().manual_seed(1)
    inputs = {"img": torch.rand(2, *ours.spec.shape, generator=rng) * 2 - 1, "label": torch.tensor([3, 1])}
    outputs = ours.run(inputs)
    logits, h = Official(case.state).critic(inputs["img"], inputs["label"])
    assert outputs["grad_input"].shape == inputs["img"].shape
    scale = h.abs().max().item()
    torch.testing.assert_close(outputs["h"], h, rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(outputs["logits"], logits, rtol=1e-4, atol=1e-5 * scale)


def test_missing_left_over_and_misshapen_weights_are_all_named() -> None:
    case = resnet_critic(32, 4, norm="spectral", projection=False, attn=[])
    state = {key: value for key, value in case.state.items() if key != "blocks.1.0.conv2d1.bias"}
    state |= {"extra.bias": torch.zeros(1), "linear1.bias": torch.zeros(2)}
    broken = OfficialCase(case.cls, case.repo, case.kwargs, state)
    with pytest.raises(CheckpointError) as caught:
        import_network(broken)
    for part in ("extra.bias is not ours", "blocks.1.conv1.bias is missing", "head.linear.bias is (2,), ours (1,)"):
        assert part in caught.value.problem


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [({"d_cond_mtd": "2C"}, "2C"), ({"aux_cls_type": "ADC"}, "ADC")],
)
def test_options_that_are_not_understood_are_said(kwargs: dict[str, str], word: str) -> None:
    case = resnet_critic(32, 4, norm="spectral", projection=False, attn=[])
    with pytest.raises(NoImporter, match=word):
        import_network(OfficialCase(case.cls, case.repo, {**case.kwargs, **kwargs}, case.state))
    with pytest.raises(NoImporter, match=r"no importer yet for models\.other\.Generator"):
        import_network(OfficialCase("models.other.Generator", REPO, {}, {}))


def test_taps_are_taken_by_official_names() -> None:
    ours = import_network(GENERATORS["32-cbn"])
    inputs = {"z": torch.zeros(1, 12), "label": torch.tensor([0])}
    outputs = ours.run(inputs, ["linear0", "blocks.0.0", "blocks.1.0"])
    assert outputs["tap.linear0"].shape == (1, 16 * 16)
    assert outputs["tap.blocks.0.0"].shape == outputs["tap.blocks.1.0"].shape == (1, 16, 8, 8)
    with pytest.raises(NoImporter, match=r"blocks\.9\.0"):
        ours.run(inputs, ["blocks.9.0"])
