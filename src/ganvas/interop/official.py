"""Our networks -> state dicts in the official keys of BigGAN-PyTorch and stylegan2-ada-pytorch.

What is written are tensors and plain containers; `import_checkpoint` reads it, and the official classes do.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganvas.errors import MissingCapability, UsageError, nearest
from ganvas.files.files import write_bytes
from ganvas.model import Model
from ganvas.nn.attention import SelfAttention

LAST_NORM_EPS = 1e-5  # of BigGAN-PyTorch's last norm, whatever BN_eps is
LONGEST_SQUARE = 8  # taps; StyleGAN keeps longer filters as rows


@dataclass(frozen=True)
class Exported:
    """One network in official keys, and the arguments of the official class that it belongs to."""

    cls: str
    state: Mapping[str, Tensor]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def export_official(model: Model, family: str, file: Path, *, role: str = "generator") -> dict[str, Any]:
    """Write a network, or for stylegan2-ada the pair, as `torch.save` does.

    BigGAN's files are one state dict each, as its authors' are. StyleGAN2's authors publish pickles with source code;
    here it is `{"G_ema": state dict, "D": state dict, "init_kwargs": {"G_ema": ..., "D": ...}}`.

    Returns
    -------
    What was written: official classes and their arguments.

    Raises
    ------
    UsageError : no such family or network.
    MissingCapability : a network that the official code has no counterpart for.
    CheckpointError : the file cannot be written.
    """
    if family not in EXPORTS:
        raise UsageError(
            f"nothing is exported to {family!r}.{nearest(family, EXPORTS)}", where="--to",
            hint=f"there are {', '.join(EXPORTS)}",
        )  # fmt: skip
    networks = model.recipe["networks"]
    roles = [role] if family == "biggan" else [name for name in ("generator", "discriminator") if name in networks]
    if not roles or any(name not in networks for name in roles):
        raise UsageError(
            f"the model has no network {role!r}, but {', '.join(networks)}", where="--net", hint="--net NAME"
        )
    exported = {name: EXPORTS[family](model, name) for name in roles}
    content: Any = dict(exported[role].state) if family == "biggan" else _snapshot(exported)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(file, buffer.getvalue())
    return {"out": str(file), "networks": {r: {"class": e.cls, "kwargs": dict(e.kwargs)} for r, e in exported.items()}}


def _snapshot(exported: Mapping[str, Exported]) -> dict[str, Any]:
    names = {"generator": "G_ema", "discriminator": "D"}
    states = {names[role]: dict(network.state) for role, network in exported.items()}
    return {**states, "init_kwargs": {names[role]: dict(network.kwargs) for role, network in exported.items()}}


def _refuse(node: Mapping[str, Any], family: str, **understood: Any) -> None:
    """Keys of the recipe that the official network has no counterpart for."""
    for key, value in understood.items():
        given = node.get(key, value)
        given = given.get("use") if isinstance(given, Mapping) and not isinstance(value, Mapping) else given
        allowed = value if isinstance(value, tuple) else (value,)
        if given not in allowed:
            raise MissingCapability(
                f"{family} has no counterpart for {node['use']} with {key}={given!r}", where=f"--to {family}",
                hint=f"it knows {key}: {' or '.join(map(str, allowed))}",
            )  # fmt: skip


def _only(node: Mapping[str, Any], family: str, *uses: str) -> None:
    if node["use"] not in uses:
        raise MissingCapability(
            f"{family} has no counterpart for the network {node['use']!r}", where=f"--to {family}",
            hint=f"it knows {' and '.join(uses)}",
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- BigGAN

_BIGGAN = {
    "biggan-generator": "BigGAN.Generator",
    "biggan-deep-generator": "BigGANdeep.Generator",
    "biggan-discriminator": "BigGAN.Discriminator",
    "biggan-deep-discriminator": "BigGANdeep.Discriminator",
}
_TOP = {
    "project": "linear", "norm": "output_layer.0", "to_image": "output_layer.2", "shared": "shared",
    "from_image": "input_conv", "head.linear": "linear", "head.embedding": "embed",
}  # fmt: skip
_INSIDE = {"norm1": "bn1", "norm2": "bn2", "norm3": "bn3", "norm4": "bn4", "skip": "conv_sc", "out": "o"}
_STATISTICS = {"running_mean": "stored_mean", "running_var": "stored_var"}


def biggan(model: Model, role: str) -> Exported:
    """A network of BigGAN or BigGAN-deep with the keys of ajbrock/BigGAN-PyTorch.

    The official spectral norm takes one power iteration in every forward from the vector that it keeps. That vector is
    chosen so that the iteration ends in ours.
    """
    node, net = model.recipe["networks"][role], model.nets[role]
    _only(node, "biggan", *_BIGGAN)
    if node["use"].endswith("generator"):
        _refuse(node, "biggan", conditioning=("shared", "batch-norm"), codes=None)
    else:
        _refuse(node, "biggan", norm="spectral", conditioning="projection", skip="input")
    eps = node.get("norm_eps", 1e-5)
    places = _places(net, int(node.get("depth", 1)) if role == "discriminator" else 1)
    state: dict[str, Tensor] = {}
    ours = net.state_dict()
    for key, value in ours.items():
        if key.endswith((".num_batches_tracked", ".0._u", ".0._v")):
            continue
        name, value = _biggan_name(key, places), value.detach().cpu()
        if name.endswith(".gamma"):
            value = value.reshape(())
        elif name == "output_layer.0.stored_var":
            value = value - (LAST_NORM_EPS - eps)
        elif node.get("conditioning") == "batch-norm" and re.search(r"\.bn\d\.(gain|bias)\.weight$", name):
            value = value.T.contiguous()  # a linear map of one-hot labels (C, classes) -> a table (classes, C)
        state[name] = value
        if key.endswith(".parametrizations.weight.original"):
            layer = key.removesuffix("original")
            u, v = ours[f"{layer}0._u"].cpu(), ours[f"{layer}0._v"].cpu()
            owner = name.removesuffix(".weight")
            state[f"{owner}.u0"] = before(value.flatten(1), u, v)[None]
            state[f"{owner}.sv0"] = (u @ value.flatten(1) @ v)[None]
    kwargs: dict[str, Any] = {"resolution": model.spec.height, "n_classes": model.spec.num_classes, "SN_eps": 1e-12}
    if role == "generator":
        kwargs |= {"dim_z": node["z_dim"], "hier": node.get("hierarchical", True), "BN_eps": eps}
        kwargs |= {"G_shared": node["conditioning"] == "shared", "shared_dim": node.get("shared_dim", 0)}
    return Exported(_BIGGAN[node["use"]], state, kwargs)


def before(W: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """A unit vector u0 (rows,) whose power iteration, v' ~ W^T u0 and u' ~ W v', gives v; u where there is none."""
    W64, v64 = W.double(), v.double()
    if W.shape[0] <= W.shape[1]:
        solution = torch.linalg.lstsq(W64 @ W64.T, (W64 @ v64)[:, None], driver="gelsd").solution[:, 0]
    else:
        solution = W64 @ torch.linalg.lstsq(W64.T @ W64, v64[:, None], driver="gelsd").solution[:, 0]
    again = W64.T @ solution
    reached = torch.linalg.vector_norm(again / again.norm().clamp_min(1e-30) - v64)
    chosen = solution if bool(reached < 1e-4) else u.double()
    u0: Tensor = (chosen / chosen.norm().clamp_min(1e-30)).to(W.dtype)
    return u0


def _places(net: nn.Module, depth: int) -> dict[int, str]:
    """Number of a block in our list -> its place in the nested lists: `depth` blocks each, then perhaps attention."""
    places: dict[int, str] = {}
    i, j = 0, 0
    for number, block in enumerate(net.blocks):  # type: ignore[arg-type]
        if not isinstance(block, SelfAttention) and j >= depth:
            i, j = i + 1, 0
        places[number] = f"{i}.{j}"
        j += 1
    return places


def _biggan_name(key: str, places: Mapping[int, str]) -> str:
    key = key.replace(".parametrizations.weight.original", ".weight")
    if match := re.fullmatch(r"blocks\.(\d+)\.(.*)", key):
        words = [_INSIDE.get(word, word) for word in match[2].split(".")]
        if words[-1] in _STATISTICS:  # a conditional norm of ours holds a norm
            words = [*words[:-2], _STATISTICS[words[-1]]]
        return f"blocks.{places[int(match[1])]}.{'.'.join(words)}"
    module, _, tensor = key.rpartition(".")
    name = _TOP[module]
    if module == "norm":
        tensor = {"weight": "gain", **_STATISTICS}.get(tensor, tensor)
    return f"{name}.{tensor}"


# ---------------------------------------------------------------------------------------------------- StyleGAN2


def stylegan2(model: Model, role: str) -> Exported:
    """A network of StyleGAN2 with the keys and arguments of NVlabs/stylegan2-ada-pytorch."""
    node = model.recipe["networks"][role]
    _only(node, "stylegan2-ada", "stylegan2-generator", "stylegan2-discriminator")
    side = model.spec.height
    if model.spec.width != side or side & (side - 1):
        raise MissingCapability(
            f"stylegan2-ada makes squares of a power of two, not {side} by {model.spec.width}",
            where="--to stylegan2-ada", hint="train at 32, 64, 128, ... pixels",
        )  # fmt: skip
    if node["use"].endswith("generator"):
        return _stylegan2_generator(model, node, role)
    return _stylegan2_critic(model, node, role)


def _stylegan2_generator(model: Model, node: Mapping[str, Any], role: str) -> Exported:
    state: dict[str, Tensor] = {}
    taps = _filter(node["filter"])
    for key, value in model.nets[role].state_dict().items():
        name = re.sub(r"^mapping\.layers\.(\d+)", r"mapping.fc\1", key)
        name = re.sub(r"^synthesis\.blocks\.(\d+)", lambda match: f"synthesis.b{4 << int(match[1])}", name)
        state[name.replace(".to_image.", ".torgb.")] = value.detach().cpu()
    layers = {match[1] for name in state if (match := re.match(r"(synthesis\.b\d+\.(conv0|conv1|skip))\.weight", name))}
    blocks = {match[1] for name in state if (match := re.match(r"(synthesis\.b\d+)\.", name))}
    state |= {f"{part}.resample_filter": taps.clone() for part in sorted(blocks | layers)}
    mapping = dict(node["mapping"])
    kwargs = {
        "z_dim": node["z_dim"], "c_dim": _classes(model, node), "w_dim": node["w_dim"],
        "img_resolution": model.spec.height, "img_channels": model.spec.channels,
        "mapping_kwargs": {**_mapping(mapping), "w_avg_beta": node["average_decay"]},
        "synthesis_kwargs": {
            "channel_base": node["channel_base"], "channel_max": node["channel_max"], "num_fp16_res": 0,
            "conv_clamp": node["clamp"], "architecture": node["architecture"],
            "resample_filter": list(node["filter"]), "use_noise": node["noise"],
        },
    }  # fmt: skip
    return Exported("training.networks.Generator", state, kwargs)


def _stylegan2_critic(model: Model, node: Mapping[str, Any], role: str) -> Exported:
    _refuse(node, "stylegan2-ada", conditioning=("plain", "mapped-projection"))
    state: dict[str, Tensor] = {}
    side, taps = model.spec.height, _filter(node["filter"])
    tops = (
        (r"^head\.mapping\.layers\.(\d+)", r"mapping.fc\1"), (r"^head\.mapping", "mapping"),
        (r"^head\.linear\.parametrizations\.weight\.original", "b4.out.weight"), (r"^head\.linear", "b4.out"),
        (r"^epilogue\.linear", "b4.fc"), (r"^epilogue", "b4"), (r"\.from_image\.", ".fromrgb."),
    )  # fmt: skip
    for key, value in model.nets[role].state_dict().items():
        name = re.sub(r"^blocks\.(\d+)", lambda match: f"b{side >> int(match[1])}", key)
        for ours, official in tops:
            name = re.sub(ours, official, name)
        state[name] = value.detach().cpu()
    layers = {match[1] for name in state if (match := re.match(r"(b\d+\.(?:conv\d?|skip|fromrgb))\.weight", name))}
    blocks = {f"b{side >> i}" for i in range(side.bit_length() - 3)}
    state |= {f"{part}.resample_filter": taps.clone() for part in sorted(layers | blocks)}
    head = node["conditioning"]
    kwargs: dict[str, Any] = {
        "c_dim": _classes(model, node), "img_resolution": side, "img_channels": model.spec.channels,
        "architecture": node["architecture"], "channel_base": node["channel_base"],
        "channel_max": node["channel_max"], "num_fp16_res": 0, "conv_clamp": node["clamp"],
        "block_kwargs": {"resample_filter": list(node["filter"])},
        "epilogue_kwargs": {
            "mbstd_group_size": node["minibatch_group"], "mbstd_num_channels": node["minibatch_channels"]
        },
    }  # fmt: skip
    if kwargs["c_dim"]:
        kwargs |= {"cmap_dim": head["dim"], "mapping_kwargs": _mapping(dict(head["mapping"]))}
    return Exported("training.networks.Discriminator", state, kwargs)


def _classes(model: Model, node: Mapping[str, Any]) -> int:
    conditioning = node["conditioning"]
    plain = conditioning is None or (isinstance(conditioning, Mapping) and conditioning["use"] == "plain")
    return 0 if plain else model.spec.num_classes


def _mapping(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num_layers": options["layers"], "layer_features": options["hidden_dim"],
        "embed_features": options["embed_dim"], "lr_multiplier": options["lr_multiplier"],
    }  # fmt: skip


def _filter(taps: Any) -> Tensor:
    """A resampling filter as StyleGAN keeps it: (K, K), or (K,) where it is long; it sums to 1."""
    h = torch.tensor(list(taps), dtype=torch.float32)
    square = torch.outer(h, h) if len(h) < LONGEST_SQUARE else h
    return square / square.sum()


EXPORTS = {"biggan": biggan, "stylegan2-ada": stylegan2}
"""`--to` -> how one network is written."""
