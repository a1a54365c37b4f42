"""SAN's layers and the critic of its demonstration, "simple-san" -> ours.

In the demonstration direction and scale are one parameter, W = s ω; here they are two. The functions are equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, importer
from ganvas.nn.san import NormalizedRows, SANConv, SANEmbedding, SANLinear
from ganvas.parts import image_spec
from ganvas.types import Scores

NAMES = {"0": "conv1", "2": "conv2", "4": "conv3"}
SIZE = 28  # of MNIST, which the official class is written for


@importer("models.discriminator.SanDiscriminator", repo="sony/san simple-san")
def simple_san(case: OfficialCase) -> Imported:
    """The MNIST critic, class-conditional or not."""
    state = dict(case.state)
    rows = state.pop("fc_w")  # (classes or 1, D)
    scale = rows.norm(dim=1)
    state |= {"head.head.linear.weight": rows / scale[:, None], "head.head.linear.scale": scale}
    classes = int(case.kwargs.get("num_class", 10))
    node = {
        "use": "san-discriminator",
        "widths": [len(state[f"h_function.{number}.bias"]) for number in NAMES],
        "conditioning": {"use": "san", "head": {"use": "multi-discriminator" if classes > 0 else "plain"}},
    }
    spec = image_spec((state["h_function.0.weight"].shape[1], SIZE, SIZE), max(classes, 0))
    adapted = dataclasses.replace(case, state=state)
    return carry_over(adapted, spec, node, rename=_ours, call=_call)


def _ours(name: str) -> str:
    if not name.startswith("h_function."):
        return name
    _, number, *inner = name.split(".")
    return ".".join([NAMES[number], *inner])


def _call(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`img` and `class_ids` -> `logits` and `fun`, which are one here, `dir`, `grad_input` = d sum(logits) / d img."""
    image = inputs["img"].detach().clone().requires_grad_(True)
    scores: Scores = net(image, inputs.get("class_ids"))
    (gradient,) = torch.autograd.grad(scores.logits.sum(), image)
    logits = scores.logits.detach()
    return {"logits": logits, "fun": logits, "dir": scores.extra["direction"].detach(), "grad_input": gradient}


@importer(
    "SANLinear/SANConv1d/SANConv2d/SANEmbedding",
    repo="sony/bigvsan (san_modules.py; identical file in sony/san stylesan-xl/pg_modules)",
)
def san_modules(case: OfficialCase) -> Imported:
    """The four layers, each under its name; what they were made with is read from the shapes of `in.<name>.*`."""
    names = sorted({key.partition(".")[0] for key in case.state})
    net = nn.ModuleDict({name: _layer(case, name) for name in names})
    net.load_state_dict(dict(case.state))
    return Imported(net, image_spec(()), {"use": "san"}, lambda name: name, _call_layers)


def _layer(case: OfficialCase, name: str) -> NormalizedRows:
    weight, bias = case.state[f"{name}.weight"], f"{name}.bias" in case.state
    if name == "embedding":
        return SANEmbedding(nn.Embedding(*weight.shape))
    if name == "linear":
        return SANLinear(nn.Linear(weight.shape[1], len(weight), bias=bias))
    if name not in ("conv1d", "conv2d"):
        raise NoImporter(f"no importer yet for a layer called {name!r}")
    kernel, sides = weight.shape[2:], case.inputs[f"{name}.x"].shape[2:]
    after = case.inputs[f"{name}.w_fun"].shape[2:]
    padding = tuple((o - i + k - 1) // 2 for i, o, k in zip(sides, after, kernel, strict=True))  # at stride 1
    if any(i + 2 * p - k + 1 != o for i, o, k, p in zip(sides, after, kernel, padding, strict=True)):
        raise NoImporter(f"no importer yet for {name} with a stride: {tuple(sides)} -> {tuple(after)}")
    conv = cast("Callable[..., Any]", nn.Conv1d if name == "conv1d" else nn.Conv2d)
    return SANConv(conv(weight.shape[1], len(weight), tuple(kernel), padding=padding, bias=bias))


def _call_layers(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each layer's output, both training outputs, the gradients of <fun, w_fun> + <dir, w_dir>, its unit rows."""
    outputs: dict[str, Tensor] = {}
    for name, layer in net.named_children():
        assert isinstance(layer, NormalizedRows)
        fun, direction = layer(inputs[f"{name}.x"]), layer.direction(inputs[f"{name}.x"])
        loss = (fun * inputs[f"{name}.w_fun"]).sum() + (direction * inputs[f"{name}.w_dir"]).sum()
        parameters = dict(layer.named_parameters())
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        outputs |= {f"{name}.out": fun, f"{name}.train_fun": fun, f"{name}.train_dir": direction}
        outputs |= {f"{name}.grad.{key}": gradient for key, gradient in zip(parameters, gradients, strict=True)}
        weight = layer.weight.detach().clone()
        layer.normalize()
        outputs[f"{name}.normalized_weight"] = layer.weight.detach().clone()
        with torch.no_grad():
            layer.weight.copy_(weight)
    return {key: value.detach() for key, value in outputs.items()}
