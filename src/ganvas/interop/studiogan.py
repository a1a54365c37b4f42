"""Networks of PyTorch-StudioGAN (Kang & Park 2020) -> ours: SNGAN/SAGAN, the deep DCGAN, BigGAN and BigGAN-deep.

Widths are read from the shapes of the tensors, so that checkpoints whose hard-coded widths were changed come across
too; arguments decide only what shapes do not show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ganvas.interop.adversarial import call_generator
from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, importer
from ganvas.interop.studiogan_heads import critic_caller, head_names, head_node
from ganvas.parts import image_spec
from ganvas.types import DataSpec

REPO = "POSTECH-CVLab/PyTorch-StudioGAN"
UNSET = (None, "N/A", "W/O", False)  # how its configurations say "nothing"

ATTENTION = {
    "conv1x1_theta": "theta",
    "conv1x1_phi": "phi",
    "conv1x1_g": "g",
    "conv1x1_attn": "out",
    "sigma": "gamma",
    "bn": "norm",  # the affine-free norm inside a conditional one
}
RESIDUAL = ATTENTION | {
    "bn0": "norm0",
    "bn1": "norm1",
    "bn2": "norm2",
    "conv2d0": "skip",
    "conv2d1": "conv1",
    "conv2d2": "conv2",
}
BIG = RESIDUAL | {"bn3": "norm3", "bn4": "norm4", "conv2d3": "conv3", "conv2d4": "conv4"}
GENERATOR = {"linear0": "project", "bn4": "norm", "conv2d5": "to_image"}
DEEP_GENERATOR = ATTENTION | {"deconv0": "up", "bn0": "norm"}
DEEP_CRITIC = ATTENTION | {"conv0": "conv", "bn0": "norm1", "conv1": "down", "bn1": "norm2"}


@importer("models.resnet.Generator", repo=REPO)
def resnet_generator(case: OfficialCase) -> Imported:
    """The residual generator of SNGAN and SAGAN, conditional or not."""
    size = int(case.kwargs["img_size"])
    rows, z_dim = _weight(case, "linear0").shape  # (width * 4 * 4, z_dim)
    blocks = _count(case, "conv2d1")
    node = {
        "use": "sngan-generator",
        "width": rows // 16,
        "z_dim": z_dim,
        "conditioning": _generator_conditioning(case),
        "attention": _attention(case, "attn_g_loc", [size >> blocks << i for i in range(1, blocks + 1)]),
        "spectral_norm": _spectral(case),
    }
    spec = image_spec((len(_weight(case, "conv2d5")), size, size), _classes(case))
    rename = _renamer(GENERATOR, RESIDUAL)
    return carry_over(case, spec, node, rename=rename, call=call_generator)


@importer("models.resnet.Discriminator", repo=REPO)
def resnet_discriminator(case: OfficialCase) -> Imported:
    """The residual critic of SNGAN and SAGAN, with any head."""
    size = int(case.kwargs["img_size"])
    blocks = _count(case, "conv2d1")
    halved = min(blocks - 1, 2 if size < 64 else blocks)  # all blocks but the last, below 64 pixels the first two
    node = {
        "use": "sngan-discriminator",
        "width": _weight(case, "linear1").shape[1],
        "norm": _critic_norm(case, "blocks.0.0.bn1.weight"),
        "conditioning": head_node(case),
        "attention": _attention(case, "attn_d_loc", [size >> min(i, halved) for i in range(1, blocks + 1)]),
    }
    return carry_over(case, _scored(case, size), node, rename=_critic_renamer(case, RESIDUAL), call=critic_caller(case))


@importer("models.deep_conv.Generator", repo=REPO)
def deep_generator(case: OfficialCase) -> Imported:
    """The DCGAN generator; it starts from 4x4 whatever size it is told."""
    convs = _block_weights(case, "deconv0")  # each (in, out, 4, 4)
    widths = [convs[0].shape[0], *(conv.shape[1] for conv in convs)]
    size = 4 << len(convs)
    node = {
        "use": "dcgan-deep-generator",
        "widths": widths,
        "z_dim": _weight(case, "linear0").shape[1],
        "conditioning": _generator_conditioning(case),
        "attention": _attention(case, "attn_g_loc", [4 << i for i in range(1, len(convs) + 1)]),
        "spectral_norm": _spectral(case),
    }
    spec = image_spec((len(_weight(case, "conv4")), size, size), _classes(case))
    rename = _renamer({"linear0": "project", "conv4": "to_image"}, DEEP_GENERATOR)
    return carry_over(case, spec, node, rename=rename, call=call_generator)


@importer("models.deep_conv.Discriminator", repo=REPO)
def deep_discriminator(case: OfficialCase) -> Imported:
    """The DCGAN critic, with any head."""
    convs = _block_weights(case, "conv0")  # each (out, in, 3, 3)
    size = int(case.kwargs["img_size"])
    node = {
        "use": "dcgan-deep-discriminator",
        "widths": [*(len(conv) for conv in convs), len(_weight(case, "conv1"))],
        "norm": _critic_norm(case, "bn1.weight"),
        "conditioning": head_node(case),
        "attention": _attention(case, "attn_d_loc", [size >> i for i in range(1, len(convs) + 1)]),
    }
    spec = image_spec((convs[0].shape[1], size, size), _classes(case))
    rename = _renamer(head_names(case) | {"conv1": "conv", "bn1": "norm"}, DEEP_CRITIC)
    return carry_over(case, spec, node, rename=rename, call=critic_caller(case))


@importer("models.big_resnet.Generator", repo=REPO)
def big_generator(case: OfficialCase) -> Imported:
    """The generator of BigGAN, which is always hierarchical."""
    size = int(case.kwargs["img_size"])
    convs = _block_weights(case, "conv2d1")  # each (out, in, 3, 3)
    widths = [convs[0].shape[1], *(len(conv) for conv in convs)]
    chunk = _weight(case, "linear0").shape[1]
    node = _big_generator_node(case, "biggan-generator", size, widths) | {"z_dim": chunk * len(widths)}
    spec = image_spec((len(_weight(case, "conv2d5")), size, size), _classes(case))
    return carry_over(case, spec, node, rename=_renamer(GENERATOR, BIG), call=call_generator)


@importer("models.big_resnet_deep_legacy.Generator", "models.big_resnet_deep_studiogan.Generator", repo=REPO)
def big_deep_generator(case: OfficialCase) -> Imported:
    """The generator of BigGAN-deep; the two forms are one."""
    size, depth = int(case.kwargs["img_size"]), int(case.kwargs["g_depth"])
    widths = [conv.shape[1] for conv in _block_weights(case, "conv2d1")[::depth]]  # each (inner, in, 1, 1)
    widths.append(len(_block_weights(case, "conv2d4")[-1]))  # (out, inner, 1, 1)
    node = _big_generator_node(case, "biggan-deep-generator", size, widths)
    z_dim = _weight(case, "linear0").shape[1] - node.get("shared_dim", 0)
    spec = image_spec((len(_weight(case, "conv2d5")), size, size), _classes(case))
    node |= {"z_dim": z_dim, "depth": depth}
    return carry_over(case, spec, node, rename=_renamer(GENERATOR, BIG), call=call_generator)


def _big_generator_node(case: OfficialCase, use: str, size: int, widths: Sequence[int]) -> dict[str, Any]:
    """What the generators of BigGAN and BigGAN-deep have in common."""
    blocks = len(widths) - 1
    node = {
        "use": use,
        "width": widths,
        "conditioning": None,
        "attention": _attention(case, "attn_g_loc", [size >> blocks << i for i in range(1, blocks + 1)]),
        "spectral_norm": _spectral(case),
        "norm_eps": 1e-4,
    }
    if _generator_conditioning(case):
        node |= {"conditioning": "shared", "shared_dim": _weight(case, "shared").shape[1]}
    return node


@importer("models.big_resnet.Discriminator", repo=REPO)
def big_discriminator(case: OfficialCase) -> Imported:
    """The critic of BigGAN, with any head."""
    size = int(case.kwargs["img_size"])
    blocks = _count(case, "conv2d1")
    halved = min(blocks - 1, 2 if size < 64 else blocks)  # all blocks but the last, below 64 pixels the first two
    norm = _critic_norm(case, "blocks.0.0.bn1.weight")
    node = {
        "use": "biggan-discriminator",
        "width": _weight(case, "linear1").shape[1],
        "norm": norm,
        "conditioning": head_node(case),
        "attention": _attention(case, "attn_d_loc", [size >> min(i, halved) for i in range(1, blocks + 1)]),
        "skip": "input" if norm == "batch" else "relu",  # activations in place reach the input where no norm is between
    }
    return carry_over(case, _scored(case, size), node, rename=_critic_renamer(case, BIG), call=critic_caller(case))


@importer("models.big_resnet_deep_legacy.Discriminator", "models.big_resnet_deep_studiogan.Discriminator", repo=REPO)
def big_deep_discriminator(case: OfficialCase) -> Imported:
    """The critic of BigGAN-deep, with any head; the two forms are one."""
    size, depth = int(case.kwargs["img_size"]), int(case.kwargs["d_depth"])
    stages = _count(case, "conv2d4") // depth
    halved = 2 if size < 64 else stages
    node = {
        "use": "biggan-deep-discriminator",
        "width": _weight(case, "linear1").shape[1],
        "depth": depth,
        "norm": "spectral" if _spectral(case) else "none",
        "conditioning": head_node(case),
        "attention": _attention(case, "attn_d_loc", [size >> min(i, halved) for i in range(1, stages + 1)]),
        "skip": "relu",
    }
    spec = image_spec((_weight(case, "input_conv").shape[1], size, size), _classes(case))
    rename = _renamer(head_names(case) | {"input_conv": "from_image"}, BIG)
    return carry_over(case, spec, node, rename=rename, call=critic_caller(case))


# ---------------------------------------------------------------------------------------------------- names


def _renamer(top: Mapping[str, str], block: Mapping[str, str]) -> Callable[[str], str]:
    """Official names -> ours, for modules and tensors; `blocks.3.0.x` becomes `blocks.3.x`."""

    def rename(name: str) -> str:
        if match := re.fullmatch(r"blocks\.(\d+)\.0(?:\.(.*))?", name):
            inside = [block.get(word, word) for word in match[2].split(".")] if match[2] else []
            return ".".join(["blocks", match[1], *inside])
        first, *inner = name.split(".")
        return ".".join([top.get(first, first), *inner])

    return rename


def _critic_renamer(case: OfficialCase, block: Mapping[str, str]) -> Callable[[str], str]:
    """Of residual critics, whose first block's one norm is in the place of the others' second."""
    names = _renamer(head_names(case), block)

    def rename(name: str) -> str:
        return names(re.sub(r"^blocks\.0\.0\.bn1\b", "blocks.0.0.bn2", name))

    return rename


# ---------------------------------------------------------------------------------------------------- shapes


def _scored(case: OfficialCase, size: int) -> DataSpec:
    """What a residual critic scores."""
    return image_spec((_weight(case, "blocks.0.0.conv2d1").shape[1], size, size), _classes(case))


def _weight(case: OfficialCase, module: str) -> Tensor:
    """The weight of a module, under spectral norm or not."""
    for name in ("weight", "weight_orig"):
        if f"{module}.{name}" in case.state:
            return case.state[f"{module}.{name}"]
    raise NoImporter(f"{case.cls} has no weight {module!r}; this variant is not understood yet")


def _block_weights(case: OfficialCase, module: str) -> list[Tensor]:
    """The weights of this module of all blocks that have it, in order."""
    pattern = re.compile(rf"blocks\.(\d+)\.0\.{module}\.weight(?:_orig)?")
    numbers = sorted(int(match[1]) for key in case.state if (match := pattern.fullmatch(key)))
    if not numbers:
        raise NoImporter(f"{case.cls} has no block with {module!r}; this variant is not understood yet")
    return [_weight(case, f"blocks.{number}.0.{module}") for number in numbers]


def _count(case: OfficialCase, module: str) -> int:
    return len(_block_weights(case, module))


def _spectral(case: OfficialCase) -> bool:
    return any(key.endswith(".weight_orig") for key in case.state)


def _critic_norm(case: OfficialCase, batch_norm_key: str) -> str:
    if batch_norm_key not in case.state:
        return "spectral" if _spectral(case) else "none"
    if _spectral(case):
        raise NoImporter(f"no importer yet for {case.cls} with both batch and spectral norm")
    return "batch"


# ---------------------------------------------------------------------------------------------------- options


def _classes(case: OfficialCase) -> int:
    return int(case.kwargs.get("num_classes") or 0)


def _refuse(case: OfficialCase, options: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if options.get(name) not in UNSET:
            raise NoImporter(f"no importer yet for {case.cls} with {name}={options[name]!r}")


def _generator_conditioning(case: OfficialCase) -> str | None:
    """ "cBN" is ours by batch norm; InfoGAN's codes and other injections are not understood yet."""
    _refuse(case, case.model, "info_type", "g_info_injection")
    method = case.kwargs.get("g_cond_mtd", "W/O")
    if method not in ("W/O", "cBN"):
        raise NoImporter(f"no importer yet for {case.cls} with g_cond_mtd={method!r}")
    return "batch-norm" if method == "cBN" else None


def _attention(case: OfficialCase, key: str, resolutions: Sequence[int]) -> list[int | str] | None:
    """Block numbers from 1 -> the feature resolutions after them, or "block3" for all but the first of a resolution.

    Numbers beyond the last block have no effect there, and none here.
    """
    if not case.kwargs.get("apply_attn"):
        return None
    places: list[int | str] = []
    for number in case.kwargs[key]:
        if isinstance(number, int) and number <= len(resolutions):
            resolution = resolutions[number - 1]
            places.append(resolution if resolutions.index(resolution) == number - 1 else f"block{number}")
    return places or None
