"""Official BigGAN and BigGAN-deep checkpoints at sizes and options beyond the golden cases.

The official graphs are written out over official keys: the first author's, where spectral norm takes one power
iteration from `u0` in every forward, and StudioGAN's, where activations work in place.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganvas.interop import biggan, studiogan
from ganvas.interop.registry import NoImporter, OfficialCase, import_network

CLASSES = 5
AUTHOR = {"conv": "conv", "skip": "conv_sc", "theta": "theta", "phi": "phi", "g": "g", "o": "o", "gamma": "gamma"}
STUDIO = {"conv": "conv2d", "skip": "conv2d0", "theta": "conv1x1_theta", "phi": "conv1x1_phi"} | {
    "g": "conv1x1_g", "o": "conv1x1_attn", "gamma": "sigma",
}  # fmt: skip
AUTHOR_G = {32: (4, 4, 4, 4), 64: (16, 16, 8, 4, 2), 128: (16, 16, 8, 4, 2, 1), 256: (16, 16, 8, 8, 4, 2, 1)}
STUDIO_G = AUTHOR_G | {64: (16, 8, 4, 2, 1), 512: (16, 16, 8, 8, 4, 2, 1, 1)}
D = {64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16), 256: (1, 2, 4, 8, 8, 16, 16)}


class Official(dict[str, Tensor]):
    """A random state dict under official names, and the graph over it."""

    def __init__(self, studio: bool, spectral: bool = True) -> None:
        super().__init__()
        self.rng = torch.Generator().manual_seed(7)
        self.studio, self.spectral = studio, spectral
        self.names = STUDIO if studio else AUTHOR
        self.eps = 1e-4 if studio else 1e-5
        self.plan: list[tuple[str, int]] = []  # (module, 1: upsample or pool, 0: neither, -1: attention)

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.rng)

    def layer(self, name: str, *shape: int, bias: bool = True) -> None:
        weight = self.noise(*shape) / self.noise(*shape[1:]).numel() ** 0.5
        if bias:
            self[f"{name}.bias"] = 0.1 * self.noise(shape[0])
        if not self.spectral:
            self[f"{name}.weight"] = weight
        elif self.studio:
            u, _, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
            self |= {f"{name}.weight_orig": weight, f"{name}.weight_u": u[:, 0], f"{name}.weight_v": v[0]}
        else:
            self |= {f"{name}.weight": weight, f"{name}.u0": self.noise(1, shape[0]), f"{name}.sv0": torch.ones(1)}

    def statistics(self, name: str, channels: int) -> None:
        keys = ("running_mean", "running_var") if self.studio else ("stored_mean", "stored_var")
        self[f"{name}.{keys[0]}"] = 0.1 * self.noise(channels)
        self[f"{name}.{keys[1]}"] = 0.5 + self.noise(channels).square()

    def norm(self, name: str, channels: int, told: int) -> None:
        self.statistics(f"{name}.bn" if self.studio else name, channels)
        for each in ("gain", "bias"):
            if told:
                self.layer(f"{name}.{each}", channels, told, bias=False)
            else:  # a table by class
                self[f"{name}.{each}.weight"] = 0.3 * self.noise(CLASSES, channels)

    def attention(self, channels: int, place: str) -> None:
        self.plan.append((place, -1))
        self[f"{place}.{self.names['gamma']}"] = torch.tensor(0.7) if not self.studio else torch.tensor([0.7])
        for name, shape in {
            "theta": (channels // 8, channels), "phi": (channels // 8, channels),
            "g": (channels // 2, channels), "o": (channels, channels // 2),
        }.items():  # fmt: skip
            self.layer(f"{place}.{self.names[name]}", *shape, 1, 1, bias=False)

    def place(self, outer: int, inner: int) -> str:
        return f"blocks.{len(self.plan)}.0" if self.studio else f"blocks.{outer}.{inner}"

    # ---- building

    def generator(self, widths: Sequence[int], z: int, told: int, attn: Sequence[int], depth: int, shared: int) -> None:
        """`depth` 0 is BigGAN, above it BigGAN-deep."""
        conv, first, last = (
            self.names["conv"],
            *(("linear0", "conv2d5") if self.studio else ("linear", "output_layer.2")),
        )
        if shared:
            self["shared.weight"] = self.noise(CLASSES, shared)
        self.layer(first, widths[0] * 16, z)
        for stage, (in_, out) in enumerate(itertools.pairwise(widths)):
            for j in range(max(depth, 1)):
                name, end = self.place(stage * max(depth, 1) + j, 0), j + 1 == max(depth, 1)
                self.plan.append((name, int(end)))
                if depth:
                    inner, after = in_ // 4, out if end else in_
                    shapes = [(inner, in_, 1, 1), (inner, inner, 3, 3), (inner, inner, 3, 3), (after, inner, 1, 1)]
                else:
                    shapes = [(out, in_, 3, 3), (out, out, 3, 3)]
                    self.layer(f"{name}.{self.names['skip']}", out, in_, 1, 1)
                for number, shape in enumerate(shapes, 1):
                    self.norm(f"{name}.bn{number}", shape[1], told)
                    self.layer(f"{name}.{conv}{number}", *shape)
            if stage + 1 in attn:
                self.attention(out, self.place(stage * max(depth, 1) + j, 1))
        final, gain = ("bn4", "weight") if self.studio else ("output_layer.0", "gain")
        self.statistics(final, widths[-1])
        self |= {f"{final}.{gain}": 1 + 0.1 * self.noise(widths[-1]), f"{final}.bias": 0.1 * self.noise(widths[-1])}
        self.layer(last, 3, widths[-1], 3, 3)

    def critic(self, widths: Sequence[int], downs: int, attn: Sequence[int], depth: int, wide: bool = True) -> None:
        """Widths after the pixels (BigGAN) or after the first convolution (BigGAN-deep) and after each stage."""
        conv, skip = self.names["conv"], self.names["skip"]
        if depth:
            self.layer("input_conv", widths[0], 3, 3, 3)
        for stage, (in_, out) in enumerate(itertools.pairwise(widths if depth else (3, *widths))):
            for j in range(max(depth, 1)):
                name, down, before = self.place(stage, j), stage < downs and j == 0, in_ if j == 0 else out
                self.plan.append((name, int(down)))
                inner = out // 4 if depth else out if wide else before
                if depth:
                    shapes = [(inner, before, 1, 1), (inner, inner, 3, 3), (inner, inner, 3, 3), (out, inner, 1, 1)]
                else:
                    shapes = [(inner, before, 3, 3), (out, inner, 3, 3)]
                for number, shape in enumerate(shapes, 1):
                    self.layer(f"{name}.{conv}{number}", *shape)
                if (down and not depth) or before != out:
                    self.layer(f"{name}.{skip}", out - before if depth else out, before, 1, 1)
                    if not self.spectral and not depth:
                        self.batch_norm(f"{name}.bn0", before)
                if not self.spectral and not depth:
                    for bn, channels in ((1, out),) if stage == 0 else ((1, before), (2, out)):
                        self.batch_norm(f"{name}.bn{bn}", channels)
            if stage + 1 in attn:
                self.attention(out, self.place(stage, max(depth, 1)))
        self.layer("linear1" if self.studio else "linear", 1, widths[-1])
        self.layer("embedding" if self.studio else "embed", CLASSES, widths[-1], bias=False)

    def batch_norm(self, name: str, channels: int) -> None:
        self.statistics(name, channels)
        self |= {f"{name}.weight": 1 + 0.1 * self.noise(channels), f"{name}.bias": 0.1 * self.noise(channels)}

    # ---- running

    def weight(self, name: str) -> Tensor:
        if f"{name}.weight_orig" in self:
            weight = self[f"{name}.weight_orig"]
            return weight / (self[f"{name}.weight_u"] @ weight.flatten(1) @ self[f"{name}.weight_v"])
        weight = self[f"{name}.weight"]
        if f"{name}.u0" not in self:
            return weight
        W = weight.flatten(1)
        v = F.normalize(self[f"{name}.u0"] @ W)
        u = F.normalize(v @ W.T)
        return weight / (v @ W.T @ u.T)

    def conv(self, name: str, x: Tensor) -> Tensor:
        weight = self.weight(name)
        return F.conv2d(x, weight, self.get(f"{name}.bias"), padding=weight.shape[2] // 2)

    def normed(self, name: str, x: Tensor, told: Tensor | None = None) -> Tensor:
        if told is None:
            if not any(key.startswith(f"{name}.") for key in self):
                return x
            keys = ("running_mean", "running_var", "weight") if self.studio else ("stored_mean", "stored_var", "gain")
            eps = self.eps if self.studio else 1e-5
            return F.batch_norm(x, *(self[f"{name}.{key}"] for key in (*keys, "bias")), eps=eps)
        keys = ("bn.running_mean", "bn.running_var") if self.studio else ("stored_mean", "stored_var")
        x = F.batch_norm(x, *(self[f"{name}.{key}"] for key in keys), eps=self.eps)
        if told.dtype == torch.int64:
            gain, bias = (self[f"{name}.{each}.weight"][told] for each in ("gain", "bias"))
        else:
            gain, bias = (told @ self.weight(f"{name}.{each}").T for each in ("gain", "bias"))
        return x * (1 + gain)[:, :, None, None] + bias[:, :, None, None]

    def attend(self, name: str, x: Tensor) -> Tensor:
        theta, phi, g = (self.conv(f"{name}.{self.names[each]}", x) for each in ("theta", "phi", "g"))
        phi, g = F.max_pool2d(phi, 2), F.max_pool2d(g, 2)
        beta = torch.einsum("ncp,ncq->npq", theta.flatten(2), phi.flatten(2)).softmax(2)
        o = torch.einsum("npq,ncq->ncp", beta, g.flatten(2)).view(len(x), -1, *x.shape[2:])
        return x + self[f"{name}.{self.names['gamma']}"] * self.conv(f"{name}.{self.names['o']}", o)

    def images(self, first: Tensor, told: list[Tensor], deep: bool) -> Tensor:
        """`told` holds what each block's norms are given."""
        linear = "linear0" if self.studio else "linear"
        x = F.linear(first, self.weight(linear), self[f"{linear}.bias"]).view(len(first), -1, 4, 4)
        blocks = iter(told)
        for name, up in self.plan:
            if up < 0:
                x = self.attend(name, x)
                continue
            y, h, conv = next(blocks), x, f"{name}.{self.names['conv']}"
            for number in range(1, 5 if deep else 3):
                h = self.normed(f"{name}.bn{number}", h, y).relu()
                if up and number == (2 if deep else 1):
                    h = F.interpolate(h, scale_factor=2)
                h = self.conv(f"{conv}{number}", h)
            x = F.interpolate(x, scale_factor=2) if up else x
            x = h + (x[:, : h.shape[1]] if deep else self.conv(f"{name}.{self.names['skip']}", x))
        final, last = ("bn4", "conv2d5") if self.studio else ("output_layer.0", "output_layer.2")
        return self.conv(last, self.normed(final, x).relu()).tanh()

    def scores(self, image: Tensor, label: Tensor, deep: bool, pool_last: bool = True) -> tuple[Tensor, Tensor]:
        x = self.conv("input_conv", image) if deep else image
        for number, (name, down) in enumerate(self.plan):
            if down < 0:
                x = self.attend(name, x)
                continue
            conv, skip = (f"{name}.{self.names[each]}" for each in ("conv", "skip"))
            in_place = self.studio and (self.spectral or deep)
            if deep:
                a = x.relu()
                h = self.conv(f"{conv}3", self.conv(f"{conv}2", self.conv(f"{conv}1", a).relu()).relu()).relu()
                if down and not pool_last:
                    h = F.avg_pool2d(h, 2)
                h = self.conv(f"{conv}4", h)
                if down and pool_last:
                    h = F.avg_pool2d(h, 2)
            else:
                first, second = ("none", "bn1") if number == 0 else ("bn1", "bn2")
                a = x if number == 0 else self.normed(f"{name}.{first}", x).relu()
                h = self.conv(f"{conv}2", self.normed(f"{name}.{second}", self.conv(f"{conv}1", a)).relu())
                h = F.avg_pool2d(h, 2) if down else h
            x = a if in_place else x
            x = F.avg_pool2d(x, 2) if down else x
            if f"{skip}.bias" in self:
                made = self.conv(skip, x if deep else self.normed(f"{name}.bn0", x))
                x = torch.cat([x, made], 1) if deep else made
            x = h + x
        h = x.relu().sum((2, 3))
        linear, embed = ("linear1", "embedding") if self.studio else ("linear", "embed")
        logits = F.linear(h, self.weight(linear), self[f"{linear}.bias"])[:, 0] + (self.weight(embed)[label] * h).sum(1)
        return logits, h


def author(cls: str, state: Official, **kwargs: Any) -> OfficialCase:
    return OfficialCase(cls, biggan.REPO, kwargs, dict(state))


def studio(cls: str, state: Official, **kwargs: Any) -> OfficialCase:
    kwargs |= {"num_classes": CLASSES, "apply_attn": True, "aux_cls_type": "W/O"}
    return OfficialCase(f"models.{cls}", studiogan.REPO, kwargs, dict(state), model={"info_type": "N/A"})


Z = torch.randn(2, 60, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 4])


def check_images(case: OfficialCase, state: Official, z_dim: int, images: Tensor) -> None:
    ours = import_network(case)
    outputs = ours.run({"z": Z[:, :z_dim], "y": Y, "label": Y})
    assert ours.net.latents["z"].shape == (z_dim,)  # type: ignore[union-attr, operator, index]
    assert outputs["img"].shape == (2, *ours.spec.shape) == images.shape
    if "shared.weight" in state and "y_shared" in outputs:
        assert torch.equal(outputs["y_shared"], state["shared.weight"][Y])
    assert images.std() > 0.1
    torch.testing.assert_close(outputs["img"], images, rtol=0, atol=2e-5)


def check_scores(case: OfficialCase, logits: Tensor, h: Tensor, image: Tensor) -> None:
    outputs = import_network(case).run({"img": image, "y": Y, "label": Y})
    scale = h.abs().max().item()
    torch.testing.assert_close(outputs["h"], h, rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(outputs["logits"].flatten(), logits, rtol=1e-4, atol=2e-5 * scale)
    assert outputs["grad_input"].shape == image.shape


@pytest.mark.system("biggan")
@pytest.mark.parametrize(
    ("size", "ch", "hier", "shared", "attn", "spectral", "eps"),
    [
        (32, 4, True, 6, [1, 3], True, 1e-5),
        (32, 5, False, 0, [], True, 1e-3),  # the author's CIFAR form: a table of classes in every norm
        (32, 4, False, 6, [2], False, 1e-4),
        (64, 2, True, 6, [2, 3], True, 1e-4),
        (128, 2, True, 3, [3], True, 1e-5),
        (256, 2, True, 3, [], True, 1e-5),
    ],
)
def test_the_author_s_generators_come_across(
    size: int, ch: int, hier: bool, shared: int, attn: list[int], spectral: bool, eps: float
) -> None:
    widths = [ch * part for part in AUTHOR_G[size]]
    n, state = len(widths) - 1, Official(studio=False, spectral=spectral)
    state.eps = eps
    chunk = 3 if hier else 8
    state.generator(widths, chunk, shared + chunk * hier if shared else 0, attn, 0, shared)
    z_dim = chunk * (n + 1) if hier else chunk
    z, *chunks = Z[:, :z_dim].split(chunk, 1)
    y = state["shared.weight"][Y] if shared else Y
    told = [torch.cat([y, each], 1) for each in chunks] if hier else [y] * n
    kwargs = {"G_ch": ch, "resolution": size, "hier": hier, "G_shared": bool(shared), "BN_eps": eps}
    check_images(author("BigGAN.Generator", state, **kwargs), state, z_dim, state.images(z, told, False))


@pytest.mark.parametrize(
    ("size", "ch", "depth", "attn"), [(32, 4, 3, [2]), (32, 4, 1, []), (64, 4, 2, [1, 3]), (128, 4, 2, [4])]
)
@pytest.mark.parametrize("form", ["author", "legacy", "studiogan"])
def test_deep_generators_come_across(form: str, size: int, ch: int, depth: int, attn: list[int]) -> None:
    state = Official(studio=form != "author")
    widths = [ch * part for part in (STUDIO_G if state.studio else AUTHOR_G)[size]]
    state.generator(widths, 12, 12, attn, depth, 5)
    told = torch.cat([state["shared.weight"][Y], Z[:, :7]], 1)
    images = state.images(told, [told] * (len(widths) - 1) * depth, True)
    if form == "author":
        case = author("BigGANdeep.Generator", state, G_depth=depth, hier=True, resolution=size)
    else:
        kwargs = {"img_size": size, "g_depth": depth, "g_cond_mtd": "cBN", "attn_g_loc": attn}
        case = studio(f"big_resnet_deep_{form}.Generator", state, **kwargs)
    check_images(case, state, 7, images)


@pytest.mark.parametrize(
    ("size", "ch", "conditional", "attn"),
    [(32, 4, True, [2]), (32, 4, False, []), (64, 2, True, [1, 2]), (128, 1, True, []), (512, 1, True, [])],
)
def test_studiogan_s_generators_come_across(size: int, ch: int, conditional: bool, attn: list[int]) -> None:
    state = Official(studio=True)
    widths = [ch * part for part in STUDIO_G[size]]
    shared = 5 if conditional else 0
    state.generator(widths, 2, shared + 2, attn, 0, shared)
    z, *chunks = Z[:, : 2 * len(widths)].split(2, 1)
    told = [torch.cat([state["shared.weight"][Y], each], 1) if conditional else each for each in chunks]
    kwargs = {"img_size": size, "g_cond_mtd": "cBN" if conditional else "W/O", "attn_g_loc": attn}
    case = studio("big_resnet.Generator", state, **kwargs)
    check_images(case, state, 2 * len(widths), state.images(z, told, False))


@pytest.mark.system("biggan")
@pytest.mark.parametrize(
    ("form", "size", "ch", "attn", "option"),
    [
        ("author", 32, 4, [1, 2, 3, 4], ""),
        ("author", 32, 4, [], "narrow"),
        ("author", 64, 4, [2, 3], ""),
        ("author", 128, 2, [], "narrow"),
        ("author", 256, 1, [], ""),
        ("studio", 32, 8, [1, 3], ""),
        ("studio", 32, 4, [], "batch-norm"),
        ("studio", 64, 4, [2, 5], ""),
        ("studio", 128, 2, [3], "batch-norm"),
    ],
)
def test_critics_come_across(form: str, size: int, ch: int, attn: list[int], option: str) -> None:
    state = Official(studio=form == "studio", spectral=option != "batch-norm")
    attn = [number for number in attn if ch * D.get(size, (9,) * 9)[number - 1] >= 8]
    parts = D.get(size, (2,) * 4 if state.studio else (4,) * 4)
    widths = [ch * part for part in parts]
    state.critic(widths, 2 if size == 32 else len(widths) - 1, attn, 0, option != "narrow")
    image = torch.rand(2, 3, size, size, generator=state.rng) * 2 - 1
    logits, h = state.scores(image, Y, False)
    if state.studio:
        kwargs = {"img_size": size, "d_cond_mtd": "PD", "attn_d_loc": attn, "apply_d_sn": state.spectral}
        case = studio("big_resnet.Discriminator", state, **kwargs)
    else:
        case = author("BigGAN.Discriminator", state, resolution=size, D_wide=option != "narrow")
    check_scores(case, logits, h, image)


@pytest.mark.parametrize(("size", "ch", "depth", "attn"), [(32, 8, 2, [1, 3]), (64, 4, 1, [2]), (128, 4, 3, [])])
@pytest.mark.parametrize("form", ["author", "legacy", "studiogan"])
def test_deep_critics_come_across(form: str, size: int, ch: int, depth: int, attn: list[int]) -> None:
    state = Official(studio=form != "author")
    widths = [ch * part for part in D.get(size, (4,) * 4)]
    state.critic(widths, 2 if size == 32 else len(widths) - 1, attn, depth)
    image = torch.rand(2, 3, size, size, generator=state.rng) * 2 - 1
    logits, h = state.scores(image, Y, True, pool_last=form == "studiogan")
    if form == "author":
        case = author("BigGANdeep.Discriminator", state, resolution=size, D_depth=depth)
    else:
        kwargs = {"img_size": size, "d_depth": depth, "d_cond_mtd": "PD", "attn_d_loc": attn}
        case = studio(f"big_resnet_deep_{form}.Discriminator", state, **kwargs)
    check_scores(case, logits, h, image)


def test_what_is_not_understood_is_said() -> None:
    state = Official(studio=False)
    state.generator([16, 16, 16, 16], 2, 5, [], 0, 3)
    case = author("BigGAN.Generator", state, hier=True)
    assert import_network(case).node["attention"] is None
    with pytest.raises(NoImporter, match="norm_style"):
        import_network(dataclasses.replace(case, kwargs={"hier": True, "norm_style": "gn"}))
    with pytest.raises(NoImporter, match="hier"):
        import_network(dataclasses.replace(case, cls="BigGANdeep.Generator", kwargs={"hier": False}))
    with pytest.raises(NoImporter, match="output_dim"):
        import_network(dataclasses.replace(case, cls="BigGAN.Discriminator", kwargs={"output_dim": 2}))
    with pytest.raises(NoImporter, match="no blocks"):
        import_network(dataclasses.replace(case, state={}))


def test_his_other_batch_norms_come_across() -> None:
    """`cross_replica` and `mybn` keep the statistics one module deeper, under torch's names or his own."""
    state = Official(studio=False)
    state.generator([16, 16, 16, 16], 2, 5, [], 0, 3)
    case = author("BigGAN.Generator", state, hier=True)
    expected = import_network(case).run({"z": Z[:, :8], "y": Y})["img"]
    for names in (("stored_mean", "stored_var"), ("running_mean", "running_var")):
        moved = {
            key.replace("stored_mean", f"bn.{names[0]}").replace("stored_var", f"bn.{names[1]}"): value
            for key, value in state.items()
        }
        moved["blocks.0.0.bn1.bn.accumulation_counter"] = torch.zeros(1)
        ours = import_network(dataclasses.replace(case, state=moved))
        assert torch.equal(ours.run({"z": Z[:, :8], "y": Y})["img"], expected)
