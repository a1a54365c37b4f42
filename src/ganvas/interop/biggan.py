"""Networks of BigGAN's first author (Brock & Smith, BigGAN-PyTorch) -> ours: BigGAN and BigGAN-deep.

His spectral norm keeps u alone, and takes one power iteration from it in every forward, in eval mode without keeping
the result. The iteration is done here, so that our frozen u and v give the same singular value.

Widths, depths and places of attention are read from the names and shapes of the tensors; arguments decide only what
these do not show.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.interop.adversarial import call_critic, call_generator
from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, importer
from ganvas.parts import image_spec
from ganvas.types import DataSpec

REPO = "ajbrock/BigGAN-PyTorch"

INSIDE = {"bn1": "norm1", "bn2": "norm2", "bn3": "norm3", "bn4": "norm4", "conv_sc": "skip", "o": "out"}
GENERATOR = {"linear": "project", "output_layer.0": "norm", "output_layer.2": "to_image"}
CRITIC = {"input_conv": "from_image", "linear": "head.linear", "embed": "head.embedding"}
STATISTICS = {  # torch's own names are those of his synchronised norm
    "stored_mean": "running_mean",
    "stored_var": "running_var",
    "running_mean": "running_mean",
    "running_var": "running_var",
}
LAST_NORM_EPS = 1e-5  # of the generator's last norm, whatever BN_eps is


@importer("BigGAN.Generator", repo=REPO)
def generator(case: OfficialCase) -> Imported:
    """The generator of BigGAN, hierarchical or not, with a shared class embedding or a table in each norm."""
    _refuse(case, norm_style="bn")
    case = _plain(case)
    hierarchical = bool(case.kwargs.get("hier", False))
    shared = case.state.get("shared.weight")
    convs = [_weight(case, f"{block}.conv1") for block in _blocks(case)]  # each (out, in, 3, 3)
    widths = [convs[0].shape[1], *(len(conv) for conv in convs)]
    node = {
        "use": "biggan-generator",
        "width": widths,
        "z_dim": _weight(case, "linear").shape[1] * (len(widths) if hierarchical else 1),
        "hierarchical": hierarchical,
        "conditioning": "batch-norm" if shared is None else "shared",
        "attention": _attention(case, per_stage=1),
        "spectral_norm": _spectral(case),
        "norm_eps": case.kwargs.get("BN_eps", 1e-5),
    }
    if shared is None:
        classes = _weight(case, f"{_blocks(case)[0]}.bn1.gain").shape[1]
    else:
        classes, node["shared_dim"] = shared.shape
    return carry_over(case, _spec(case, widths, classes), node, rename=_renamer(case, GENERATOR), call=_call_generator)


@importer("BigGANdeep.Generator", repo=REPO)
def deep_generator(case: OfficialCase) -> Imported:
    """The generator of BigGAN-deep, which is always hierarchical and shares its class embedding."""
    _refuse(case, norm_style="bn", hier=True, G_shared=True)
    case = _plain(case)
    depth = int(case.kwargs.get("G_depth", 2))
    blocks = _blocks(case)
    widths = [_weight(case, f"{block}.conv1").shape[1] for block in blocks[::depth]]
    widths.append(len(_weight(case, f"{blocks[-1]}.conv4")))
    classes, shared_dim = case.state["shared.weight"].shape
    node = {
        "use": "biggan-deep-generator",
        "width": widths,
        "z_dim": _weight(case, "linear").shape[1] - shared_dim,
        "depth": depth,
        "conditioning": "shared",
        "shared_dim": shared_dim,
        "attention": _attention(case, per_stage=depth),
        "spectral_norm": _spectral(case),
        "norm_eps": case.kwargs.get("BN_eps", 1e-5),
    }
    return carry_over(case, _spec(case, widths, classes), node, rename=_renamer(case, GENERATOR), call=_call_generator)


@importer("BigGAN.Discriminator", repo=REPO)
def discriminator(case: OfficialCase) -> Imported:
    """The critic of BigGAN, wide or not."""
    _refuse(case, output_dim=1)
    case = _plain(case)
    classes, features = _weight(case, "embed").shape
    first = _weight(case, "blocks.0.0.conv1")  # (inner, in, 3, 3)
    node = {
        "use": "biggan-discriminator",
        "width": features,
        "norm": "spectral",
        "conditioning": {"use": "projection"},
        "attention": _attention(case, per_stage=1),
        "wide": len(first) == len(_weight(case, "blocks.0.0.conv2")),
        "skip": "input",
    }
    spec = _scored(case, first.shape[1], classes)
    return carry_over(case, spec, node, rename=_renamer(case, CRITIC), call=_call_critic)


@importer("BigGANdeep.Discriminator", repo=REPO)
def deep_discriminator(case: OfficialCase) -> Imported:
    """The critic of BigGAN-deep."""
    _refuse(case, output_dim=1)
    case = _plain(case)
    classes, features = _weight(case, "embed").shape
    node = {
        "use": "biggan-deep-discriminator",
        "width": features,
        "depth": sum(block.startswith("blocks.0.") for block in _blocks(case)),
        "norm": "spectral",
        "conditioning": {"use": "projection"},
        "attention": _attention(case, per_stage=1),
        "skip": "input",
    }
    spec = _scored(case, _weight(case, "input_conv").shape[1], classes)
    return carry_over(case, spec, node, rename=_renamer(case, CRITIC), call=_call_critic)


# ---------------------------------------------------------------------------------------------------- tensors


def _plain(case: OfficialCase) -> OfficialCase:
    """The case with its tensors named and shaped as torch's own layers would have them."""
    state = {key.replace(".bn.", "."): value for key, value in case.state.items() if not _left_behind(key)}
    for key in [key for key in state if key.endswith(".u0")]:
        layer = key.removesuffix(".u0")
        u, v = _iterated(state[f"{layer}.weight"], state.pop(key), case.kwargs.get("SN_eps", 1e-12))
        state |= {f"{layer}.weight_orig": state.pop(f"{layer}.weight"), f"{layer}.weight_u": u, f"{layer}.weight_v": v}
    for key, value in list(state.items()):
        owner, _, last = key.rpartition(".")
        if last == "gamma":
            state[key] = value.reshape(1)
        elif last in STATISTICS:
            del state[key]
            inner = owner if owner == "output_layer.0" else f"{owner}.norm"  # a conditional norm of ours holds a norm
            state[f"{inner}.{STATISTICS[last]}"] = value
        elif owner == "output_layer.0" and last == "gain":
            state[f"{owner}.weight"] = state.pop(key)
        elif "shared.weight" not in state and re.search(r"\.bn\d\.(gain|bias)\.weight$", key):
            state[key] = value.T.contiguous()  # a table (classes, C) -> a linear map of one-hot labels (C, classes)
    variance = "output_layer.0.running_var"
    if variance in state:  # eps is the same for all of our norms
        state[variance] = state[variance] + (LAST_NORM_EPS - case.kwargs.get("BN_eps", 1e-5))
    return dataclasses.replace(case, state=state)


def _left_behind(key: str) -> bool:
    """Logged singular values, vectors of all but the largest one, and counters."""
    return bool(re.search(r"\.(sv\d+|u[1-9]\d*|accumulation_counter|num_batches_tracked)$", key))


def _iterated(weight: Tensor, u: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """u (rows,) and v (columns,) after one power iteration from an official u (1, rows)."""
    W = weight.flatten(1)
    v = F.normalize(u @ W, eps=eps)  # (1, columns)
    u = F.normalize(v @ W.T, eps=eps)  # (1, rows)
    return u[0], v[0]


def _weight(case: OfficialCase, module: str) -> Tensor:
    """The weight of a module, under spectral norm or not."""
    for name in ("weight", "weight_orig"):
        if f"{module}.{name}" in case.state:
            return case.state[f"{module}.{name}"]
    raise NoImporter(f"{case.cls} has no weight {module!r}; this variant is not understood yet")


def _spectral(case: OfficialCase) -> bool:
    return any(key.endswith(".weight_orig") for key in case.state)


# ---------------------------------------------------------------------------------------------------- structure


def _places(case: OfficialCase) -> list[tuple[int, int]]:
    """(i, j) of every module `blocks.i.j`, in the order in which they run."""
    matches = (re.match(r"blocks\.(\d+)\.(\d+)\.", key) for key in case.state)
    return sorted({(int(match[1]), int(match[2])) for match in matches if match})


def _is_attention(case: OfficialCase, place: tuple[int, int]) -> bool:
    return f"blocks.{place[0]}.{place[1]}.gamma" in case.state


def _blocks(case: OfficialCase) -> list[str]:
    """Names of the residual blocks in order."""
    names = [f"blocks.{i}.{j}" for i, j in _places(case) if not _is_attention(case, (i, j))]
    if not names:
        raise NoImporter(f"{case.cls} has no blocks; this variant is not understood yet")
    return names


def _attention(case: OfficialCase, per_stage: int) -> list[str] | None:
    """Where attention stands, as numbers of stages of so many outer blocks."""
    return [f"block{place[0] // per_stage + 1}" for place in _places(case) if _is_attention(case, place)] or None


def _spec(case: OfficialCase, widths: Sequence[int], classes: int) -> DataSpec:
    """What a generator of these widths makes."""
    edge = isqrt(len(_weight(case, "linear")) // widths[0])
    size = edge << (len(widths) - 1)
    return image_spec((len(_weight(case, "output_layer.2")), size, size), classes)


def _scored(case: OfficialCase, channels: int, classes: int) -> DataSpec:
    size = int(case.kwargs.get("resolution", 128))
    return image_spec((channels, size, size), classes)


def _renamer(case: OfficialCase, top: Mapping[str, str]) -> Callable[[str], str]:
    """Official names -> ours, for modules and tensors; the nested blocks become one list."""
    flat = {f"blocks.{i}.{j}": f"blocks.{number}" for number, (i, j) in enumerate(_places(case))}

    def rename(name: str) -> str:
        for official, ours in {**top, **flat}.items():
            if name == official or name.startswith(f"{official}."):
                inside = name.removeprefix(official).split(".")
                return ".".join([ours, *(INSIDE.get(word, word) for word in inside[1:])])
        return name

    return rename


def _refuse(case: OfficialCase, **understood: object) -> None:
    """Options that change the network in ways that ours has no counterpart for."""
    for option, value in understood.items():
        if case.kwargs.get(option, value) != value:
            raise NoImporter(f"no importer yet for {case.cls} with {option}={case.kwargs[option]!r}")


# ---------------------------------------------------------------------------------------------------- running


def _call_generator(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`z` (N, z_dim) and `y` (N,) -> `img` (N, C, H, W), and `y_shared` (N, E), or `y` where nothing is shared."""
    shared = net.shared
    with torch.no_grad():
        y_shared = shared(inputs["y"]) if isinstance(shared, nn.Module) else inputs["y"]
    return call_generator(net, {"z": inputs["z"], "label": inputs["y"]}) | {"y_shared": y_shared}


def _call_critic(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`img` (N, C, H, W) and `y` (N,) -> `logits` (N, 1), `h` (N, D) and `grad_input`."""
    outputs = call_critic(net, {"img": inputs["img"], "label": inputs["y"]})
    return outputs | {"logits": outputs["logits"][:, None]}
