"""How generators and critics are run on the inputs of an official case."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ganvas.types import Scores


def call_generator(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`z` (N, z_dim) and perhaps `label` (N,) -> `img` (N, C, H, W)."""
    with torch.no_grad():
        return {"img": net(inputs["z"], inputs.get("label"))}


def call_critic(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`img` (N, C, H, W) and perhaps `label` (N,) -> `logits` (N,), `h` (N, D), `grad_input` = d sum(logits) / d img.

    The label comes back as it went in, as official heads hand it on.
    """
    image = inputs["img"].detach().clone().requires_grad_(True)
    scores: Scores = net(image, inputs.get("label"))
    (gradient,) = torch.autograd.grad(scores.logits.sum(), image)
    outputs = {"logits": scores.logits.detach(), "h": scores.features.detach(), "grad_input": gradient}
    return outputs | {key: inputs[key] for key in ("label",) if key in inputs}
