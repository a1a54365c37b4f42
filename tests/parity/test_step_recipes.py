"""Shipped recipes are the configurations that golden steps were recorded from, but for what they say under `differs`.

A step that our trainer repeats is a step of the translated configuration, see `official_steps.py`; here the shipped
recipe of that configuration, at the case's sizes, is compared with the translation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from official_steps import R3GAN, Steps
from test_steps import CASES, FOLDERS

from ganvas.recipe.recipe import Recipe, flatten, shipped

PUBLISHED = [Recipe.load(name) for name in shipped() if not name.startswith("tiny/")]
BY_SOURCE = {  # the one that has the fewest numbers of its own
    recipe.data.get("source"): recipe
    for recipe in sorted(PUBLISHED, key=lambda recipe: len(recipe.data.get("differs", {})), reverse=True)
}

# What a case changes in the official configuration -> where a recipe says it; sizes of networks are compared elsewhere.
EDITS: Mapping[str, tuple[str, ...]] = {
    "OPTIMIZATION.d_updates_per_step": ("task.critic_steps",),
    "MODEL.g_ema_decay": ("ema.decay",),
    "MODEL.g_ema_start": ("ema.start_steps",),
    "LOSS.lecam_ema_start_iter": ("task.regularizers.lecam.start",),
    "LOSS.lecam_ema_decay": ("task.regularizers.lecam.decay",),
    "LOSS.r1_lambda": ("task.regularizers.r1.weight",),
    "STYLEGAN.pl_weight": ("task.regularizers.path-length.weight",),
    "STYLEGAN.g_reg_interval": ("task.regularizers.path-length.every", "optim.roles.generator.lazy_every"),
    "STYLEGAN.d_reg_interval": ("task.regularizers.r1.every", "optim.roles.discriminator.lazy_every"),
    "STYLEGAN.g_ema_rampup": ("ema.rampup_ratio",),
}
ELSEWHERE = {
    "MODEL.g_conv_dim", "MODEL.d_conv_dim", "MODEL.z_dim", "MODEL.w_dim", "MODEL.g_shared_dim", "MODEL.d_embed_dim",
    "DATA.num_classes", "OPTIMIZATION.batch_size",
}  # fmt: skip


def recipe_of(case: Steps) -> tuple[Recipe, list[str]]:
    """The shipped recipe of a case's configuration, and the case's changes as overrides of ours."""
    if case.repo == R3GAN:
        return Recipe.load("r3gan-cifar10"), r3gan_changes(case)
    config = Path(case.sidecar["config"])
    source = "stylegan2-ada/cifar" if config.stem == "StyleGAN2" else f"studiogan/{config.parent.name}/{config.stem}"
    changes = []
    edits = dict(case.sidecar["edits"])
    if edits.pop("STYLEGAN.apply_pl_reg", False):
        changes.append("task.regularizers.path-length={batch_shrink: 2}")
    if (kimg := edits.pop("STYLEGAN.g_ema_kimg", None)) is not None:
        changes.append(f"ema.half_life_images={kimg * 1000}")
    for edit, value in edits.items():
        if edit not in ELSEWHERE:
            changes += [f"{path}={'~' if value == 'N/A' else json.dumps(value)}" for path in EDITS[edit]]
    return BY_SOURCE[source], changes


def r3gan_changes(case: Steps) -> list[str]:
    """A case of R3GAN has ranges of its own and no augmentation."""
    changes = ["task.augment="]
    ranges = {"gamma": ("task.regularizers.r1.weight", "task.regularizers.r2.weight"), "beta2": ("optim.betas.1",),
              "ema": ("ema.half_life_images",)}  # fmt: skip
    for name, paths in ranges.items():
        ends = case.sidecar["schedules"][name]
        for path in paths:
            changes += [f"schedules.{path}.from={ends['base_value']}", f"schedules.{path}.to={ends['final_value']}"]
    gamma = case.sidecar["schedules"]["gamma"]["base_value"]
    half_life = case.sidecar["schedules"]["ema"]["final_value"]
    changes += [f"task.regularizers.{name}.weight={gamma}" for name in ("r1", "r2")]
    return [*changes, f"ema.half_life_images={half_life}"]


def training_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a step does, by path: task, head, average, schedules, and each role's optimizer as it moves weights."""
    optim = recipe["optim"]
    rates = {}
    for role in ("generator", "discriminator"):
        options = {**{key: optim[key] for key in ("lr", "betas", "eps", "lazy_every")}, **optim["roles"].get(role, {})}
        share = options["lazy_every"] / (options["lazy_every"] + 1) if options["lazy_every"] else 1.0
        betas = [round(beta**share, 12) for beta in options["betas"]]
        rates[role] = {"lr": round(options["lr"] * share, 12), "betas": betas, "eps": options["eps"]}
    average = dict(recipe["ema"]) if recipe["ema"] else None
    if average and average["half_life_images"] is not None:
        del average["decay"]  # nobody reads it
    said = {
        "task": recipe["task"], "ema": average, "schedules": recipe["schedules"], "optim.roles": rates,
        "optim.schedule": optim["schedule"],
        "networks.discriminator.conditioning": recipe["networks"]["discriminator"]["conditioning"],
    }  # fmt: skip
    return {path: value for path, value in flatten(said).items() if not path.endswith("dim")}  # a network's size


@pytest.mark.skipif(not CASES, reason=f"there are no golden steps under {', '.join(map(str, FOLDERS))}")
@pytest.mark.parametrize("path", CASES, ids=[f"{path.parent.name}/{path.stem}" for path in CASES])
def test_the_shipped_recipe_is_the_configuration_of_the_golden_step(path: Path) -> None:
    case = Steps.read(path)
    recipe, changes = recipe_of(case)
    ours, official = recipe.override(*changes).resolve(), case.recipe()
    mine, theirs = training_of(ours), training_of(official)
    unlike = {
        key: (mine.get(key), theirs.get(key))
        for key in (mine.keys() | theirs.keys()) - ours["differs"].keys()
        if mine.get(key) != theirs.get(key)
    }
    assert unlike == {}
