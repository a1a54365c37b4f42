"""Heads of PyTorch-StudioGAN in combinations beyond the golden cases, on the body of one of those."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganvas.interop.registry import NoImporter, OfficialCase, import_network

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "studio_dhead_mh_md" / "a.safetensors"
pytestmark = pytest.mark.skipif(not GOLDEN.is_file(), reason="no golden case studio_dhead_mh_md")

K, E = 3, 7


@pytest.fixture(scope="module")
def body() -> OfficialCase:
    return OfficialCase.read(GOLDEN)


def with_head(body: OfficialCase, rows: dict[str, tuple[int, ...]], **kwargs: object) -> OfficialCase:
    rng = torch.Generator().manual_seed(0)
    state = {key: value for key, value in body.state.items() if key.startswith("blocks.")}
    for name, shape in rows.items():
        weight = torch.randn(*shape, generator=rng)
        u, _, v = torch.linalg.svd(weight, full_matrices=False)
        state |= {
            f"{name}.weight_orig": weight,
            f"{name}.weight_u": u[:, 0].contiguous(),
            f"{name}.weight_v": v[0].contiguous(),
        }
        if name == "linear1" or (name.startswith("linear") and kwargs["d_cond_mtd"] in ("2C", "D2DCE")):
            state[f"{name}.bias"] = torch.randn(shape[0], generator=rng)
    options = {**body.kwargs, "num_classes": K, "normalize_d_embed": False, **kwargs}
    return dataclasses.replace(body, state=state, kwargs=options)


def weight(case: OfficialCase, name: str) -> Tensor:
    raw, u, v = (case.state[f"{name}.weight_{each}"] for each in ("orig", "u", "v"))
    return raw / (u @ raw @ v)


def run(case: OfficialCase) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """What ours returns, the features as they come from the body, and the labels."""
    y = torch.tensor([0, 2, 1, 1])
    imported = import_network(case)
    inputs = {"img": case.inputs["img"], "label": y}
    return imported.run(inputs), imported.net(inputs["img"], y).features.detach(), y


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("auxiliary", "classes"), [("W/O", K), ("TAC", K), ("ADC", 2 * K)])
def test_classifiers(body: OfficialCase, auxiliary: str, classes: int, normalize: bool) -> None:
    rows = {"linear1": (1, 16), "linear2": (classes, 16)} | ({"linear_mi": (K, 16)} if auxiliary == "TAC" else {})
    case = with_head(body, rows, d_cond_mtd="AC", aux_cls_type=auxiliary, normalize_d_embed=normalize)
    found, h, y = run(case)
    seen = F.normalize(h, dim=1) if normalize else h
    torch.testing.assert_close(found["h"], seen)
    torch.testing.assert_close(found["logits"], h @ weight(case, "linear1")[0] + case.state["linear1.bias"])
    torch.testing.assert_close(found["cls_output"], seen @ weight(case, "linear2").T)
    if auxiliary == "TAC":
        torch.testing.assert_close(found["mi_cls_output"], seen @ weight(case, "linear_mi").T)
    torch.testing.assert_close(found["label"], 2 * y if auxiliary == "ADC" else y)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("method", ["2C", "D2DCE"])
@pytest.mark.parametrize("auxiliary", ["W/O", "TAC", "ADC"])
def test_embeddings(body: OfficialCase, method: str, auxiliary: str, normalize: bool) -> None:
    rows = {"linear1": (1, 16), "linear2": (E, 16), "embedding": (2 * K if auxiliary == "ADC" else K, E)}
    rows |= {"linear_mi": (E, 16), "embedding_mi": (K, E)} if auxiliary == "TAC" else {}
    case = with_head(body, rows, d_cond_mtd=method, aux_cls_type=auxiliary, normalize_d_embed=normalize)
    found, h, y = run(case)

    def shown(x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) if normalize else x

    label = 2 * y if auxiliary == "ADC" else y
    torch.testing.assert_close(found["embed"], shown(h @ weight(case, "linear2").T + case.state["linear2.bias"]))
    torch.testing.assert_close(found["proxy"], shown(weight(case, "embedding")[label]))
    if auxiliary == "ADC":
        torch.testing.assert_close(found["adc_fake.proxy"], shown(weight(case, "embedding")[label + 1]))
    if auxiliary == "TAC":
        twin = h @ weight(case, "linear_mi").T + case.state["linear_mi.bias"]
        torch.testing.assert_close(found["mi_embed"], shown(twin))
        torch.testing.assert_close(found["mi_proxy"], shown(weight(case, "embedding_mi")[y]))


def test_a_logit_per_class(body: OfficialCase) -> None:
    case = with_head(body, {"linear1": (K, 16)}, d_cond_mtd="MD", aux_cls_type="W/O")
    found, h, y = run(case)
    scores = h @ weight(case, "linear1").T + case.state["linear1.bias"]
    torch.testing.assert_close(found["logits"], scores[torch.arange(4), y])


def test_what_the_original_does_not_have_either(body: OfficialCase) -> None:
    case = with_head(body, {"linear1": (1, 16), "embedding": (K, 16)}, d_cond_mtd="PD", aux_cls_type="ADC")
    with pytest.raises(NoImporter, match="'PD' and aux_cls_type='ADC'"):
        import_network(case)
    with pytest.raises(NoImporter, match="info_type='both'"):
        import_network(dataclasses.replace(case, model={"info_type": "both"}))
