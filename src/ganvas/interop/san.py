"""The critic of sony/san's demonstration, "simple-san" -> ours.

There direction and scale are one parameter, W = s ω; here they are two. The functions are equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ganvas.interop.registry import Imported, OfficialCase, carry_over, importer
from ganvas.types import DataSpec, Scores

NAMES = {"0": "conv1", "2": "conv2", "4": "conv3"}
SIZE = 28  # of MNIST, which the official class is written for


@importer("models.discriminator.SanDiscriminator", repo="sony/san simple-san")
def simple_san(case: OfficialCase) -> Imported:
    """The MNIST critic, class-conditional or not."""
    state = dict(case.state)
    rows = state.pop("fc_w")  # (classes or 1, D)
    scale = rows.norm(dim=1)
    state |= {"head.linear.weight": rows / scale[:, None], "head.linear.scale": scale}
    classes = int(case.kwargs.get("num_class", 10))
    node = {
        "use": "san-discriminator",
        "widths": [len(state[f"h_function.{number}.bias"]) for number in NAMES],
        "conditioning": {"use": "san", "head": {"use": "multi-discriminator" if classes > 0 else "plain"}},
    }
    spec = DataSpec((state["h_function.0.weight"].shape[1], SIZE, SIZE), max(classes, 0))
    whole = dataclasses.replace(case, state=state)
    return carry_over(whole, spec, node, rename=_ours, call=_call)


def _ours(name: str) -> str:
    if not name.startswith("h_function."):
        # the layer is the inner head's too
        return name
    _, number, *rest = name.split(".")
    return ".".join([NAMES[number], *rest])


def _call(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`img` and `class_ids` -> `logits` and `fun`, which are one here, `dir`, `grad_input` = d sum(logits) / d img."""
    image = inputs["img"].detach().clone().requires_grad_(True)
    scores: Scores = net(image, inputs.get("class_ids"))
    (gradient,) = torch.autograd.grad(scores.logits.sum(), image)
    logits = scores.logits.detach()
    return {"logits": logits, "fun": logits, "dir": scores.extra["direction"].detach(), "grad_input": gradient}
