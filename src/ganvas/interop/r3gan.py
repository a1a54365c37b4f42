"""R3GAN's networks (brownvc/R3GAN) -> ours, and its loss on a pair of them.

The critic's lists run from the full image to the smallest map there; here both networks' run as the generator's do.
The resampling filter is a constant of ours, so that its buffers are checked and left behind.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.interop.adversarial import call_critic, call_generator
from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, importer
from ganvas.parts import image_spec
from ganvas.types import Condition, DataSpec, Latent, Network, Turn

REPO = "brownvc/R3GAN"
FILTER = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
LABELS = ("y", "c", "label")  # how a case may call them

RENAMED = (
    (r"^MainLayers\.(\d+)\.Layers", r"stages.\1"),
    (r"^MainLayers", "stages"),
    (r"\.LinearLayer([123])(\.Layer)?", r".conv\1"),
    (r"\.NonLinearity([12])\.Bias", r".act\1.bias"),
    (r"\.NonLinearity([12])", r".act\1"),
    (r"\.LinearLayer\.Layer", ".conv"),
    (r"\.Resampler", ".filter"),
    (r"\.Basis", ".basis"),
    (r"^ExtractionLayer(\.Layer)?", "from_image"),
    (r"^AggregationLayer(\.Layer)?", "to_image"),
)


@importer("R3GAN.Networks.Generator", "training.networks.Generator", repo=REPO)
def generator(case: OfficialCase) -> Imported:
    """The generator, class-conditional or not."""
    case = _plain(case)
    basis = case.state["MainLayers.0.Layers.0.Basis"]  # (width, h, w)
    linear = case.state["MainLayers.0.Layers.0.LinearLayer.weight"]  # (width, z_dim + embedding_dim)
    embedding = case.state.get("EmbeddingLayer.weight")  # (embedding_dim, classes)
    node = {"use": "r3gan-generator", **_stages(case), "z_dim": linear.shape[1]}
    if embedding is not None:
        dim = len(embedding)
        node |= {"z_dim": linear.shape[1] - dim, "conditioning": "embedding", "embedding_dim": dim}
    spec = _spec(case, "AggregationLayer", 0, basis.shape[1:], embedding)
    return carry_over(case, spec, node, rename=_generator_name, call=_call_generator)


@importer("R3GAN.Networks.Discriminator", "training.networks.Discriminator", repo=REPO)
def discriminator(case: OfficialCase) -> Imported:
    """The critic, class-conditional or not."""
    case = _plain(case)
    last = max(key for key in case.state if key.endswith(".Basis.weight")).removesuffix(".Basis.weight")
    embedding = case.state.get("EmbeddingLayer.weight")  # (embedding_dim, classes)
    stages: dict[str, Any] = {
        key: value[::-1] if isinstance(value, list) else value for key, value in _stages(case).items()
    }
    head: dict[str, Any] = {"use": "plain"}
    if embedding is not None:
        head = {"use": "inner-product", "dim": len(embedding)}
    node = {"use": "r3gan-discriminator", **stages, "conditioning": head}
    spec = _spec(case, "ExtractionLayer", 1, case.state[f"{last}.Basis.weight"].shape[2:], embedding)
    return carry_over(case, spec, node, rename=partial(_critic_name, last), call=_call_critic)


# ---------------------------------------------------------------------------------------------------- structure


def _plain(case: OfficialCase) -> OfficialCase:
    """The case without its wrapper's prefix and without its filters.

    Raises
    ------
    NoImporter : a filter is not the one that ours has.
    """
    state = {key.removeprefix("Model."): value for key, value in case.state.items()}
    for key in [key for key in state if key.endswith(".Resampler.Kernel")]:
        kernel = state.pop(key)
        expected = torch.outer(FILTER, FILTER).to(kernel)
        if kernel.shape != (4, 4) or not torch.allclose(kernel, expected, atol=1e-6):
            raise NoImporter(f"no importer yet for {case.cls} with another resampling filter than [1, 2, 1]")
    return dataclasses.replace(case, state=state)


def _stages(case: OfficialCase) -> dict[str, Any]:
    """Widths, groups and blocks of each stage in the official order, and what all blocks share."""
    blocks: dict[int, int] = {}
    width: dict[int, int] = {}
    groups: dict[int, int] = {}
    expansion = set()
    for key, weight in case.state.items():
        if match := re.fullmatch(r"MainLayers\.(\d+)\.Layers\.\d+\.LinearLayer2\.Layer\.weight", key):
            i = int(match[1])
            before = case.state[key.replace("LinearLayer2", "LinearLayer1")]  # (inner, width, 1, 1)
            blocks[i] = blocks.get(i, 0) + 1
            width[i], groups[i] = before.shape[1], before.shape[0] // weight.shape[1]
            expansion.add(len(before) // before.shape[1])
            if weight.shape[2:] != (3, 3):
                raise NoImporter(f"no importer yet for {case.cls} with kernels of {weight.shape[2]}")
    count = 1 + max(int(match[1]) for key in case.state if (match := re.match(r"MainLayers\.(\d+)\.", key)))
    if set(blocks) != set(range(count)) or len(expansion) != 1:
        raise NoImporter(f"no importer yet for {case.cls} with a stage that has no blocks")
    order = range(count)
    return {
        "width": [width[i] for i in order],
        "cardinality": [groups[i] for i in order],
        "blocks": [blocks[i] for i in order],
        "expansion": expansion.pop(),
    }


def _spec(case: OfficialCase, edge: str, axis: int, stem: torch.Size, embedding: Tensor | None) -> DataSpec:
    n = len({key.split(".")[1] for key in case.state if key.startswith("MainLayers.")}) - 1
    channels = case.state[f"{edge}.Layer.weight"].shape[axis]
    return image_spec((channels, stem[0] << n, stem[1] << n), 0 if embedding is None else embedding.shape[1])


# ---------------------------------------------------------------------------------------------------- names


def _generator_name(name: str) -> str:
    if name.startswith("EmbeddingLayer"):
        return name.replace("EmbeddingLayer", "embed")
    if name.startswith("MainLayers.0.Layers.0.LinearLayer."):
        return name.replace("MainLayers.0.Layers.0.LinearLayer", "stages.0.0.linear")
    return _name(name)


def _critic_name(last: str, name: str) -> str:
    if name.startswith("EmbeddingLayer"):
        return name.replace("EmbeddingLayer", "head.embedding")
    if name.startswith(f"{last}.LinearLayer"):
        return name.replace(f"{last}.LinearLayer", "head.linear")
    if name in (last, last.partition(".Layers")[0]):
        return "head.linear"  # with which the last stage ends there
    return _name(name)


def _name(name: str) -> str:
    for official, ours in RENAMED:
        name = re.sub(official, ours, name)
    return name


# ---------------------------------------------------------------------------------------------------- running


def _label(inputs: Mapping[str, Tensor]) -> Tensor | None:
    """Labels (N,) int64 of a case, which may give them one-hot."""
    given = next((inputs[key] for key in LABELS if key in inputs), None)
    return given.argmax(1) if given is not None and given.dim() == 2 else given


def _with_label(inputs: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    label = _label(inputs)
    return {name: inputs[name]} | ({} if label is None else {"label": label})


def _call_generator(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`z` (N, z_dim) and perhaps labels -> `img` (N, C, H, W)."""
    return call_generator(net, _with_label(inputs, "z"))


def _call_critic(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`img` (N, C, H, W) and perhaps labels -> `logits` (N,) and `grad_input`."""
    outputs = call_critic(net, _with_label(inputs, "img"))
    return {key: outputs[key] for key in ("logits", "grad_input")}


# ---------------------------------------------------------------------------------------------------- the loss


@importer("R3GAN.Trainer.AdversarialTraining", repo=REPO)
def adversarial_training(case: OfficialCase) -> Imported:
    """A pair with the losses of its two updates: `relativistic-paired`, and `r1` and `r2` with the weight γ."""
    networks = {
        role: function(
            dataclasses.replace(
                case,
                kwargs=case.kwargs.get(role, {}),
                state={key[2:]: value for key, value in case.state.items() if key.startswith(f"{role}.")},
            )
        )
        for role, function in (("G", generator), ("D", discriminator))
    }
    names = {
        f"{role}.{key}": network.module_name(key)
        for role, network in networks.items()
        for key in (key[2:] for key in case.state if key.startswith(f"{role}.") and "Resampler" not in key)
    }
    net = nn.ModuleDict({role: network.net for role, network in networks.items()})

    def module_name(name: str) -> str:
        role, _, inner = name.partition(".")
        return f"{role}.{networks[role].module_name(inner)}" if role in networks else name

    node = {"use": "r3gan"}
    return Imported(net, networks["G"].spec, node, module_name, partial(_call_losses, names, dict(case.sidecar)))


def _call_losses(
    names: Mapping[str, str], sidecar: Mapping[str, Any], net: nn.Module, inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """`real`, `z` and `gamma` -> both losses of each pair, their means, and the means' gradients."""
    assert isinstance(net, nn.ModuleDict)
    gamma = inputs["gamma"] if "gamma" in inputs else sidecar["forward_kwargs"]["Gamma"]
    loss = parts.build("objective", {"use": "relativistic-paired"})
    r1, r2 = (parts.build("regularizer", {"use": use}) for use in ("r1", "r2"))
    label = _label(inputs)

    def turn(at: slice, *, for_generator: bool) -> Turn:
        condition = Condition.labelled(None if label is None else label[at])
        G, D = cast("Network", net["G"]), cast("Network", net["D"])
        return Turn(
            nets={"generator": G, "discriminator": D}, step=0, real=inputs["real"][at], condition=condition,
            latent=Latent(inputs["z"][at]), fake_condition=condition, critic=lambda data, asked: D(data, asked.label),
            generate=_generate(net["G"], with_gradient=for_generator),
        )  # fmt: skip

    def critic_loss(at: slice) -> Tensor:
        pairs = turn(at, for_generator=False)
        adversarial: Tensor = loss.critic(pairs.real_scores.logits, pairs.fake_scores.logits)
        penalty: Tensor = gamma * (r1(pairs) + r2(pairs))
        return adversarial + penalty

    def generator_loss(at: slice) -> Tensor:
        pairs = turn(at, for_generator=True)
        adversarial: Tensor = loss.generator(pairs.real_scores.logits, pairs.fake_scores.logits)
        return adversarial

    outputs: dict[str, Tensor] = {}
    for side, role, loss_of in (("d", "D", critic_loss), ("g", "G", generator_loss)):
        mean = loss_of(slice(None))
        parameters = dict(net[role].named_parameters())
        gradients = dict(zip(parameters, torch.autograd.grad(mean, list(parameters.values())), strict=True))
        outputs[f"{side}_loss_mean"] = mean.detach()
        outputs |= {f"{side}_step_grad.{key}": gradients[name] for key, name in names.items() if key[0] == role}
    everything = turn(slice(None), for_generator=False)
    real, fake = everything.real_scores.logits.detach(), everything.fake_scores.logits.detach()
    outputs |= {"fake": everything.fake, "real_logits": real, "fake_logits": fake}
    outputs |= {"d_relativistic_logits": real - fake, "g_relativistic_logits": fake - real}
    singles = [slice(i, i + 1) for i in range(len(real))]  # the official losses are those of single pairs
    outputs["d_adversarial_loss"] = torch.stack([loss.critic(real[at], fake[at]) for at in singles])
    outputs["g_adversarial_loss"] = torch.stack([loss.generator(real[at], fake[at]) for at in singles])
    for name, penalty in (("r1", r1), ("r2", r2)):
        outputs[name] = torch.stack([2 * penalty(turn(at, for_generator=False)).detach() for at in singles])
    return outputs


def _generate(net: nn.Module, *, with_gradient: bool) -> Any:
    def generate(latent: Latent, condition: Condition) -> Tensor:
        with torch.set_grad_enabled(with_gradient):
            image: Tensor = net(latent.values, condition.label)
        return image

    return generate
