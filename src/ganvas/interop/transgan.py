"""Networks of TransGAN's authors (VITA-Group/TransGAN) -> ours.

Widths, depths and sizes are read from the shapes of the tensors; arguments decide only what these do not show. Their
noise on tokens is of learnt strength and drawn anew in every forward; ours leaves it out of sampling.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor, nn

from ganvas.interop.adversarial import call_critic, call_generator
from ganvas.interop.names import Renamer
from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, importer
from ganvas.parts import image_spec

REPO = "VITA-Group/TransGAN"

NORMS = {"ln": "layer", "bn": "batch", "in": "instance", "pn": "pixel", "none": "none"}
ACTIVATIONS = {"gelu": "gelu", "leakyrelu": "leaky-relu"}
CONSTANT = ("relative_position_index", "Hz_geom", "Hz_fbank")  # the latter two are of its augmentation
HEADS = 4  # of the generator, unless its constructor is told

INSIDE = {
    "attn": "attention",
    "proj": "out",
    "relative_position_bias_table": "bias.table",
    "noise_strength_1": "noise",
    "fc1": "0",
    "act": "1",
    "fc2": "2",
}
GENERATOR = {
    "l1": "project",
    "blocks": "stages.0",
    "blocks.block": "stages.0",
    "deconv.0": "to_image",
    **{f"pos_embed_{i + 1}": f"positions.{i}" for i in range(3)},
    **{f"upsample_blocks.{i}{inner}": f"stages.{i + 1}" for i in range(2) for inner in ("", ".block")},
}
GENERATOR_256 = {
    "l1": "project",
    "deconv.0": "to_image",
    **{f"pos_embed_{i + 1}": f"positions.{i}" for i in range(6)},
    **{f"blocks_{i + 1}.block": f"stages.{i}" for i in range(6)},
}
SMOOTH = 2  # bicubic enlargements at 256 pixels
CRITIC = {
    "fRGB_1": "embed1",
    "fRGB_2": "embed2",
    "pos_embed_1": "position1",
    "pos_embed_2": "position2",
    "cls_token": "token",
    "blocks_1": "stage1",
    "blocks_2": "stage2",
    "last_block.0": "last",
    "head": "head.linear",
}


@importer("models_search.ViT_custom_rp.Generator", "models_search.ViT_custom.Generator", repo=REPO)
def generator(case: OfficialCase) -> Imported:
    """The generator of three stages, with or without relative positions."""
    case, args = _plain(case), _arguments(case)
    width = case.state["pos_embed_1"].shape[2]
    table = case.state.get("blocks.block.0.attn.relative_position_bias_table")
    norm = _known(NORMS, args.get("g_norm", "ln"), case)
    node = {
        "use": "transgan-generator",
        "width": width,
        "depths": [
            _count(case, stage) for stage in ("blocks.block", "upsample_blocks.0.block", "upsample_blocks.1.block")
        ],
        "heads": int(case.kwargs.get("num_heads", HEADS)) if table is None else table.shape[1],
        "z_dim": case.state["l1.weight"].shape[1],
        "mlp_ratio": float(args.get("g_mlp") or _ratio(case.state["blocks.block.0.mlp.fc1.weight"])),
        "norm": norm,
        "activation": _known(ACTIVATIONS, args.get("g_act", "gelu"), case),
        "positions": "absolute" if table is None else "relative",
        "noise": "blocks.block.0.attn.noise_strength_1" in case.state,
        "normalize_latent": bool(args.get("latent_norm", False)),
    }
    side = isqrt(case.state["pos_embed_3"].shape[1])
    spec = image_spec((len(case.state["deconv.0.weight"]), side, side))
    return carry_over(case, spec, node, rename=Renamer(GENERATOR, _inside(norm)), call=call_generator)


@importer(
    "models_search.ViT_custom_local544444_256_rp.Generator",
    "models_search.ViT_custom_local544444_256_rp_noise.Generator",
    repo=REPO,
)
def generator_256(case: OfficialCase) -> Imported:
    """The generator of six stages, of which the last three attend in windows."""
    case, args = _plain(case), _arguments(case)
    norm = _known(NORMS, args.get("g_norm", "ln"), case)
    if norm in ("batch", "instance"):
        raise NoImporter(f"no importer yet for {case.cls} with {norm} norm, which is over the tokens of a window there")
    table = case.state["blocks_4.block.0.attn.relative_position_bias_table"]  # ((2 window - 1)^2, heads)
    node = {
        "use": "transgan-generator",
        "width": case.state["pos_embed_1"].shape[2],
        "depths": [_count(case, f"blocks_{i + 1}.block") for i in range(6)],
        "smooth": SMOOTH,
        "heads": table.shape[1],
        "z_dim": case.state["l1.weight"].shape[1],
        "mlp_ratio": float(args.get("g_mlp") or _ratio(case.state["blocks_1.block.0.mlp.fc1.weight"])),
        "norm": norm,
        "activation": _known(ACTIVATIONS, args.get("g_act", "gelu"), case),
        "positions": "relative",
        "window": (isqrt(table.shape[0]) + 1) // 2,
        "noise": "blocks_1.block.0.attn.noise_strength_1" in case.state,
        "normalize_latent": bool(args.get("latent_norm", False)),
    }
    side = isqrt(case.state["pos_embed_6"].shape[1])
    spec = image_spec((len(case.state["deconv.0.weight"]), side, side))
    return carry_over(case, spec, node, rename=Renamer(GENERATOR_256, _inside(norm)), call=call_generator)


@importer(
    "models_search.ViT_custom_scale2_rp_noise.Discriminator", "models_search.ViT_custom_scale2.Discriminator", repo=REPO
)
def discriminator(case: OfficialCase) -> Imported:
    """The critic of two patch sizes, with relative positions, and noise or not."""
    case, args = _plain(case), _arguments(case)
    weight = case.state["fRGB_1.weight"]  # (3/4 D, C, patch, patch)
    norm = _known(NORMS, args.get("d_norm", "ln"), case)
    node = {
        "use": "transgan-discriminator",
        "width": case.state["pos_embed_2"].shape[2],
        "depth": _count(case, "blocks_1"),
        "heads": case.state["blocks_1.0.attn.relative_position_bias_table"].shape[1],
        "patch": weight.shape[2],
        "mlp_ratio": _ratio(case.state["blocks_1.0.mlp.fc1.weight"]),
        "norm": norm,
        "activation": _known(ACTIVATIONS, args.get("d_act", "gelu"), case),
        "noise": "blocks_1.0.attn.noise_strength_1" in case.state,
        "conditioning": {"use": "plain"},
    }
    side = isqrt(case.state["pos_embed_1"].shape[1]) * weight.shape[2]
    spec = image_spec((weight.shape[1], side, side))
    return carry_over(case, spec, node, rename=Renamer(CRITIC, _inside(norm)), call=_call_critic)


def _plain(case: OfficialCase) -> OfficialCase:
    """The case without tensors that are constant."""
    learnt = {key: value for key, value in case.state.items() if key.rpartition(".")[2] not in CONSTANT}
    return dataclasses.replace(case, state=learnt)


def _arguments(case: OfficialCase) -> Mapping[str, Any]:
    args = case.kwargs.get("args", {})
    return args if isinstance(args, Mapping) else vars(args)


def _known(names: Mapping[str, str], value: str, case: OfficialCase) -> str:
    if value not in names:
        raise NoImporter(f"no importer yet for {case.cls} with {value!r}")
    return names[value]


def _inside(norm: str) -> dict[str, str]:
    """Their norms lie within a module of their own; ours do so where they are over all tokens."""
    over_tokens = norm in ("batch", "instance")
    norms = {f"{name}.norm": f"{name}.norm" if over_tokens else name for name in ("norm1", "norm2", "norm")}
    return INSIDE | norms


def _count(case: OfficialCase, prefix: str) -> int:
    """How many modules `prefix.<number>` have tensors."""
    start = f"{prefix}."
    return len({key.removeprefix(start).split(".")[0] for key in case.state if key.startswith(start)})


def _ratio(fc1: Tensor) -> float:
    """Hidden channels over width."""
    hidden, width = fc1.shape
    return float(hidden / width)


def _call_critic(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`img` (N, C, H, W) -> `logits` (N, 1) and `grad_input`."""
    outputs = call_critic(net, inputs)
    return outputs | {"logits": outputs["logits"][:, None]}
