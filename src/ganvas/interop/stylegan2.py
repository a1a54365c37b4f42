"""StyleGAN2's networks of NVIDIA's two PyTorch code bases -> ours.

stylegan3's `training.networks_stylegan2` takes the synthesis network's options among the generator's own,
stylegan2-ada-pytorch's `training.networks` in a dictionary of theirs; the networks are the same. Half precision in the
highest resolutions (`num_fp16_res`) is not taken over: ours runs in the precision that the run has.
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
from ganvas.types import DataSpec

STYLEGAN3 = "NVlabs/stylegan3"
STYLEGAN2_ADA = "NVlabs/stylegan2-ada-pytorch"

CLAMP = 256  # the default of both networks, and what is meant where `conv_clamp` is not among the arguments
FILTER = "resample_filter"

INSIDE = {"torgb": "to_image", "fromrgb": "from_image", "mbstd": "minibatch_std", "fc": "linear"}


@importer("training.networks_stylegan2.Generator", repo=STYLEGAN3)
@importer("training.networks.Generator", repo=STYLEGAN2_ADA)
def generator(case: OfficialCase) -> Imported:
    """The generator: any architecture, size and filter, with or without labels."""
    options = _options(case, "synthesis_kwargs")
    mapping = dict(case.kwargs.get("mapping_kwargs") or {})
    _refuse(case, options, activation="lrelu", kernel_size=3)
    _refuse(case, mapping, activation="lrelu")
    state, taps = _without_filters(case)
    classes, sizes = int(case.kwargs.get("c_dim") or 0), _sizes(case)
    node = {
        "use": "stylegan2-generator",
        "z_dim": int(case.kwargs["z_dim"]),
        "w_dim": len(state["mapping.w_avg"]),
        "channel_base": int(options.get("channel_base", 32768)),
        "channel_max": int(options.get("channel_max", 512)),
        "architecture": options.get("architecture", "skip"),
        "conditioning": "mapping" if classes else None,
        "noise": any(key.endswith(".noise_strength") for key in state),
        "filter": taps,
        "clamp": options.get("conv_clamp", CLAMP),
        "average_decay": mapping.get("w_avg_beta", 0.998),
        "mapping": _mapping(state, mapping),
    }
    top = {f"mapping.fc{i}": f"mapping.layers.{i}" for i in range(node["mapping"]["layers"])}
    top |= {f"synthesis.b{size}": f"synthesis.blocks.{i}" for i, size in enumerate(sizes)}
    return carry_over(
        dataclasses.replace(case, state=state), _spec(case), node, rename=Renamer(top, INSIDE),
        call=partial(_call_generator, dict(case.sidecar.get("forward_kwargs") or {})),
    )  # fmt: skip


@importer("training.networks_stylegan2.Discriminator", repo=STYLEGAN3)
@importer("training.networks.Discriminator", repo=STYLEGAN2_ADA)
def discriminator(case: OfficialCase) -> Imported:
    """The critic: any architecture, size and filter; with labels its head is `mapped-projection`."""
    options = _options(case, "block_kwargs")
    mapping = dict(case.kwargs.get("mapping_kwargs") or {})
    last = dict(case.kwargs.get("epilogue_kwargs") or {})
    for given in (options, mapping, last):
        _refuse(case, given, activation="lrelu")
    state, taps = _without_filters(case)
    classes, sizes = int(case.kwargs.get("c_dim") or 0), _sizes(case)[::-1]
    head: dict[str, Any] = {"use": "plain"}
    top = {"b4": "epilogue", "b4.out": "head.linear", "b4.out.weight": "head.linear.parametrizations.weight.original"}
    if classes:
        head = {"use": "mapped-projection", "dim": len(state["b4.out.weight"]), "mapping": _mapping(state, mapping)}
        top |= {"mapping": "head.mapping"} | {
            f"mapping.fc{i}": f"head.mapping.layers.{i}" for i in range(head["mapping"]["layers"])
        }
    top |= {f"b{size}": f"blocks.{i}" for i, size in enumerate(sizes[:-1])}
    node = {
        "use": "stylegan2-discriminator",
        "channel_base": int(options.get("channel_base", 32768)),
        "channel_max": int(options.get("channel_max", 512)),
        "architecture": options.get("architecture", "resnet"),
        "conditioning": head,
        "minibatch_group": last.get("mbstd_group_size", 4),
        "minibatch_channels": last.get("mbstd_num_channels", 1),
        "filter": taps,
        "clamp": options.get("conv_clamp", CLAMP),
    }
    adapted = dataclasses.replace(case, state=state)
    return carry_over(adapted, _spec(case), node, rename=Renamer(top, INSIDE), call=_call_critic)


# ---------------------------------------------------------------------------------------------------- reading


def _options(case: OfficialCase, inner: str) -> dict[str, Any]:
    """The arguments, with those of a dictionary among them beside the others."""
    return {**case.kwargs, **(case.kwargs.get(inner) or {})}


def _refuse(case: OfficialCase, options: Mapping[str, Any], **known: Any) -> None:
    """Raise NoImporter where an option is not the one value that is known."""
    for key, value in known.items():
        if options.get(key, value) != value:
            raise NoImporter(f"no importer yet for {case.cls} with {key}={options[key]!r}")


def _sizes(case: OfficialCase) -> list[int]:
    """4, 8, ... to the image's side in pixels."""
    return [4 << i for i in range(int(case.kwargs["img_resolution"]).bit_length() - 2)]


def _spec(case: OfficialCase) -> DataSpec:
    side = int(case.kwargs["img_resolution"])
    return image_spec((int(case.kwargs["img_channels"]), side, side), int(case.kwargs.get("c_dim") or 0))


def _without_filters(case: OfficialCase) -> tuple[dict[str, Tensor], list[float]]:
    """The tensors that are learnt or drawn, and the taps of the resampling filter.

    Every layer keeps a filter; those that resample have their block's.

    Raises
    ------
    NoImporter : the filter is no product of rows and columns.
    """
    state = {key: value for key, value in case.state.items() if key.rpartition(".")[2] != FILTER}
    filter_taps = next(value for key, value in case.state.items() if re.fullmatch(rf"(.*\.)?b\d+\.{FILTER}", key))
    taps = filter_taps if filter_taps.dim() == 1 else filter_taps.sum(0)  # it sums to 1
    if filter_taps.dim() == 2 and not torch.allclose(filter_taps, torch.outer(taps, taps), atol=1e-6):
        raise NoImporter(f"no importer yet for {case.cls} with a filter that is not separable")
    return state, taps.tolist()


def _mapping(state: Mapping[str, Tensor], options: Mapping[str, Any]) -> dict[str, Any]:
    """Number, width and rate of a mapping network's layers, and the length of its class embedding."""
    layers = [key for key in state if key.startswith("mapping.fc") and key.endswith(".weight")]
    embed = state.get("mapping.embed.weight")
    return {
        "layers": len(layers),
        "hidden_dim": len(state["mapping.fc0.weight"]) if len(layers) > 1 else None,
        "embed_dim": None if embed is None else len(embed),
        "lr_multiplier": options.get("lr_multiplier", 0.01),
    }


# ---------------------------------------------------------------------------------------------------- running


def _call_generator(options: Mapping[str, Any], net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`z` (N, z_dim) and perhaps `c` (N, classes) -> `ws` (N, L, w_dim) and `img` (N, C, H, W), both truncated."""
    ours = cast("Any", net)

    def styled() -> Tensor:
        ws = ours.broadcast(ours.map(inputs.get("z"), inputs.get("c")))
        psi, cutoff = options.get("truncation_psi", 1), options.get("truncation_cutoff")
        return ws if psi == 1 else ours.mapping.truncate(ws, psi, cutoff)  # type: ignore[no-any-return]

    with torch.no_grad():
        return {"ws": styled(), "img": ours.synthesis(styled(), options.get("noise_mode", "random"))}


def _call_critic(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`img` (N, C, H, W) and perhaps `c` (N, classes) -> `logits` (N, 1) and `grad_input` = d sum(logits) / d img."""
    image = inputs["img"].detach().clone().requires_grad_(True)
    logits = net(image, inputs.get("c")).logits[:, None]
    (gradient,) = torch.autograd.grad(logits.sum(), image)
    return {"logits": logits.detach(), "grad_input": gradient}
