"""Critic heads of PyTorch-StudioGAN -> ours: options, names of weights, and what its critics return beside logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.interop.registry import NoImporter, OfficialCase
from ganvas.types import Scores

UNSET = (None, "N/A", "W/O", False)

NAMES = {
    "AC": {"linear2": "head.classifier.linear", "linear_mi": "head.twin.linear"},
    "2C": {
        "linear2": "head.embed",
        "embedding": "head.proxies",
        "linear_mi": "head.twin_embed",
        "embedding_mi": "head.twin_proxies",
    },
    "PD": {"embedding": "head.embedding"},
}
NAMES["D2DCE"] = NAMES["2C"]
CLASSIFIERS = {"W/O": "auxiliary-classifier", "TAC": "twin-auxiliary-classifier", "ADC": "adc"}
AUXILIARIES = {"W/O": None, "TAC": "twin", "ADC": "adc"}
PLAIN = {"W/O": "plain", "PD": "projection", "MH": "multi-hinge", "MD": "multi-discriminator"}
EMBEDDINGS = {"2C": "2c", "D2DCE": "d2d-ce"}

# Ours in Scores.extra -> official name in what its critic returns.
OUTPUTS = {
    "class_logits": "cls_output",
    "twin_logits": "mi_cls_output",
    "embedding": "embed",
    "proxy": "proxy",
    "twin_embedding": "mi_embed",
    "twin_proxy": "mi_proxy",
}


def head_names(case: OfficialCase) -> dict[str, str]:
    """Official modules of the head -> ours."""
    return {"linear1": "head.linear"} | NAMES.get(_method(case), {})


def head_node(case: OfficialCase) -> dict[str, Any]:
    """The conditioning part of a critic's `d_cond_mtd` and `aux_cls_type`, as a recipe's node.

    Raises
    ------
    NoImporter : a combination that the official code does not have either, or InfoGAN's, whose features are averaged.
    """
    if case.model.get("info_type") not in UNSET:
        raise NoImporter(f"no importer yet for {case.cls} with info_type={case.model['info_type']!r}")
    method, auxiliary = _method(case), _auxiliary(case)
    if method == "AC" and auxiliary in CLASSIFIERS:
        return {"use": CLASSIFIERS[auxiliary]} | ({"normalize": "features"} if _normalized(case) else {})
    if method in EMBEDDINGS and auxiliary in AUXILIARIES:
        weights = [case.state[key] for key in ("linear2.weight", "linear2.weight_orig") if key in case.state]
        if not weights:
            raise NoImporter(f"{case.cls} with d_cond_mtd={method!r} has no weight 'linear2'")
        node: dict[str, Any] = {"use": EMBEDDINGS[method], "embedding_dim": len(weights[0])}
        return node | ({"auxiliary": AUXILIARIES[auxiliary]} if AUXILIARIES[auxiliary] else {})
    if method in PLAIN and auxiliary == "W/O":
        return {"use": PLAIN[method]}
    raise NoImporter(f"no importer yet for {case.cls} with d_cond_mtd={method!r} and aux_cls_type={auxiliary!r}")


def critic_caller(case: OfficialCase) -> Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]]:
    """How this case's critic is run: everything that the official forward returns, under its names.

    `logits` are its "adv_output", all K + 1 of them under multi-hinge. `adc_fake.*` are what it returns with
    `adc_fake=True`.
    """
    adc = _auxiliary(case) == "ADC"
    classifies, embeds, normalized = _method(case) == "AC", _method(case) in EMBEDDINGS, _normalized(case)

    def call(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        image = inputs["img"].detach().clone().requires_grad_(True)
        label = inputs.get("label")
        scores: Scores = net(image, label)
        logits = scores.extra.get("class_scores", scores.logits)
        (gradient,) = torch.autograd.grad(logits.sum(), image, retain_graph=True)
        outputs = {"h": scores.features, "logits": logits}
        outputs |= {name: scores.extra[ours] for ours, name in OUTPUTS.items() if ours in scores.extra}
        fake: dict[str, Tensor] = {}
        if adc:
            fake = {name: outputs[name] for name in outputs if name in ("cls_output", "embed")}
        if "fake_proxy" in scores.extra:
            fake["proxy"] = scores.extra["fake_proxy"]
        if normalized and embeds:
            outputs |= {key: F.normalize(outputs[key], dim=1) for key in outputs if key.endswith(("embed", "proxy"))}
            fake = {name: F.normalize(value, dim=1) for name, value in fake.items()}
        if normalized and classifies:
            outputs["h"] = F.normalize(scores.features, dim=1)  # it goes on with the normalised features
        if label is not None:
            outputs["label"] = 2 * label if adc else label
            fake |= {"label": 2 * label + 1} if adc else {}
        outputs |= {f"adc_fake.{name}": value for name, value in fake.items()}
        return {name: value.detach() for name, value in outputs.items()} | {"grad_input": gradient}

    return call


def _method(case: OfficialCase) -> str:
    return str(case.kwargs.get("d_cond_mtd") or "W/O")


def _auxiliary(case: OfficialCase) -> str:
    auxiliary = case.kwargs.get("aux_cls_type")
    return "W/O" if auxiliary in UNSET else str(auxiliary)


def _normalized(case: OfficialCase) -> bool:
    return case.kwargs.get("normalize_d_embed") not in UNSET
