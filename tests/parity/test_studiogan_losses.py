"""Our loss functions on the inputs of `studiogan-losses`, against the values that PyTorch-StudioGAN's gave for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganvas import parts
from ganvas.interop.registry import OfficialCase
from ganvas.shelves.conditioning.classes import crammer_singer
from ganvas.shelves.conditioning.classifier import classification, fake_of, real_of
from ganvas.shelves.conditioning.contrastive import conditional_contrastive, data_to_data_cross_entropy
from ganvas.shelves.conditioning.info import normal_negative_log_likelihood

HERE = Path(__file__).resolve()
DEFAULT = HERE.parents[2].parent / "shared" / "golden"
FOLDERS = [Path(each) for each in os.environ.get("GANVAS_GOLDEN", str(DEFAULT)).split(os.pathsep) if each]
CASES = [path for folder in FOLDERS for path in sorted(folder.glob("studiogan-losses/*.safetensors"))]
CLOSED = 1e-6  # relative, for closed forms
PAIRS = {
    "vanilla": "non-saturating", "logistic": "non-saturating", "ls": "least-squares", "hinge": "hinge",
    "wasserstein": "wasserstein",
}  # fmt: skip

pytestmark = pytest.mark.skipif(not CASES, reason="no golden case studiogan-losses; set GANVAS_GOLDEN")


@pytest.fixture(scope="module", params=CASES, ids=lambda path: path.stem)
def case(request: pytest.FixtureRequest) -> OfficialCase:
    return OfficialCase.read(request.param)


def check(found: Tensor, official: Tensor, tolerance: float = CLOSED) -> None:
    scale = official.std().item() if official.numel() > 1 else max(1.0, official.abs().item())
    assert (found - official).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize("name", PAIRS)
def test_adversarial_pairs(case: OfficialCase, name: str) -> None:
    objective = parts.build("objective", {"use": PAIRS[name]})
    real, fake = case.inputs["real_logits"], case.inputs["fake_logits"]
    check(objective.critic(real, fake), case.outputs[f"d_{name}"])
    check(objective.generator(real[:0], fake), case.outputs[f"g_{name}"])


def test_classifiers(case: OfficialCase) -> None:
    given, official, y = case.inputs, case.outputs, case.inputs["label"]
    check(classification(given["cls_logits_real"], y), official["ac_ce_real"])
    check(classification(given["cls_logits_fake"], y), official["ac_ce_fake"])
    check(classification(given["tac_logits_fake"], y), official["tac_d"])
    check(-classification(given["tac_logits_fake"], y), official["tac_g"])
    check(classification(given["adc_logits"], real_of(y)), official["adc_ce_label_real"])
    check(classification(given["adc_logits"], fake_of(y)), official["adc_ce_label_fake"])


@pytest.mark.parametrize("name", ["contra_2c", "d2dce"])
def test_contrastive_losses_and_their_gradients(case: OfficialCase, name: str) -> None:
    given, official, y = case.inputs, case.outputs, case.inputs["label"]
    t, m_p = given["temperature"].item(), given["m_p"].item()

    def loss(embedding: Tensor, proxy: Tensor, label: Tensor) -> Tensor:
        if name == "contra_2c":
            return conditional_contrastive(embedding, proxy, label, t)
        return data_to_data_cross_entropy(embedding, proxy, label, t, m_p, shifted=True)

    embedding, proxy = (given[each].clone().requires_grad_() for each in ("embed", "proxy"))
    value = loss(embedding, proxy, y)
    value.backward()
    check(value, official[name])
    check(embedding.grad, official[f"{name}_grad_embed"], 1e-4)
    check(proxy.grad, official[f"{name}_grad_proxy"], 1e-4)
    normalised = (F.normalize(each.detach(), dim=1) for each in (embedding, proxy))
    check(loss(*normalised, y), official[f"{name}_normalised"])
    table = given["adc_proxy_table"]
    for side, label in (("real", real_of(y)), ("fake", fake_of(y))):
        check(loss(embedding, table[label], label), official[f"adc_{name}_{side}"])


def test_multi_hinge(case: OfficialCase) -> None:
    given, official, y = case.inputs, case.outputs, case.inputs["label"]
    fake_class = torch.full_like(y, given["mh_logits_real"].shape[1] - 1)
    real, fake = crammer_singer(given["mh_logits_real"], y), crammer_singer(given["mh_logits_fake"], fake_class)
    check(real, official["mh_d_real"])
    check(fake, official["mh_d_fake"])
    check(real + fake, official["mh_d_total"])
    check(crammer_singer(given["mh_logits_fake"], y), official["mh_g"])


def test_info_likelihood(case: OfficialCase) -> None:
    x, mean, variance = (case.inputs[f"nll_{each}"] for each in ("x", "mu", "var"))
    # there 1e-6 is added to twice the variance
    check(normal_negative_log_likelihood(x, mean, variance), case.outputs["infogan_normal_nll"], 1e-5)
