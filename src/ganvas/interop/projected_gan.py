"""Projected GAN's networks (autonomousvision/projected_gan) -> ours: its generators, its critics and its mixers.

The authors' generators carry blocks up to 256 pixels whatever they make; those beyond the image are left behind.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from math import log2
from typing import Any

import torch
from torch import Tensor, nn

from ganvas.interop.fastgan import generator_name
from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, fill, importer
from ganvas.nn.projection import FeatureMixer, LevelCritic, LevelCritics
from ganvas.parts import image_spec

REPO = "autonomousvision/projected_gan"
LABELS = ("c", "y", "label")  # how a case may call them

CONDITIONAL = (
    (r"(blocks\.\d+)\.conv\b", r"\1.conv1"),
    (r"(blocks\.\d+)\.bn\b", r"\1.norm1"),
    (r"(blocks\.\d+)\.bn([12])", r"\1.norm\2"),
    (r"(norm[12])\.stored_", r"\1.norm.running_"),
)
CRITIC = (
    (r"^mini_discs\.(\d+)\.main\.(\d+)\.main", r"levels.\1.blocks.\2"),
    (r"(blocks\.\d+\.0)\.main", r"\1"),
    (r"^mini_discs\.(\d+)\.cls", r"levels.\1.judge"),
    (r"^mini_discs\.(\d+)\.embed_proj\.0", r"levels.\1.embed.1"),
    (r"^mini_discs\.(\d+)\.embed", r"levels.\1.embed.0"),
    (r"^mini_discs\.(\d+)\.main\.(\d+)", r"levels.\1.blocks.\2"),
    (r"^mini_discs\.(\d+)", r"levels.\1"),
)
MIXER = (
    (r"^scratch\.layer(\d)_ccm", r"channel_mixers.\1"),
    (r"^scratch\.layer(\d)_csm(\.out_conv)?", r"scale_mixers.\1"),
)


@importer("pg_modules.networks_fastgan.Generator", repo=REPO)
def generator(case: OfficialCase) -> Imported:
    """The variants of FastGAN's generator: full or lite, class-conditional or not."""
    size = int(case.kwargs.get("img_resolution", 256))
    last = int(log2(size)) - 3  # number of the last block

    def beyond(key: str) -> bool:
        match = re.match(r"(blocks|gates)\.(\d+)\.", rename(key))
        return match is not None and int(match[2]) > last + (match[1] == "gates")

    state = {key: value for key, value in case.state.items() if not beyond(key)}
    first = state["synthesis.init.init.0.weight_orig"]  # (z_dim, 2 · 16 · width, 4, 4)
    embedding = state.get("synthesis.embed.weight")
    doubled = any(re.search(r"feat_8\.(conv2|5)\.", key) for key in state)
    node: dict[str, Any] = {
        "use": "projected-gan-generator", "width": first.shape[1] // 32, "z_dim": len(first),
        "lite": not doubled, "conditioning": None if embedding is None else "batch-norm",
    }  # fmt: skip
    spec = image_spec((len(state["synthesis.to_big.bias"]), size, size), 0 if embedding is None else len(embedding))
    return carry_over(dataclasses.replace(case, state=state), spec, node, rename=rename, call=_call_generator)


def rename(name: str) -> str:
    """Official names of a generator's tensors and modules -> ours."""
    inside = "" if name == "synthesis" else name.removeprefix("synthesis.")
    return _renamed(generator_name(inside), CONDITIONAL)


@importer("pg_modules.discriminator.MultiScaleD", repo=REPO)
def critics(case: OfficialCase) -> Imported:
    """The critics of all levels; widths, blocks and classes are read from the tensors."""
    numbers = sorted({int(key.split(".")[1]) for key in case.state})
    levels = [_level(case, number) for number in numbers]
    net = LevelCritics(levels)
    judges = {f"levels.{i}.blocks.{len(level.blocks)}": f"levels.{i}.judge" for i, level in enumerate(levels)}

    def ours(name: str) -> str:
        name = _renamed(name, CRITIC)  # the last convolution is one of a list there
        owner = next((judge for judge in judges if name == judge or name.startswith(f"{judge}.")), None)
        return name if owner is None else name.replace(owner, judges[owner], 1)

    fill(net, case, ours)
    return Imported(net.eval(), image_spec(()), {"use": "projected-gan-discriminator"}, ours, _call_critics)


@importer("pg_modules.projector.F_RandomProj (CCM + CSM part only)", "pg_modules.projector.F_RandomProj", repo=REPO)
def mixer(case: OfficialCase) -> Imported:
    """The frozen mixers of maps that are given; a backbone's own tensors are left behind."""
    state = {key: value for key, value in case.state.items() if key.startswith("scratch.")}
    if not state:
        raise NoImporter(f"no importer yet for {case.cls} without mixers")
    inputs = [state[f"scratch.layer{i}_ccm.weight"] for i in range(4)]  # (out, in, 1, 1)
    net = FeatureMixer(
        [weight.shape[1] for weight in inputs],
        width=len(inputs[0]),
        expand=len(inputs[1]) > len(inputs[0]),
        scales=any("_csm" in key for key in state),
    )
    fill(net, dataclasses.replace(case, state=state), _mixer_name)
    return Imported(net.eval(), image_spec(()), {"use": "projected-gan-discriminator"}, _mixer_name, _call_mixer)


# ---------------------------------------------------------------------------------------------------- structure


def _level(case: OfficialCase, number: int) -> LevelCritic:
    """A critic shaped like that of one level."""
    tensors = {
        key.removeprefix(f"mini_discs.{number}."): value
        for key, value in case.state.items()
        if key.startswith(f"mini_discs.{number}.") and key.endswith((".weight_orig", "embed.weight"))
    }
    conditional = "cls.weight_orig" in tensors
    convs = {key: value for key, value in tensors.items() if key.startswith("main.")}
    blocks: dict[int, list[Tensor]] = {}
    for key, value in convs.items():
        if re.match(r"main\.\d+\.main\.", key):
            blocks.setdefault(int(key.split(".")[1]), []).append(value)
    last = f"main.{len(blocks)}.weight_orig"
    judge = tensors["cls.weight_orig"] if conditional else convs[last]  # (1 or 64, C, 4, 4)
    separable = any(key.endswith("pointwise.weight_orig") for key in convs)
    patch = any(".main.0.main." in key for key in convs)
    channels = [judge.shape[1]]
    for i in sorted(blocks, reverse=True):
        prefix = f"main.{i}.main.0.main.0" if patch else f"main.{i}.main.0"
        first = convs[f"{prefix}.depthwise.weight_orig" if separable else f"{prefix}.weight_orig"]
        channels.insert(0, len(first) if separable else first.shape[1])
    return LevelCritic(
        channels, kernel=(judge.shape[2], judge.shape[3]), classes=len(tensors["embed.weight"]) if conditional else 0,
        separable=separable, patch=patch,
    )  # fmt: skip


def _mixer_name(name: str) -> str:
    return _renamed(name, MIXER)


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for official, ours in rules:
        name = re.sub(official, ours, name)
    return name


# ---------------------------------------------------------------------------------------------------- running


def _label(inputs: Mapping[str, Tensor]) -> Tensor | None:
    """Labels (N,) int64 of a case, which may give them one-hot."""
    given = next((inputs[key] for key in LABELS if key in inputs), None)
    return given.argmax(1) if given is not None and given.dim() == 2 else given


def _call_generator(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`z` (N, z_dim) and perhaps labels -> `img` (N, C, H, W)."""
    with torch.no_grad():
        return {"img": net(inputs["z"], _label(inputs))}


def _call_critics(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`feat0`, `feat1`, ... -> `logits` of all places (N, P), those of each level, and d sum(logits) / d each map."""
    names = sorted(key for key in inputs if re.fullmatch(r"feat\d+", key))
    maps = [inputs[name].detach().clone().requires_grad_(True) for name in names]
    levels, _ = net(maps, _label(inputs))
    logits = torch.cat([level.flatten(1) for level in levels], 1)
    gradients = torch.autograd.grad(logits.sum(), maps, allow_unused=True)
    outputs = {"logits": logits.detach()} | {f"logits_disc{i}": level.detach() for i, level in enumerate(levels)}
    return outputs | {f"grad_{name}": g for name, g in zip(names, gradients, strict=True) if g is not None}


def _call_mixer(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`feat0`, `feat1`, ... -> `out0`, `out1`, ..."""
    with torch.no_grad():
        mixed = net([inputs[name] for name in sorted(key for key in inputs if key.startswith("feat"))])
    return {f"out{i}": level for i, level in enumerate(mixed)}
