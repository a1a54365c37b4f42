"""Whole training steps of official code, told as our recipe, and our trainer fed with their batches and draws.

A case is what `shared/golden/README-2.md`, part 3, describes. Nothing here is taken from a recipe of ours: the
settings are translated from the official configuration that the case was made with, so that a test can compare what
we ship with that.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ganvas.engine.build import Plan, build_trainer
from ganvas.engine.trainer import Hooks, Trainer
from ganvas.interop.registry import Imported, NoImporter, OfficialCase, import_network
from ganvas.nn import draws
from ganvas.parts import build
from ganvas.recipe.recipe import Recipe
from ganvas.types import Batch, Condition

ROLES = {"G": "generator", "D": "discriminator"}
STUDIOGAN = "POSTECH-CVLab/PyTorch-StudioGAN"
R3GAN = "brownvc/R3GAN"
OBJECTIVES = {
    "vanilla": "non-saturating", "logistic": "non-saturating", "hinge": "hinge", "ls": "least-squares",
    "wasserstein": "wasserstein",
}  # fmt: skip

# Draws of the official code by the function that makes them -> ours, in the order in which one pass makes them.
PASS_DRAWS: Mapping[str, tuple[str, ...]] = {
    "cal_grad_penalty": ("interpolation",),
    "cal_dra_penalty": ("interpolation", "noise"),
    "latent_optimise": ("moved latents",),
    "rand_brightness": ("brightness",),
    "rand_saturation": ("saturation",),
    "rand_contrast": ("contrast",),
    "rand_translation": ("up", "left"),
    "rand_cutout": ("cut_y", "cut_x"),
    "forward": ("layer noise",),
    "cal_pl_reg": ("path length",),
}


@dataclass
class Steps:
    """One golden case of whole steps."""

    path: Path
    sidecar: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Steps:
        return cls(path, json.loads(path.with_suffix(".json").read_text(encoding="utf-8")), load_file(path))

    @property
    def repo(self) -> str:
        return str(self.sidecar["repo"])

    @property
    def batch(self) -> int:
        return int(self.sidecar["batch"])

    def state(self, name: str) -> dict[str, Tensor]:
        """A state dict of the file in official keys, such as "state0.G" or "out.G_ema.3"; empty where there is none."""
        start = f"{name}."
        return {key.removeprefix(start): value for key, value in self.tensors.items() if key.startswith(start)}

    def network(self, role: str, state: Mapping[str, Tensor]) -> Imported:
        """Our network of the role "G" or "D" with a state dict of the official one."""
        return import_network(ADAPTERS[self.repo](self, role, state))

    @cached_property
    def nodes(self) -> dict[str, Mapping[str, Any]]:
        """The networks' entries in a recipe."""
        nodes = {ROLES[role]: dict(self.network(role, self.state(f"state0.{role}")).node) for role in ROLES}
        nodes["discriminator"]["conditioning"] = self.head(nodes["discriminator"]["conditioning"])
        if nodes["generator"]["use"] == "stylegan2-generator":
            nodes["generator"]["mixing"] = self.sidecar["kwargs"]["STYLEGAN"].get("style_mixing_p", 0) or 0
        return nodes

    def head(self, node: Any) -> Any:
        """The critic's head with the settings of its losses."""
        loss = self.sidecar["kwargs"].get("LOSS", {})
        node = {"use": node} if isinstance(node, str) else dict(node)
        given = {"temperature": "temperature", "margin": "m_p", "weight": "cond_lambda"}
        for ours, official in given.items():
            if official in loss and not (ours == "margin" and node["use"] != "d2d-ce"):
                node[ours] = loss[official]
        node |= {"twin-auxiliary-classifier": {"twin_reads": "classifier"}, "adc": {"two_passes": True}}.get(
            node["use"], {}
        )
        return node

    def recipe(self) -> dict[str, Any]:
        """The official configuration as a recipe of ours, resolved, on data that are never looked at."""
        sections = TRANSLATORS[self.repo](self)
        spec = self.network("D", self.state("state0.D")).spec
        data = {"use": "shapes", "size": 32, "count": 64}
        train = {"steps": 100, "batch": self.batch, "checkpoint_every": 10**6, "log_every": 10**6}
        raw = {"data": data, "networks": self.nodes, "train": train, **sections}
        assert spec.shape[1] == 32, "the stand-in data have 32 pixels"
        return Recipe(raw, "a golden case").resolve()


# ---------------------------------------------------------------------------------------------------- StudioGAN


def studiogan_network(case: Steps, role: str, state: Mapping[str, Tensor]) -> OfficialCase:
    kwargs = case.sidecar["kwargs"]
    module = str(case.sidecar["cls"]).split(".Generator", 1)[0]
    cls = f"{module}.{'Generator' if role == 'G' else 'Discriminator'}"
    settings = {**kwargs["DATA"], **kwargs["MODEL"]}
    if module != "models.stylegan2":
        return OfficialCase(cls, case.repo, settings, state, model=settings)
    return nvidia_form(case, role, state)


def nvidia_form(case: Steps, role: str, state: Mapping[str, Tensor]) -> OfficialCase:
    """StudioGAN's copy of StyleGAN2 as NVIDIA's own class."""
    kwargs = case.sidecar["kwargs"]
    style, model, size = kwargs["STYLEGAN"], kwargs["MODEL"], kwargs["DATA"]["img_size"]
    pattern = "synthesis.b{}.conv1.weight" if role == "G" else "b{}.conv0.weight"
    widths = {r: len(state[pattern.format(r)]) for r in (8, 16, 32, 64) if pattern.format(r) in state}
    most = max(widths.values())
    last = max(widths)
    options: dict[str, Any] = {
        "c_dim": kwargs["DATA"]["num_classes"] if model["g_cond_mtd"] != "W/O" else 0,
        "img_resolution": size, "img_channels": 3, "channel_base": widths[last] * last, "channel_max": most,
        "conv_clamp": None,
    }  # fmt: skip
    if role == "G":
        options |= {"z_dim": model["z_dim"], "w_dim": model["w_dim"]}
        options |= {"mapping_kwargs": {"num_layers": style["mapping_network"]}}
        return OfficialCase("training.networks_stylegan2.Generator", "NVlabs/stylegan3", options, state)
    options |= {"architecture": style["d_architecture"]}
    options |= {"epilogue_kwargs": {"mbstd_group_size": style["d_epilogue_mbstd_group_size"]}}
    renamed = {key.replace("linear1.", "b4.out."): value for key, value in state.items()}
    return OfficialCase("training.networks_stylegan2.Discriminator", "NVlabs/stylegan3", options, renamed)


def studiogan_recipe(case: Steps) -> dict[str, Any]:
    kwargs, optimizer = case.sidecar["kwargs"], case.sidecar["optimizer"]
    loss, model, style, augment = (kwargs.get(name, {}) for name in ("LOSS", "MODEL", "STYLEGAN", "AUG"))
    terms: dict[str, Any] = {}
    if loss.get("apply_gp"):
        terms["gradient-penalty"] = {"weight": loss["gp_lambda"]}
    if loss.get("apply_dra"):
        terms["dragan"] = {"weight": loss["dra_lambda"]}
    if loss.get("apply_maxgp"):
        terms["max-gradient-penalty"] = {"weight": loss["maxgp_lambda"]}
    if loss.get("apply_wc"):
        terms["weight-clipping"] = {"limit": loss["wc_bound"]}
    if loss.get("apply_lecam"):
        terms["lecam"] = {
            "weight": loss["lecam_lambda"], "decay": loss["lecam_ema_decay"], "start": loss["lecam_ema_start_iter"]
        }  # fmt: skip
    if loss.get("apply_r1_reg"):
        lazy = loss.get("r1_place") == "outside_loop"
        terms["r1"] = {"weight": loss["r1_lambda"], "every": style["d_reg_interval"] if lazy else 1}
    if style.get("apply_pl_reg"):
        terms["path-length"] = {"weight": style["pl_weight"], "every": style["g_reg_interval"], "batch_shrink": 2}
    if loss.get("apply_lo"):
        terms["latent-optimisation"] = {
            "weight": loss["lo_lambda"], "method": "natural", "rate": loss["lo_alpha"], "damping": loss["lo_beta"],
            "share": loss["lo_rate"], "steps": loss["lo_steps4train"] - 1, "moves": "data", "bound": 1.0,
            "learnt_by": "both",
        }  # fmt: skip
    task: dict[str, Any] = {
        "use": "adversarial", "objective": OBJECTIVES[loss["adv_loss"]],
        "critic_steps": case.sidecar["d_updates_per_step"],
        "first": "discriminator" if case.sidecar["d_first"] else "generator", "regularizers": terms,
    }  # fmt: skip
    if model["g_cond_mtd"] != "W/O":
        task["fake_labels"] = "uniform"
    if augment.get("apply_diffaug"):
        task["augment"] = "diffaug"
    if augment.get("apply_ada") or augment.get("apply_apa"):
        raise NoImporter("steps with an adaptive augmentation are not translated: its probability is no draw of a step")
    sections: dict[str, Any] = {"task": task, "optim": adam(optimizer)}
    if case.sidecar["ema"]:
        sections["ema"] = studiogan_average(case.sidecar["ema"])
    return sections


def studiogan_average(ema: Mapping[str, Any]) -> dict[str, Any]:
    if "decay" in ema:
        return {"decay": ema["decay"], "start_steps": ema["start"]}
    rampup = ema.get("rampup")
    return {
        "half_life_images": ema["kimg"] * 1000, "buffers": "copy",
        "rampup_ratio": rampup if isinstance(rampup, int | float) else None,
    }  # fmt: skip


def adam(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    roles = {ROLES[role]: {key: options[key] for key in ("lr", "betas", "eps")} for role, options in optimizer.items()}
    return {"use": "adam", "roles": roles}


# ---------------------------------------------------------------------------------------------------- R3GAN


def r3gan_network(case: Steps, role: str, state: Mapping[str, Tensor]) -> OfficialCase:
    cls = f"training.networks.{'Generator' if role == 'G' else 'Discriminator'}"
    # The official modules keep the resampling filters that ours has as constants.
    return OfficialCase(cls, case.repo, case.sidecar["kwargs"][role], state)


def r3gan_recipe(case: Steps) -> dict[str, Any]:
    def cosine(values: Mapping[str, float], scale: float = 1.0) -> dict[str, Any]:
        return {"use": "cosine", "from": values["base_value"] * scale, "to": values["final_value"] * scale}

    schedules = case.sidecar["schedules"]
    rate = schedules["lr"]
    gamma, beta2, half_life = schedules["gamma"], schedules["beta2"], schedules["ema"]
    return {
        "task": {
            "use": "adversarial", "objective": "relativistic-paired",
            "regularizers": {name: {"weight": gamma["base_value"]} for name in ("r1", "r2")},
        },
        "optim": {
            "use": "adam", "lr": rate["base_value"], "betas": [0.0, beta2["base_value"]], "eps": 1e-8,
            "schedule": {"use": "cosine", "final": rate["final_value"] / rate["base_value"]},
        },
        "ema": {"half_life_images": half_life["final_value"], "buffers": "copy"},
        "schedules": {
            "task.regularizers.r1.weight": cosine(gamma), "task.regularizers.r2.weight": cosine(gamma),
            "optim.betas.1": cosine(beta2), "ema.half_life_images": cosine(half_life),
        },
        "train": {"steps": case.sidecar["total_nimg"] // case.batch, "batch": case.batch, "log_every": 10**6},
    }  # fmt: skip


ADAPTERS: Mapping[str, Callable[[Steps, str, Mapping[str, Tensor]], OfficialCase]] = {
    STUDIOGAN: studiogan_network, R3GAN: r3gan_network,
}  # fmt: skip
TRANSLATORS: Mapping[str, Callable[[Steps], dict[str, Any]]] = {STUDIOGAN: studiogan_recipe, R3GAN: r3gan_recipe}


# ---------------------------------------------------------------------------------------------------- running


class Replay:
    """Batches and draws of the official run, in place of a feed and of torch's generator."""

    def __init__(self, case: Steps) -> None:
        self.case = case
        self.update = -1  # the official number of the update that runs
        self.position = 0
        self.queues: dict[str, list[Tensor]] = {}
        self.losses: list[dict[str, float]] = []

    def around(self, step: int, run: Callable[[], dict[str, float]]) -> dict[str, float]:
        self.update += 1
        self.queues = self.recorded()
        losses = run()
        self.losses.append(losses)
        left = {name: len(queue) for name, queue in self.queues.items() if queue and name not in ("label", "latent")}
        assert not left, f"update {self.update} left draws over: {left}"
        return losses

    def recorded(self) -> dict[str, list[Tensor]]:
        """The draws of this update by our names for them."""
        queues: dict[str, list[Tensor]] = defaultdict(list)
        seen: dict[str, int] = defaultdict(int)
        tensors, number = self.case.tensors, f"{self.update:03d}"
        if f"in.z.{number}" in tensors:
            queues["latent"].append(tensors[f"in.z.{number}"])
        if f"in.fake_label.{number}" in tensors:
            queues["label"].append(tensors[f"in.fake_label.{number}"])
        for key in sorted(key for key in tensors if key.startswith(f"in.rng.{number}.")):
            where = key.split(".", 4)[4]
            names = self.names(where, key)
            queues[names[seen[where] % len(names)]].append(tensors[key])
            seen[where] += 1
        return queues

    def names(self, where: str, key: str) -> tuple[str, ...]:
        return PASS_DRAWS[where]

    def __next__(self) -> Batch:
        number = f"{self.update:03d}"
        data = self.case.tensors.get(f"in.real.{number}")
        label = self.case.tensors.get(f"in.label.{number}")
        if data is None:  # the official generator's update has no real batch
            data = torch.zeros(self.case.batch, 3, 32, 32)
            label = torch.zeros(self.case.batch, dtype=torch.int64)
        condition = {} if label is None else {"label": label.long()}
        self.position += len(data)
        return Batch(data.double(), Condition(condition), torch.arange(len(data)))

    def draw(self, name: str, shape: tuple[int, ...]) -> Tensor:
        queue = self.queues.get(name)
        if queue:
            value = queue.pop(0)
        elif name in ("latent", "label") and not self.drawn_here(name):
            value = torch.zeros(shape)  # ours draws them for every update, also where nothing is made of them
        else:
            raise AssertionError(f"update {self.update}: the official code draws no {name!r} {shape}")
        if value.shape[:1] != shape[:1] and name in ("latent", "label"):  # half a batch, of which ours takes the first
            value = torch.cat([value, value.new_zeros(shape[0] - len(value), *value.shape[1:])])
        value = value.double() if value.is_floating_point() else value
        return value.reshape(shape)

    def drawn_here(self, name: str) -> bool:
        key = {"latent": "in.z", "label": "in.fake_label"}[name]
        return f"{key}.{self.update:03d}" in self.case.tensors


def trainer_of(case: Steps, folder: Path) -> tuple[Trainer, Replay]:
    """Our trainer in float64 with the official weights, before the first step."""
    resolved = case.recipe()
    imported = {role: case.network(role, case.state(f"state0.{role}")) for role in ROLES}
    replay = Replay(case)
    dataset = StandIn(build("dataset", resolved["data"]), imported["D"].spec)
    plan = Plan(resolved, dataset, torch.device("cpu"))  # type: ignore[arg-type]
    trainer = build_trainer(plan, folder, Hooks(around_update=replay.around), fresh=True)
    for role, network in imported.items():
        trainer.nets[ROLES[role]].double().load_state_dict(network.net.double().state_dict())
    if trainer.averages is not None:
        trainer.averages.nets["generator"].double().load_state_dict(imported["G"].net.double().state_dict())
    trainer.feed = replay  # type: ignore[assignment]
    trainer.step = int(case.sidecar["first_step"])
    return trainer, replay


class StandIn:
    """A data set that is only asked what its data look like."""

    def __init__(self, dataset: Any, spec: Any) -> None:
        self.spec = spec
        self.class_names = tuple(map(str, range(spec.num_classes)))

    def __len__(self) -> int:
        return 64


def run(trainer: Trainer, replay: Replay) -> None:
    """One step, fed with the official draws."""
    with draws.fed(replay.draw):
        trainer.take_step()
