"""How the files of each code base tell what is in them: by the names of their tensors, which no two of them share.

A family looks at one table of tensors and says which official class it is of, and with which arguments the class was
made, as far as an importer reads them. What neither names nor shapes show is an option, which the user may give.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Any, Literal

from ganvas.interop.alias_free import arguments
from ganvas.interop.inert import Record, TensorView
from ganvas.interop.registry import NoImporter

Role = Literal["generator", "discriminator"]
Table = Mapping[str, TensorView]


@dataclass(frozen=True)
class Entry:
    """One network of a file: its tensors by official name, and what else the file says of it."""

    name: str  # the key in the file's dictionary; empty where the file is the network
    table: Table
    cls: str = ""  # of a pickled object
    kwargs: Mapping[str, Any] | None = None  # of its constructor, where the file holds them
    record: Record | None = None
    around: Mapping[str, Any] = field(default_factory=dict)  # what stands beside it

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, under spectral norm or not; () where there is none."""
        view = self.table.get(name) or self.table.get(f"{name}_orig")
        return view.shape if view is not None else ()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: view.shape for name, view in self.table.items()}

    def has(self, *names: str) -> bool:
        return all(name in self.table or f"{name}_orig" in self.table for name in names)

    def numbers(self, pattern: str) -> list[int]:
        """All numbers that stand in a pattern's group among the names, in order."""
        matches = (re.match(pattern, name) for name in self.table)
        return sorted({int(match[1]) for match in matches if match})


@dataclass(frozen=True)
class Official:
    """What an entry is: its role, its class there, and the arguments that it was made with."""

    role: Role
    repo: str
    cls: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """One code base: `recognise` says what an entry is, or None where it is of another one."""

    recognise: Callable[[Entry], Official | None]
    options: Mapping[str, str] = field(default_factory=dict)  # arguments that a file may not tell -> what they mean
    inert: tuple[str, ...] = ()  # further names whose objects lie in its files


# ---------------------------------------------------------------------------------------------------- StyleGAN


def _stylegan2(entry: Entry) -> Official | None:
    nested = entry.kwargs is not None and ("synthesis_kwargs" in entry.kwargs or "block_kwargs" in entry.kwargs)
    old = entry.kwargs is None or nested or entry.name == ""
    repo, module = ("NVlabs/stylegan2-ada-pytorch", "training.networks") if old else _STYLEGAN3
    if entry.has("synthesis.b4.const", "synthesis.b4.conv1.weight"):
        kwargs = dict(entry.kwargs or _stylegan2_generator(entry))
        if "synthesis_kwargs" in (entry.kwargs or ()):  # stylegan2-ada limits nothing where it is not told to
            kwargs["synthesis_kwargs"] = {"conv_clamp": None, **kwargs["synthesis_kwargs"]}
        return Official("generator", repo, f"{module}.Generator", kwargs)
    if entry.has("b4.conv.weight", "b4.out.weight"):
        return Official("discriminator", repo, f"{module}.Discriminator", entry.kwargs or _stylegan2_critic(entry))
    return None


_STYLEGAN3 = ("NVlabs/stylegan3", "training.networks_stylegan2")


def _stylegan2_generator(entry: Entry) -> dict[str, Any]:
    """Arguments of a state dict that came without them."""
    sizes = entry.numbers(r"synthesis\.b(\d+)\.")
    widths = {size: entry.shape(f"synthesis.b{size}.conv1.weight")[0] for size in sizes}
    embed = entry.shape("mapping.embed.weight")  # (E, classes)
    return {
        "z_dim": entry.shape("mapping.fc0.weight")[1] - (embed[0] if embed else 0),
        "c_dim": embed[1] if embed else 0,
        "w_dim": entry.shape("mapping.w_avg")[0],
        "img_resolution": sizes[-1],
        "img_channels": entry.shape(f"synthesis.b{sizes[-1]}.torgb.weight")[0],
        "synthesis_kwargs": {
            **_widths(widths),
            "architecture": _architecture(entry, "synthesis.", "torgb", sizes[:-1]),
        },
    }


def _stylegan2_critic(entry: Entry) -> dict[str, Any]:
    sizes = entry.numbers(r"b(\d+)\.")
    widths = {size: entry.shape(f"b{size}.conv0.weight")[0] for size in sizes if size > 4}
    widths[4] = entry.shape("b4.conv.weight")[0]
    embed = entry.shape("mapping.embed.weight")
    return {
        "c_dim": embed[1] if embed else 0,
        "img_resolution": sizes[-1],
        "img_channels": entry.shape(f"b{sizes[-1]}.fromrgb.weight")[1],
        **_widths(widths),
        "architecture": _architecture(entry, "", "fromrgb", sizes[:-1]),
        "epilogue_kwargs": {"mbstd_num_channels": entry.shape("b4.conv.weight")[1] - widths[4]},
    }


def _widths(widths: Mapping[int, int]) -> dict[str, int]:
    """A map of p pixels has channel_base / p channels, at most channel_max."""
    return {"channel_base": widths[max(widths)] * max(widths), "channel_max": max(widths.values())}


def _architecture(entry: Entry, prefix: str, to_image: str, inner: list[int]) -> str:
    if any(name.endswith(".skip.weight") for name in entry.table):
        return "resnet"
    return "skip" if inner and entry.has(f"{prefix}b{inner[-1]}.{to_image}.weight") else "orig"


def _stylegan3(entry: Entry) -> Official | None:
    if entry.has("synthesis.input.freqs") and not _of_xl(entry):
        kwargs = entry.kwargs if entry.kwargs is not None else arguments(entry.shapes)
        return Official("generator", "NVlabs/stylegan3", "training.networks_stylegan3.Generator", kwargs)
    return _stylegan2(entry) if entry.kwargs is not None and "synthesis_kwargs" not in entry.kwargs else None


def _of_xl(entry: Entry) -> bool:
    """Its mapping network has a table of classes, stylegan3's a linear layer with a bias."""
    return entry.has("mapping.embed.weight") and not entry.has("mapping.embed.bias")


def _stylegan_xl(entry: Entry) -> Official | None:
    if not (entry.has("synthesis.input.freqs") and _of_xl(entry)):
        return None
    kwargs = dict(entry.kwargs if entry.kwargs is not None else arguments(entry.shapes))
    grown = "up_factor" in kwargs or "superres" in kwargs or entry.cls.endswith("SuperresGenerator")
    cls = "SuperresGenerator" if grown else "Generator"
    if cls == "SuperresGenerator" and "stem" not in kwargs:
        kwargs = {"stem": _stem(entry), "superres": {k: v for k, v in kwargs.items() if k != "path_stem"}}
    repo = "autonomousvision/stylegan-xl"
    return Official("generator", repo, f"training.networks_stylegan3_resetting.{cls}", kwargs)


def _stem(entry: Entry) -> dict[str, Any]:
    """The arguments of the network that a super-resolution stage stands on; its parts remember them."""
    modules = entry.record.state.get("_modules", {}) if entry.record else {}
    kwargs: dict[str, Any] = {}
    for part in ("mapping", "synthesis"):
        inner = modules.get(part)
        made_with = inner.state.get("_init_kwargs", {}) if isinstance(inner, Record) else {}
        kwargs |= {key: value for key, value in made_with.items() if key != "num_ws"}
    return kwargs


# ---------------------------------------------------------------------------------------------------- residual GANs


def _biggan(entry: Entry) -> Official | None:
    repo = "ajbrock/BigGAN-PyTorch"
    deep = entry.has("blocks.0.0.conv4.weight")
    module = "BigGANdeep" if deep else "BigGAN"
    if entry.has("output_layer.0.gain", "linear.weight") or entry.has("output_layer.0.bn.gain", "linear.weight"):
        shared = entry.shape("shared.weight")
        gain = entry.shape("blocks.0.0.bn1.gain.weight")  # (C, shared + chunk)
        return Official(
            "generator", repo, f"{module}.Generator",
            {"hier": deep or bool(shared and gain and gain[1] > shared[1]), "G_depth": 2},
        )  # fmt: skip
    if entry.has("embed.weight", "linear.weight", "blocks.0.0.conv1.weight"):
        stages = len(entry.numbers(r"blocks\.(\d+)\."))
        size = 4 << stages if deep else 2 << stages  # the last stage keeps its size, and below 64 pixels two do
        return Official("discriminator", repo, f"{module}.Discriminator", {"resolution": size})
    return None


def _studiogan(entry: Entry) -> Official | None:
    blocks = entry.numbers(r"blocks\.(\d+)\.0\.(?:conv2d1|conv2d4|deconv0|conv0)\.weight")
    attention = [
        sum(block < place for block in blocks) for place in entry.numbers(r"blocks\.(\d+)\.0\.conv1x1_theta\.")
    ]
    if entry.has("linear0.weight") and blocks:
        return _studiogan_generator(entry, blocks, attention)
    if entry.has("linear1.weight") and blocks:
        return _studiogan_critic(entry, blocks, attention)
    return None


def _studiogan_generator(entry: Entry, blocks: list[int], attention: list[int]) -> Official:
    deep = entry.has("blocks.0.0.conv2d4.weight")
    shared, gain = entry.shape("shared.weight"), entry.shape("blocks.0.0.bn1.gain.weight")
    if entry.has("blocks.0.0.deconv0.weight"):
        backbone, gain = "deep_conv", entry.shape("blocks.0.0.bn0.gain.weight")
    elif deep:
        backbone = "big_resnet_deep_legacy"
    else:
        backbone = "big_resnet" if shared else "resnet"
    depth = 2
    stages = len(blocks) // depth if deep else len(blocks)
    return Official(
        "generator", _STUDIOGAN, f"models.{backbone}.Generator",
        {
            "img_size": 4 << stages, "g_depth": depth if deep else "N/A",
            "g_cond_mtd": "cBN" if shared or (gain and backbone != "big_resnet_deep_legacy") else "W/O",
            "num_classes": shared[0] if shared else gain[1] if gain else 0,
            "apply_attn": bool(attention),
            "attn_g_loc": sorted({-(-place // depth) if deep else place for place in attention}),
        },
    )  # fmt: skip


def _studiogan_critic(entry: Entry, blocks: list[int], attention: list[int]) -> Official:
    if entry.has("blocks.0.0.conv0.weight"):
        backbone, size = "deep_conv", 8 << len(blocks)
    elif entry.has("input_conv.weight"):
        backbone, size = "big_resnet_deep_legacy", 4 << (len(blocks) // 2)
    else:
        backbone, size = "resnet", 2 << len(blocks)
    rows, labels = entry.shape("linear1.weight")[0], entry.shape("embedding.weight")
    classifier = entry.shape("linear2.weight")
    method = "2C" if labels and classifier else "PD" if labels else "AC" if classifier else "MD" if rows > 1 else "W/O"
    return Official(
        "discriminator", _STUDIOGAN, f"models.{backbone}.Discriminator",
        {
            "img_size": size, "d_cond_mtd": method, "d_depth": 2, "apply_attn": bool(attention),
            "aux_cls_type": "TAC" if entry.has("linear_mi.weight") else "W/O",
            "num_classes": (labels or classifier or (rows if rows > 1 else 0,))[0],
            "attn_d_loc": sorted(set(attention)),
        },
    )  # fmt: skip


_STUDIOGAN = "POSTECH-CVLab/PyTorch-StudioGAN"


def _r3gan(entry: Entry) -> Official | None:
    plain = Entry(entry.name, {name.removeprefix("Model."): view for name, view in entry.table.items()})
    if plain.has("MainLayers.0.Layers.0.Basis"):
        return Official("generator", "brownvc/R3GAN", "R3GAN.Networks.Generator", entry.kwargs or {})
    if plain.has("ExtractionLayer.Layer.weight"):
        return Official("discriminator", "brownvc/R3GAN", "R3GAN.Networks.Discriminator", entry.kwargs or {})
    return None


def _fastgan(entry: Entry) -> Official | None:
    repo = "odegeasslbc/FastGAN-pytorch"
    if entry.has("init.init.0.weight", "to_128.weight"):
        return Official("generator", repo, "models.Generator", {"im_size": entry.numbers(r"feat_(\d+)\.")[-1]})
    if entry.has("down_from_big.0.weight", "rf_big.0.weight"):
        strided = entry.shape("down_from_big.0.weight")[2:] == (4, 4)
        size = 1024 if entry.numbers(r"down_from_big\.([1-9])\.") else 512 if strided else 256
        return Official("discriminator", repo, "models.Discriminator", {"im_size": size})
    return None


# ---------------------------------------------------------------------------------------------------- transformers


def _vitgan(entry: Entry) -> Official | None:
    if entry.has("lff.ffm.conv.weight") and entry.numbers(r"layers\.(\d+)\.attn\."):
        cls = "models.gan.stylegan2.vit_generator.Generator"
        return Official("generator", "mlpc-ucsd/ViTGAN (authors' PyTorch reproduction)", cls, {"size": 32})
    return None


def _ladagan(entry: Entry) -> Official | None:
    repo = "milmor/LadaGAN (pytorch/)"
    if entry.has("block_64.attn.q_attn.weight", "ch_conv.weight"):
        return Official("generator", repo, "model.Generator")
    if entry.has("block_256.attn.q_attn.weight", "logits.2.weight"):
        return Official("discriminator", repo, "model.Discriminator")
    return None


def _transgan(entry: Entry) -> Official | None:
    repo = "VITA-Group/TransGAN"
    if entry.has("l1.weight", "pos_embed_1", "deconv.0.weight"):
        relative = entry.has("blocks.block.0.attn.relative_position_bias_table")
        norm = {"g_norm": _norm(entry, "blocks.block.0.norm1")}
        return Official(
            "generator", repo, f"models_search.ViT_custom{'_rp' if relative else ''}.Generator", {"args": norm}
        )
    if entry.has("l1.weight", "pos_embed_6", "blocks_6.block.0.attn.qkv.weight"):
        if entry.has("embedding_transform.weight"):
            raise NoImporter("no importer yet for Celeba256_gen, whose tokens attend to the latent, too")
        norm = {"g_norm": _norm(entry, "blocks_1.block.0.norm1")}
        return Official("generator", repo, "models_search.ViT_custom_local544444_256_rp.Generator", {"args": norm})
    if entry.has("fRGB_1.weight", "pos_embed_1"):
        norm = {"d_norm": _norm(entry, "blocks_1.0.norm1")}
        cls = "models_search.ViT_custom_scale2_rp_noise.Discriminator"
        return Official("discriminator", repo, cls, {"args": norm})
    return None


def _norm(entry: Entry, module: str) -> str:
    """Layer, batch or, where nothing is learnt, pixel norm."""
    if not entry.has(f"{module}.norm.weight"):
        return "pn"
    return "bn" if entry.has(f"{module}.norm.running_mean") else "ln"


def _styleswin(entry: Entry) -> Official | None:
    repo = "microsoft/StyleSwin"
    arguments = entry.around.get("args")
    said = dict(arguments.state) if isinstance(arguments, Record) else {}
    if entry.has("input.input", "layers.0.blocks.0.qkv.weight"):
        layers = entry.numbers(r"layers\.(\d+)\.")
        full = 4
        for layer in layers:
            bias = entry.shape(f"layers.{layer}.blocks.0.attn.0.relative_position_bias_table")  # ((2w - 1)^2, heads)
            if bias and (isqrt(bias[0]) + 1) // 2 == 4 << layer:
                full = 4 << layer
        width, hidden = entry.shape("layers.0.blocks.0.mlp.fc2.weight")
        kwargs = {
            "size": 4 << layers[-1], "style_dim": entry.shape("style.1.weight")[1],
            "n_mlp": len(entry.numbers(r"style\.(\d+)\.")), "mlp_ratio": hidden // width,
            "enable_full_resolution": full,
        }  # fmt: skip
        kwargs |= {key: said[key] for key in ("lr_mlp",) if key in said}
        return Official("generator", repo, "models.generator.Generator", kwargs)
    if entry.has("final_linear.0.weight", "from_rgbs.0.conv.0.weight"):
        size = 4 << len(entry.numbers(r"from_rgbs\.(\d+)\."))
        spectral = any(name.endswith("weight_orig") for name in entry.table)
        return Official("discriminator", repo, "models.discriminator.Discriminator", {"size": size, "sn": spectral})
    return None


_STUDIOGAN_OPTIONS = {
    "backbone": "MODEL.backbone: resnet, big_resnet, deep_conv, big_resnet_deep_legacy, big_resnet_deep_studiogan",
    "g_depth": "blocks a stage of a deep generator",
    "d_depth": "blocks a stage of a deep critic",
    "d_cond_mtd": "how the critic sees classes",
    "aux_cls_type": "its auxiliary classifier",
    "normalize_d_embed": "whether its embeddings are normalised",
    "num_classes": "how many classes there are",
}

_ALIAS_FREE_OPTIONS = {
    "output_scale": "of the image",
    "conv_clamp": "limit of features",
    "lr_multiplier": "of the mapping network",
}

FAMILIES: dict[str, Family] = {
    "stylegan2-ada": Family(_stylegan2, {"conv_clamp": "limit of features", "lr_multiplier": "of the mapping network"}),
    "stylegan3": Family(_stylegan3, _ALIAS_FREE_OPTIONS),
    "stylegan-xl": Family(
        _stylegan_xl,
        _ALIAS_FREE_OPTIONS,
        inert=("dill._dill.", "timm.", "pg_modules.", "feature_networks.", "functools.", "torch._C.", "types."),
    ),
    "biggan": Family(
        _biggan,
        {
            "BN_eps": "of all batch norms but the last",
            "SN_eps": "of the power iteration",
            "G_depth": "blocks a stage of BigGAN-deep's generator",
            "resolution": "pixels, of a critic",
        },
    ),
    "studiogan": Family(_studiogan, _STUDIOGAN_OPTIONS),
    "styleswin": Family(_styleswin, {"lr_mlp": "of the mapping network", "enable_full_resolution": "pixels"}),
    "r3gan": Family(_r3gan),
    "fastgan": Family(_fastgan, {"im_size": "pixels"}),
    "vitgan": Family(_vitgan, {"size": "pixels, of an implicit decoder", "token_width": "tokens a side"}),
    "ladagan": Family(_ladagan),
    "transgan": Family(
        _transgan,
        {
            "latent_norm": "whether latents are normalised",
            "num_heads": "of a generator without relative positions",
            "g_norm": "ln, bn, in, pn or none",
            "d_norm": "ln, bn, in, pn or none",
            "g_act": "gelu or leakyrelu",
            "d_act": "gelu or leakyrelu",
        },
    ),
}
"""`--from` -> how its files are understood."""


def with_options(family: str, official: Official, options: Mapping[str, Any]) -> Official:
    """The official network with what the user knows of its arguments."""
    kwargs, cls = dict(official.kwargs), official.cls
    if "stem" in kwargs and options:  # what was grown from a stem is made as that was
        stem = with_options(family, Official(official.role, official.repo, cls, kwargs["stem"]), options)
        return Official(official.role, official.repo, cls, {**kwargs, "stem": stem.kwargs}, official.model)
    for key, value in options.items():
        if key == "backbone":
            cls = f"models.{value}.{cls.rpartition('.')[2]}"
        elif family == "transgan" and key != "num_heads":
            kwargs["args"] = {**kwargs.get("args", {}), key: value}
        elif key == "lr_multiplier":
            kwargs["mapping_kwargs"] = {**(kwargs.get("mapping_kwargs") or {}), key: value}
        else:
            kwargs[key] = value
    return Official(official.role, official.repo, cls, kwargs, official.model)


def looks_like(entries: Collection[Entry]) -> list[str]:
    """The families that know any of these."""
    return [name for name, family in FAMILIES.items() if any(family.recognise(entry) for entry in entries)]
