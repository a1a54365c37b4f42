"""StyleSwin's networks (microsoft/StyleSwin) -> ours.

Widths, heads and sizes are read from the shapes of the tensors. Where two biases of the authors' are added up one after
the other, ours is their sum.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ganvas.interop.names import Renamer
from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, importer
from ganvas.parts import image_spec

REPO = "microsoft/StyleSwin"

# What the authors keep beside their weights, and ours compute: filters, wavelets, indices, masks.
COMPUTED = re.compile(r"(^|\.)(kernel|ll|lh|hl|hh|_float_tensor|relative_position_index|attn_mask[12])$")
TAPS = [1, 3, 3, 1]
MEAN_OF = 4096  # latents; the authors' network has no mean of w, which ours keeps for truncation

BLOCK = {
    "qkv": "attention.qkv",
    "proj": "attention.out",
    "attn.0": "attention.halves.0",
    "attn.1": "attention.halves.1",
    "relative_position_bias_table": "bias.table",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
    "reduction": "reduce",
    "alpha": "strength",
}


@importer("models.generator.Generator", repo=REPO)
def generator(case: OfficialCase) -> Imported:
    """The generator, of any size and width."""
    state = _learnt(case)
    maps = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("layers."))
    side, first = int(case.kwargs["size"]), state["input.input"].shape[2]
    widths = [state[f"layers.{i}.blocks.0.proj.weight"].shape[0] for i in range(maps)]
    tables = [state[f"layers.{i}.blocks.0.attn.0.relative_position_bias_table"] for i in range(maps)]
    unwindowed = [first << i for i, table in enumerate(tables) if len(table) == (2 * (first << i) - 1) ** 2]
    layers = [key for key in state if re.fullmatch(r"style\.\d+\.weight", key)]
    w_dim, z_dim = state[layers[-1]].shape[0], state[layers[0]].shape[1]
    node: dict[str, Any] = {
        "use": "styleswin-generator",
        "widths": widths,
        "heads": [2 * table.shape[1] for table in tables],
        "whole_up_to": max(unwindowed),
        "mlp_ratio": len(state["layers.0.blocks.0.mlp.fc1.weight"]) / widths[0],
        "z_dim": z_dim,
        "w_dim": w_dim,
        "mapping": {"layers": len(layers), "lr_multiplier": case.kwargs.get("lr_mlp", 0.01)},
    }
    state["input.input"] = state["input.input"][0].flatten(1).T.contiguous()  # (1, C, h, w) -> tokens (h*w, C)
    for i in range(maps):
        state[f"to_rgbs.{i}.conv.bias"] = state[f"to_rgbs.{i}.conv.bias"] + state.pop(f"to_rgbs.{i}.bias").flatten()
        for block in (f"layers.{i}.blocks.0", f"layers.{i}.blocks.1"):
            state |= _queries(state, f"{block}.qkv", widths[i] // node["heads"][i], case.kwargs.get("qk_scale"))
    state["w_avg"] = torch.zeros(w_dim)
    top = {
        "input.input": "const",
        "w_avg": "mapping.w_avg",
        "to_rgbs": "to_images",
        "layers": "stages",
        "style": "mapping",
    }
    top |= {f"style.{i + 1}": f"mapping.layers.{i}" for i in range(len(layers))}
    channels = state["to_rgbs.0.conv.weight"].shape[0]
    imported = carry_over(
        dataclasses.replace(case, state=state), image_spec((channels, side, side)), node, rename=Renamer(top, BLOCK),
        call=partial(_call_generator, dict(case.sidecar.get("forward_kwargs") or {})),
    )  # fmt: skip
    mapping = cast("Any", imported.net).mapping
    with torch.no_grad():
        z = torch.randn(MEAN_OF, z_dim, generator=torch.Generator().manual_seed(0))
        mapping.w_avg.copy_(mapping(z).mean(0))
    return imported


@importer("models.discriminator.Discriminator", repo=REPO)
def discriminator(case: OfficialCase) -> Imported:
    """The wavelet critic, with spectral norm or with an equalised learning rate."""
    if list(case.kwargs.get("blur_kernel", TAPS)) != TAPS:
        raise NoImporter(f"no importer yet for {case.cls} with blur_kernel={case.kwargs['blur_kernel']!r}")
    state = _learnt(case)
    spectral = "final_conv.0.weight_orig" in state
    weight = "weight_orig" if spectral else "weight"
    readers = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("from_rgbs."))
    reader_weights = [state[f"from_rgbs.{i}.conv.0.{weight}"] for i in range(readers)]
    side = int(case.kwargs["size"])
    node = {
        "use": "styleswin-discriminator",
        "widths": [len(reader) for reader in reader_weights],
        "spectral_norm": spectral,
        "conditioning": {"use": "plain"},
    }
    if len(state["final_conv.1.bias"]) != len(reader_weights[-1]):
        raise NoImporter(f"no importer yet for a last layer of {len(state['final_conv.1.bias'])} channels")
    if spectral:  # linear layer, activation with a bias of its own, linear layer
        state["final_linear.0.bias"] = state["final_linear.0.bias"] + state.pop("final_linear.1.bias")
    last = "final_linear.2" if spectral else "final_linear.1"
    top = {"dwt": "from_wavelets.0.haar", "final_linear.0": "linear", last: "head.linear"}
    for i in range(readers):
        top |= _conv(f"from_rgbs.{i}.conv", f"from_wavelets.{i}.conv")
        top[f"from_rgbs.{i}"] = f"from_wavelets.{i}.haar"  # its first output
    for i in range(readers - 1):
        top |= _conv(f"convs.{i}.conv1", f"blocks.{i}.0") | {f"convs.{i}": f"blocks.{i}"}
        # Smoothing is a layer there, and so the convolution the second one.
        top |= _conv(f"convs.{i}.conv2", f"blocks.{i}.1", first=1)
    top |= _conv("final_conv", "conv")
    if not spectral:
        state = {_equalized(key): value for key, value in state.items()}
    return carry_over(
        dataclasses.replace(case, state=state), image_spec((reader_weights[0].shape[1] // 4, side, side)), node,
        rename=Renamer(top, {}), call=_call_critic,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- reading


def _learnt(case: OfficialCase) -> dict[str, Tensor]:
    return {key: value for key, value in case.state.items() if not COMPUTED.search(key)}


def _queries(state: Mapping[str, Tensor], layer: str, depth: int, scale: float | None) -> dict[str, Tensor]:
    """The map to queries, keys and values with a bias, 0 where there is none, and ours for the scale of the logits.

    Parameters
    ----------
    depth : d, channels of a head.
    scale : of the logits; None: 1 / √d. Another one is a factor of the queries.
    """
    weight = state[f"{layer}.weight"].clone()
    bias = state.get(f"{layer}.bias", weight.new_zeros(len(weight))).clone()
    if scale:
        for tensor in (weight, bias):
            tensor[: len(weight) // 3] *= scale * depth**0.5
    return {f"{layer}.weight": weight, f"{layer}.bias": bias}


def _conv(official: str, ours: str, *, first: int = 0) -> dict[str, str]:
    """A layer of theirs is a sequence of convolution and activation, which has the bias."""
    return {f"{official}.{first}": f"{ours}.conv", f"{official}.{first + 1}": f"{ours}.conv", official: ours}


def _equalized(key: str) -> str:
    owner, _, tensor = key.rpartition(".")
    return f"{owner}.parametrizations.weight.original" if tensor == "weight" else key


# ---------------------------------------------------------------------------------------------------- running


def _call_generator(options: Mapping[str, Any], net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`z` (N, z_dim), perhaps `truncation_latent` (w_dim,) -> `latent` (N, L, w_dim) and `img` (N, C, H, W)."""
    ours = cast("Any", net)
    with torch.no_grad():
        w = ours.map(inputs.get("z", inputs.get("noise")))
        psi = options.get("truncation", 1)
        if psi < 1:
            mean = next((value for key, value in inputs.items() if "trunc" in key or "mean" in key), None)
            if mean is None:
                raise NoImporter("a truncated case without the point that latents are moved towards")
            w = mean.reshape(1, -1).lerp(w, float(psi))
        ws = ours.broadcast(w)
        return {"latent": ws.clone(), "img": ours.draw(ws)}


def _call_critic(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`img` (N, C, H, W) -> `logits` (N, 1) and `grad_input` = d sum(logits) / d img."""
    image = inputs["img"].detach().clone().requires_grad_(True)
    logits = net(image).logits[:, None]
    (gradient,) = torch.autograd.grad(logits.sum(), image)
    return {"logits": logits.detach(), "grad_input": gradient}
