"""StyleGAN3's generators of NVIDIA's code base -> ours. Half precision (`num_fp16_res`) is not taken over."""

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

REPO = "NVlabs/stylegan3"

CLAMP = 256  # of the official layers, where `conv_clamp` is not among the arguments
FILTERS = ("up_filter", "down_filter")
SAME_FILTER = 1e-3  # largest deviation of a tap, in those of the largest one
INSIDE = {"freqs": "frequencies", "magnitude_ema": "magnitude"}

# official argument -> ours, with the official default
PLAIN = {
    "channel_base": ("channel_base", 32768),
    "channel_max": ("channel_max", 512),
    "conv_kernel": ("kernel", 3),
    "use_radial_filters": ("radial", False),
    "margin_size": ("margin", 10),
    "output_scale": ("output_scale", 0.25),
    "conv_clamp": ("clamp", CLAMP),
}
BANDS = {
    "num_critical": ("critical", 2),
    "first_cutoff": ("first_cutoff", 2),
    "first_stopband": ("first_stopband", 2**2.1),
    "last_stopband_rel": ("last_stopband", 2**0.3),
    "filter_size": ("taps", 6),
    "lrelu_upsampling": ("oversampling", 2),
}


@importer("training.networks_stylegan3.Generator", repo=REPO)
def generator(case: OfficialCase) -> Imported:
    """The generator: T, R and what lies between, any size that is a power of two, with or without labels."""
    mapping = dict(case.kwargs.get("mapping_kwargs") or {})
    classes = int(case.kwargs.get("c_dim") or 0)
    node = {
        "use": "stylegan3-generator",
        "z_dim": int(case.kwargs["z_dim"]),
        "w_dim": int(case.kwargs["w_dim"]),
        "layers": int(case.kwargs.get("num_layers", 14)),
        **synthesis_node(case.kwargs),
        "magnitude_decay": case.kwargs.get("magnitude_ema_beta", 0.999),
        "conditioning": "mapping" if classes else None,
        "average_decay": mapping.get("w_avg_beta", 0.998),
        "mapping": {
            "layers": mapping_layers(case.state),
            "lr_multiplier": mapping.get("lr_multiplier", 0.01),
        },
    }
    return with_the_same_filters(case, carry_over(
        without_filters(case), spec_of(case.kwargs, case.kwargs["img_resolution"]), node,
        rename=names_of(case.state), call=partial(call_generator, options_of(case)),
    ))  # fmt: skip


def synthesis_node(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of ours that say how the synthesis network is built, but for the number of layers."""
    node = {ours: kwargs.get(official, default) for official, (ours, default) in PLAIN.items()}
    return {**node, "bands": {ours: kwargs.get(official, default) for official, (ours, default) in BANDS.items()}}


def spec_of(kwargs: Mapping[str, Any], side: int) -> DataSpec:
    """What images the network makes.

    Raises
    ------
    NoImporter : the side is no power of two; sampling rates are ours there.
    """
    if side & (side - 1):
        raise NoImporter(f"no importer for images of {side} pixels, which is no power of two")
    return image_spec((int(kwargs["img_channels"]), side, side), int(kwargs.get("c_dim") or 0))


def mapping_layers(state: Mapping[str, Tensor]) -> int:
    return sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", key)) for key in state)


def layer_names(state: Mapping[str, Tensor]) -> list[str]:
    """Official names of the layers, such as L3_24_16, in their order."""
    names = {match[1] for key in state if (match := re.match(r"synthesis\.(L\d+_\d+_\d+)\.", key))}
    return sorted(names, key=lambda name: int(name[1:].partition("_")[0]))


def names_of(state: Mapping[str, Tensor]) -> Renamer:
    top = {f"mapping.fc{i}": f"mapping.layers.{i}" for i in range(mapping_layers(state))}
    top |= {f"synthesis.{name}": f"synthesis.layers.{i}" for i, name in enumerate(layer_names(state))}
    return Renamer(top, INSIDE)


def without_filters(case: OfficialCase) -> OfficialCase:
    """The case with what is learnt or drawn; ours designs the filters anew."""
    state = {key: value for key, value in case.state.items() if not key.endswith(FILTERS)}
    return dataclasses.replace(case, state=state)


def with_the_same_filters(case: OfficialCase, imported: Imported) -> Imported:
    """The network, if it has designed the filters that the case brings; it may bring none.

    Raises
    ------
    NoImporter : it has others, so that its bands are not those of the case.
    """
    layers = cast("Any", imported.net).synthesis.layers
    for i, name in enumerate(layer_names(case.state)):
        for filter_, ours in zip(FILTERS, ("up_taps", "down_taps"), strict=True):
            official_taps = case.state.get(f"synthesis.{name}.{filter_}")
            our_taps = None if layers[i].activation is None else getattr(layers[i].activation, ours)
            same = official_taps is None or (
                our_taps is not None
                and our_taps.shape == official_taps.shape
                and bool((our_taps - official_taps).abs().max() <= SAME_FILTER * official_taps.abs().max())
            )
            if not same:
                raise NoImporter(f"no importer for layer {name} of {case.cls}: its {filter_} is of another band")
    return imported


def options_of(case: OfficialCase) -> dict[str, Any]:
    return dict(case.sidecar.get("forward_kwargs") or {})


def call_generator(options: Mapping[str, Any], net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`z` (N, z_dim) and perhaps `c` (N, classes) -> `ws` (N, L, w_dim) and `img` (N, C, H, W), both truncated."""
    ours = cast("Any", net)
    with torch.no_grad():
        ws = ours.broadcast(ours.map(inputs["z"], inputs.get("c")))
        psi, cutoff = options.get("truncation_psi", 1), options.get("truncation_cutoff")
        if psi != 1:
            ws = ours.truncate(ws, psi, cutoff, inputs.get("c"))
        return {"ws": ws.clone(), "img": ours.synthesis(ws)}
