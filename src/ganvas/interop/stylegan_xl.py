"""StyleGAN-XL's generators of the authors' code base -> ours: the stem, and what was grown from one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, importer
from ganvas.interop.stylegan3 import (
    call_generator,
    mapping_layers,
    names_of,
    options_of,
    spec_of,
    synthesis_node,
    with_the_same_filters,
    without_filters,
)

REPO = "autonomousvision/stylegan-xl"
CLASSES = "training.networks_stylegan3_resetting"

EMBEDDING = "mapping.embed.weight"

# What the authors' stages take from nowhere but the layers' defaults, whatever the stem was made with
FIXED = {"num_critical": 2, "filter_size": 6, "lrelu_upsampling": 2}


@importer(f"{CLASSES}.Generator", repo=REPO)
def generator(case: OfficialCase) -> Imported:
    """The stem: any size that is a power of two, with or without labels."""
    return _imported(case, case.kwargs, [])


@importer(f"{CLASSES}.SuperresGenerator", repo=REPO)
def superres_generator(case: OfficialCase) -> Imported:
    """A stem of any kind with stages on it; the arguments of each stage are beside those of what it grew from."""
    stem = case.kwargs
    stages: list[tuple[int, int]] = []
    while "stem" in stem:
        superres = stem["superres"]
        stages.insert(0, (int(superres["up_factor"]), int(superres["head_layers"])))
        stem = stem["stem"]
    for key, value in FIXED.items():
        if stem.get(key, value) != value:
            raise NoImporter(f"no importer yet for {case.cls} with {key}={stem[key]!r}")
    return _imported(case, stem, stages)


def _imported(case: OfficialCase, stem: Mapping[str, Any], stages: list[tuple[int, int]]) -> Imported:
    mapping = dict(stem.get("mapping_kwargs") or {})
    classes = int(stem.get("c_dim") or 0)
    state = {key: value for key, value in case.state.items() if classes or key != EMBEDDING}
    if classes:  # the authors' is of all ImageNet classes, whatever the data; the first ones are those that are read
        state[EMBEDDING] = state[EMBEDDING][:classes]
    side = int(stem["img_resolution"]) * prod(factor for factor, _ in stages)
    node = {
        "use": "stylegan-xl-generator",
        "z_dim": int(stem["z_dim"]),
        "w_dim": int(stem["w_dim"]),
        "layers": int(stem.get("num_layers", 14)),
        **synthesis_node(stem),
        "stages": [factor for factor, _ in stages],
        "stage_layers": [layers for _, layers in stages],
        "conditioning": "embedding" if classes else None,
        "average_decay": mapping.get("w_avg_beta", 0.998),
        "mapping": {
            "layers": mapping_layers(case.state),
            "lr_multiplier": mapping.get("lr_multiplier", 0.01),
            **({"embed_dim": state[EMBEDDING].shape[1]} if classes else {}),
        },
    }
    return with_the_same_filters(case, carry_over(
        without_filters(dataclasses.replace(case, state=state)), spec_of(stem, side), node, rename=names_of(case.state),
        call=partial(call_generator, options_of(case)),
    ))  # fmt: skip
