"""The transformer, the masks and the Halton order of valeoai/Maskgit-pytorch -> ours."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, importer
from ganvas.nn.masking import SCHEDULES, ScheduleName, halton_order, independent_masks, masked_share
from ganvas.parts import image_spec

REPO = "valeoai/Maskgit-pytorch"
UNDERSTOOD = {
    "input_size", "hidden_dim", "codebook_size", "depth", "heads", "mlp_dim", "dropout", "nclass", "register", "proj",
}  # fmt: skip
INPUTS = {"code", "y", "drop"}

RENAMED = (
    (r"^transformer\.layers\.(\d+)", r"blocks.\1"),
    (r"\.mlp\.1\b", ".modulation"),
    (r"\.ln([12])", r".norm\1"),
    (r"\.attn\.wq", ".attention.query"),
    (r"\.attn\.wk", ".attention.key"),
    (r"\.attn\.wv", ".attention.value"),
    (r"\.attn\.wo", ".attention.out"),
    (r"\.attn\b", ".attention"),
    (r"\.ff\.w1", ".mlp.gate"),
    (r"\.ff\.w3", ".mlp.value"),
    (r"\.ff\.w2", ".mlp.out"),
    (r"\.ff\b", ".mlp"),
    (r"\.norm_final", ".norm"),
    (r"^cls_emb", "class_embedding"),
    (r"^tok_emb", "token_embedding"),
    (r"^pos_emb\.weight", "positions"),
    (r"^reg_tokens\.weight", "registers"),
    (r"^head\.bias", "bias"),
)


@importer("Network.transformer.Transformer", repo=REPO)
def transformer(case: OfficialCase) -> Imported:
    """The class-conditional transformer without patches of tokens (`proj=1`)."""
    for key in sorted(case.kwargs.keys() - UNDERSTOOD):
        raise NoImporter(f"no importer yet for {case.cls} with {key}")
    for key in sorted(case.inputs.keys() - INPUTS):
        raise NoImporter(f"no importer yet for {case.cls} called with {key}")
    if (proj := case.kwargs.get("proj", 1)) > 1:
        raise NoImporter(f"no importer yet for {case.cls} with proj={proj}")
    state = dict(case.state)
    head = state.pop("head.weight", state["tok_emb.weight"])
    if not torch.equal(head, state["tok_emb.weight"]):
        raise NoImporter(f"no importer yet for {case.cls} with a head of its own")
    codes, width = len(state["tok_emb.weight"]) - 1, state["tok_emb.weight"].shape[1]
    node = {
        "use": "maskgit-transformer",
        "vocabulary": codes,
        "length": len(state["pos_emb.weight"]),
        "width": width,
        "depth": len({key.split(".")[2] for key in state if key.startswith("transformer.layers.")}),
        "heads": int(case.kwargs.get("heads", 16)),
        "mlp_width": len(state["transformer.layers.0.ff.w1.weight"]),
        "registers": len(state.get("reg_tokens.weight", ())),
        "dropout": float(case.kwargs.get("dropout", 0.0)),
    }
    side = int(case.kwargs.get("input_size", 16))
    spec = image_spec((3, side, side), len(state["cls_emb.weight"]) - 1)
    adapted = dataclasses.replace(case, state=state)
    return carry_over(adapted, spec, node, rename=_ours, call=_call)


def _ours(name: str) -> str:
    """Official names of modules and tensors -> ours."""
    for official, ours in RENAMED:
        name = re.sub(official, ours, name)
    return name


def _call(net: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`code` (N, h, w), `y` (N,) and `drop` (N,), whose labels count as none -> `logits` (N, h w, codes + 1)."""
    label = inputs["y"]
    if "drop" in inputs:
        label = torch.where(inputs["drop"].bool(), net.classes, label)
    with torch.no_grad():
        return {"logits": net.all_logits(inputs["code"].flatten(1), label)}


@importer("Utils.masking_scheduler.get_mask_code, Sampler.halton_sampler.build_halton_mask", repo=REPO)
def masking(case: OfficialCase) -> Imported:
    """The masks of training by schedule, and the order of the Halton sampler; nothing in it has weights."""
    sides = {}
    for name, value in case.outputs.items():
        schedule, _, what = name.partition(".")
        if name.startswith("halton_"):
            sides[name] = round(len(value) ** 0.5)
        elif schedule not in SCHEDULES or what not in ("mask", "masked"):
            raise NoImporter(f"no importer yet for {name!r} of {case.cls}")
    return Imported(
        nn.Identity(), image_spec(()), {"use": "masked-tokens"}, lambda name: name, partial(_masks, case, sides)
    )


def _masks(case: OfficialCase, sides: Mapping[str, int], _net: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`code` (N, h, w) and `r` (N,), with the noise that was drawn -> masks uint8, masked codes, Halton orders."""
    outputs = {name: halton_order((side, side)) for name, side in sides.items()}
    for name in case.outputs:
        schedule, dot, what = name.partition(".")
        if not dot:
            continue
        share = masked_share(cast("ScheduleName", schedule), inputs["r"])
        mask = independent_masks(share, inputs[f"{schedule}.rng.000.rand"])
        stands_for = case.kwargs.get("value")
        if stands_for is None:  # a case that does not record the argument shows it wherever a code is masked
            masked = case.outputs[f"{schedule}.masked"]
            stands_for = masked[case.outputs[f"{schedule}.mask"].bool()].max() if mask.any() else 0
        outputs[name] = mask.to(torch.uint8) if what == "mask" else torch.where(mask, stands_for, inputs["code"])
    return outputs
