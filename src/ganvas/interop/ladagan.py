"""Networks of LadaGAN's authors (milmor/LadaGAN, the PyTorch half) -> ours.

Widths, heads and sizes are read from the shapes of the tensors. Channels may be any number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from math import isqrt
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.interop.adversarial import call_generator
from ganvas.interop.names import Renamer
from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, importer
from ganvas.parts import image_spec

REPO = "milmor/LadaGAN (pytorch/)"

STAGES = (64, 256, 1024)  # tokens of the generator's maps; its modules are named after them
CRITIC_SIZE = 16  # pixels of the map that the critic attends over, whatever the image's
INSIDE = {
    "attn": "attention",
    "to_qkv": "qkv",
    "q_attn": "score",
    "to_out": "out",
    "ln_1": "norm1",
    "ln_2": "norm2",
    "h.0": "hidden",
    "mlp_gamma": "gain",
    "mlp_beta": "bias",
}
GENERATOR = {
    "init.0": "project",
    "ch_conv": "to_image",
    **{f"conv_{tokens}": f"convs.{i - 1}" for i, tokens in enumerate(STAGES) if i},
    **{f"pos_{tokens}": f"positions.{i}" for i, tokens in enumerate(STAGES)},
    **{f"block_{tokens}": f"blocks.{i}" for i, tokens in enumerate(STAGES)},
}
CRITIC = {
    "inp_conv.0": "from_image",
    "encoder": "downs",
    "pos_256": "position",
    "block_256": "block",
    "conv_256": "conv1",
    "logits.0": "conv2",
    "logits.2": "head.linear",
}


@importer("model.Generator", repo=REPO)
def generator(case: OfficialCase) -> Imported:
    """The generator; the tokens of its last map become patches beyond 32 pixels."""
    state = case.state
    blocks = [f"block_{tokens}" for tokens in STAGES]
    widths = [state[f"pos_{tokens}"].shape[2] for tokens in STAGES]
    channels, inner = state["ch_conv.weight"].shape[:2]
    patch = isqrt(widths[-1] // inner)
    if patch**2 * inner != widths[-1]:
        raise NoImporter(f"no importer yet for a last layer of {inner} channels after tokens of {widths[-1]}")
    node = {
        "use": "ladagan-generator",
        "widths": widths,
        "z_dim": state["init.0.weight"].shape[1],
        "heads": [len(state[f"{block}.attn.q_attn.weight"]) for block in blocks],
        "mlp_width": [len(state[f"{block}.mlp.0.weight"]) for block in blocks],
        "patch": patch,
    }
    side = isqrt(STAGES[-1]) * patch
    return carry_over(
        case, image_spec((channels, side, side)), node, rename=Renamer(GENERATOR, INSIDE), call=call_generator
    )


@importer("model.Discriminator", repo=REPO)
def discriminator(case: OfficialCase) -> Imported:
    """The critic; its logits are one for each 4x4 window of the last map."""
    state = dict(case.state)
    state["logits.2.weight"] = state["logits.2.weight"].flatten(1)  # (1, D, 4, 4) -> a linear layer's (1, 16 D)
    first, channels = state["inp_conv.0.weight"].shape[:2]
    downs = [key for key in state if key.startswith("encoder.") and key.endswith(".main.0.weight")]
    node = {
        "use": "ladagan-discriminator",
        "widths": [first, *(len(state[f"encoder.{i}.main.0.weight"]) for i in range(len(downs)))],
        "out_widths": [len(state["conv_256.weight"]), len(state["logits.0.weight"])],
        "heads": len(state["block_256.attn.q_attn.weight"]),
        "mlp_width": len(state["block_256.mlp.0.weight"]),
        "conditioning": {"use": "plain"},
    }
    side = CRITIC_SIZE << len(downs)
    adapted = dataclasses.replace(case, state=state)
    return carry_over(
        adapted, image_spec((channels, side, side)), node, rename=Renamer(CRITIC, INSIDE), call=_call_critic
    )


def _call_critic(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`img` (N, C, H, W) -> `logits` (N, windows) and `grad_input` = d sum(logits) / d img."""
    image = inputs["img"].detach().clone().requires_grad_(True)
    last: Tensor = cast("Any", net).last_map(image)  # (N, D, h, w)
    weight = cast("Any", net).head.linear.weight
    logits = F.conv2d(last, weight.view(1, last.shape[1], 4, 4)).flatten(1)
    (gradient,) = torch.autograd.grad(logits.sum(), image)
    return {"logits": logits.detach(), "grad_input": gradient}
