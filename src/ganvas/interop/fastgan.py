"""FastGAN's networks (odegeasslbc/FastGAN-pytorch) -> ours.

The critic's logits are one row there: all of the large copies' places, image by image, then all of the small copies'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from math import log2
from typing import Any

import torch
from torch import Tensor

from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, importer
from ganvas.parts import image_spec

REPO = "odegeasslbc/FastGAN-pytorch"
FORK = f"{REPO} (via fork with its history)"  # the repository itself keeps its code no longer

GENERATOR = (
    (r"^init(\.init)?", "first"),
    (r"^to_big", "to_image"),
    (r"^to_128", "to_small"),
)
CRITIC = (
    (r"^down_from_big", "stem"),
    (r"^down_from_small\.(\d+)\.main", r"small_blocks.\1"),
    (r"^down_from_small", "small_blocks"),
    (r"^rf_big", "judge_large"),
    (r"^rf_small", "judge_small"),
    (r"^decoder_big(\.main)?", "head.decoders.rebuilt"),
    (r"^decoder_small(\.main)?", "head.decoders.rebuilt_small"),
    (r"^decoder_part(\.main)?", "head.decoders.rebuilt_quarter"),
)
EXCITATION = ((r"(gates\.\d+)\.main\.1", r"\1.conv1"), (r"(gates\.\d+)\.main\.3", r"\1.conv2"))


@importer("models.Generator", repo=FORK)
@importer("models.Generator", repo=REPO)
def generator(case: OfficialCase) -> Imported:
    """The generator, with its layer for the small image."""
    size = _size(case, smallest=128)
    first = case.state["init.init.0.weight_orig"]  # (z_dim, 2 · 16 · width, 4, 4)
    small = case.state["to_128.weight_orig"]  # (C, width, 1, 1)
    node = {"use": "fastgan-generator", "width": small.shape[1], "z_dim": len(first), "small_image": True}
    return carry_over(case, image_spec((len(small), size, size)), node, rename=generator_name, call=_call_generator)


@importer("models.Discriminator", repo=FORK)
@importer("models.Discriminator", repo=REPO)
def discriminator(case: OfficialCase) -> Imported:
    """The critic and its three decoders."""
    size = _size(case, smallest=256)
    node = {
        "use": "fastgan-discriminator",
        "width": len(case.state["down_from_small.0.weight_orig"]) * 2,
        "decoder_width": case.state["decoder_big.main.5.weight_orig"].shape[1],
    }
    spec = image_spec((case.state["down_from_small.0.weight_orig"].shape[1], size, size))
    part = re.search(r"part=(\d)", str(case.sidecar.get("forward_kwargs", "")))
    call = partial(_call_critic, int(part[1]) if part else 0)
    return carry_over(case, spec, node, rename=_critic_name, call=call)


def _size(case: OfficialCase, smallest: int) -> int:
    size = int(case.kwargs.get("im_size", 1024 if case.cls.endswith("Generator") else 512))
    if size < smallest:
        raise NoImporter(f"no importer yet for {case.cls} with im_size={size}: ours has other maps below {smallest}")
    return size


def generator_name(name: str) -> str:
    """Official names of a generator's tensors and modules -> ours."""
    name = re.sub(r"^feat_(\d+)", lambda match: f"blocks.{_doublings(match[1]) - 1}", name)
    name = re.sub(r"^se_(\d+)", lambda match: f"gates.{_doublings(match[1])}", name)
    return _renamed(name, (*GENERATOR, *EXCITATION))


def _doublings(size: str) -> int:
    """How many lead from 4 pixels to this many."""
    return int(log2(int(size))) - 2


def _critic_name(name: str) -> str:
    name = re.sub(r"^down_(\d+)", lambda match: f"blocks.{_doublings(match[1])}", name)  # down_4 is the first
    name = re.sub(r"^se_\d+_(\d+)", lambda match: f"gates.{_doublings(match[1]) + 1}", name)
    return _renamed(name, (*CRITIC, *EXCITATION))


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for official, ours in rules:
        name = re.sub(official, ours, name)
    return name


# ---------------------------------------------------------------------------------------------------- running


def _call_generator(net: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`z` (N, z_dim) -> `img` (N, C, H, W) and `img_128` (N, C, 128, 128)."""
    with torch.no_grad():
        image, small = net.pair(inputs["z"])
    return {"img": image, "img_128": small}


def _call_critic(number: int, net: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`img` and `img_small` -> `logits` of all places, `grad_input` = d sum(logits) / d img, and what is rebuilt.

    `number` is that of the quarter. The networks run twice, for logits alone and for reconstructions, as there.
    """
    image = inputs["img"].detach().clone().requires_grad_(True)
    maps, small = net.large_maps(image), net.small_blocks(inputs["img_small"])
    logits = torch.cat([net.judge_large(maps[-1]).flatten(), net.judge_small(small).flatten()])
    (gradient,) = torch.autograd.grad(logits.sum(), image)
    outputs: dict[str, Any] = {"logits": logits.detach(), "grad_input": gradient}
    with torch.no_grad():
        maps, small = net.large_maps(image), net.small_blocks(inputs["img_small"])
        rebuilt = net.rebuild(image, maps, small, number)
        names = {"rec_big": "rebuilt", "rec_small": "rebuilt_small", "rec_part": "rebuilt_quarter"}
        outputs |= {official: rebuilt[ours] for official, ours in names.items()}
    return outputs
