"""The generator of ViTGAN's authors (mlpc-ucsd/ViTGAN, PyTorch) -> ours, with either of its decoders.

Their spectral norm takes one power iteration from its stored vectors in every forward and keeps nothing of it; the
iteration is done here, so that our frozen vectors give the same singular value. What a weight's singular value is
multiplied by, the one that it started with, their files do not hold: it is drawn anew with every model. Where a case
does not give it, it is what a matrix of N(0, 1) has on average, √rows + √columns.

Widths, depths and sizes are read from the shapes of the tensors.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganvas.interop.adversarial import call_generator
from ganvas.interop.names import Renamer
from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, importer
from ganvas.parts import image_spec

REPO = "mlpc-ucsd/ViTGAN (authors' PyTorch reproduction)"

HEADS = 6  # written into the official class
TOKENS = 8  # per side; the convolutional decoder is written for them, whatever `token_width` says
SN_EPS = 1e-4  # added to the norm of the vectors of the power iteration
TAPS = (1, 3, 3, 1)

INSIDE = {
    "layernorm1": "norm1",
    "layernorm2": "norm2",
    "mlp_gamma": "gain",
    "mlp_beta": "bias",
    "attn": "attention",
    "to_qkv": "qkv",
    "to_out.0": "out",
    "ff": "mlp",
    "net.0": "0",
    "net.3": "2",
    "modulation": "style",
}
TOP = {"layers": "blocks", "layernorm": "norm", "lff": "positions", "lff.ffm.conv": "positions.conv"}


@importer("models.gan.stylegan2.vit_generator.Generator", repo=REPO)
def generator(case: OfficialCase) -> Imported:
    """The generator; `use_nerf_proj` is its implicit decoder."""
    state = _plain(case)
    width = len(state["lff.ffm.conv.weight"])
    inner = len(state["layers.0.attn.to_qkv.weight_orig"]) // 3
    if inner != HEADS * (width // HEADS) or state["style.1.weight"].shape[1] != width:
        raise NoImporter(f"no importer yet for {inner} channels of attention at a width of {width}")
    implicit = any(key.startswith("cips.") for key in state)
    decoder_width: int | list[int]
    if implicit:
        size, tokens = int(case.kwargs.get("size", 32)), int(case.kwargs.get("token_width", 8))
        patch, decoder_width = size // tokens, len(state["cips.conv1.conv.weight"])
        channels = len(state["cips.to_rgbs.0.conv.weight"])
    else:
        doublings = _count(state, "convs") // 2
        patch, tokens = 1 << doublings, TOKENS
        decoder_width = [len(state[f"convs.{2 * i}.conv.weight"]) for i in range(doublings)]
        channels = len(state["to_rgb.conv.weight"])
    node = {
        "use": "vitgan-released-generator",
        "width": width,
        "layers": _count(state, "layers"),
        "heads": HEADS,
        "patch": patch,
        "mlp_ratio": len(state["layers.0.ff.net.0.weight_orig"]) // width,
        "mapping_layers": _count(state, "style"),
        "decoder": "implicit" if implicit else "conv",
        "decoder_width": decoder_width,
    }
    spec = image_spec((channels, patch * tokens, patch * tokens))
    adapted = dataclasses.replace(case, state=state)
    return carry_over(adapted, spec, node, rename=_ours, call=_call_implicit if implicit else call_generator)


def _plain(case: OfficialCase) -> dict[str, Tensor]:
    """The state with its tensors named and shaped as ours are, and without what is constant."""
    state: dict[str, Tensor] = {}
    for key, value in case.state.items():
        if key.endswith(".blur.kernel"):
            taps = torch.tensor(TAPS, dtype=value.dtype)
            if not torch.allclose(value, 4 * torch.outer(taps, taps) / taps.sum() ** 2):
                raise NoImporter(f"no importer yet for {case.cls} with another blur_kernel")
        elif key.endswith(".module.weight_bar"):
            layer = key.removesuffix(".module.weight_bar")
            u, v = _iterated(value, case.state[f"{layer}.module.weight_u"])
            drawn = torch.tensor(sum(side**0.5 for side in value.shape))
            state |= {f"{layer}.weight_orig": value, f"{layer}.weight_u": u, f"{layer}.weight_v": v}
            state[f"{layer}.weight_sigma"] = case.inputs.get(f"spectral_multiplier.{layer}", drawn)
        elif key.endswith((".module.weight_u", ".module.weight_v")):
            continue
        elif key.endswith(".conv.weight") and value.dim() == 5:
            state[key] = value[0]  # (1, out, in, k, k)
        elif key.endswith(".modulation.bias"):
            state[key] = value + 1  # it is added in the forward there
        elif re.search(r"to_rgbs?(\.\d+)?\.bias$", key):
            state[key] = value.flatten()  # (1, C, 1, 1)
        else:
            state[key.replace(".module.", ".")] = value
    return state


def _iterated(weight: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """u (rows,) and v (columns,) after one power iteration."""
    v = weight.T @ u
    v = v / (v.norm() + SN_EPS)
    u = weight @ v
    return u / (u.norm() + SN_EPS), v


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many modules `prefix.<number>` have tensors."""
    return len({key.split(".")[1] for key in state if key.startswith(f"{prefix}.")})


def _ours(name: str) -> str:
    """Official names of modules and tensors -> ours."""
    layer, _, last = name.rpartition(".")
    if last == "weight_sigma":
        return f"{_ours(layer)}.parametrizations.weight.0.sigma"
    if name == "cips" or name.startswith("cips."):
        return _in_cips(name.removeprefix("cips").removeprefix("."))
    if match := re.fullmatch(r"style\.(\d+)(.*)", name):
        return f"mapping.layers.{int(match[1]) - 1}{match[2]}"  # the first is the norm
    if match := re.fullmatch(r"(convs\.\d+|to_rgb)(.*)", name):
        return f"decoder.{_in_styled(match[1], match[2])}"
    return Renamer(TOP, INSIDE)(name)


def _in_cips(name: str) -> str:
    if match := re.fullmatch(r"style\.(\d+)(.*)", name):
        return f"decoder.mapping.layers.{int(match[1]) - 1}{match[2]}"
    if match := re.fullmatch(r"layers\.(\d+)(.*)", name):
        return f"decoder.{_in_styled(f'convs.{int(match[1]) + 1}', match[2])}"
    if match := re.fullmatch(r"conv1(.*)", name):
        return f"decoder.{_in_styled('convs.0', match[1])}"
    if match := re.fullmatch(r"to_rgbs\.0(.*)", name):
        return f"decoder.{_in_styled('to_rgb', match[1])}"
    if match := re.fullmatch(r"lff(\.ffm\.conv)?(.*)", name):
        return f"decoder.positions{'.conv' if match[1] else ''}{match[2]}"
    return f"decoder.{name}".rstrip(".")


def _in_styled(module: str, inner: str) -> str:
    """A modulated layer: its convolution's weight and style, its noise and bias are all its own in ours."""
    inner = inner.replace(".conv.modulation", ".style").replace(".conv.weight", ".weight")
    inner = inner.replace(".noise.weight", ".noise").replace(".activate.bias", ".bias")
    return ("to_image" if module == "to_rgb" else module) + inner


def _call_implicit(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """`z` -> `img` (N, C, H, W), which their implicit decoder gives in [0, 1]."""
    images = call_generator(net, inputs)["img"]
    return {"img": (0.5 * images + 0.5).clamp(0, 1)}
