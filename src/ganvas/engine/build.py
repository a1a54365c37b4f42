"""From a resolved recipe to things that can be trained. Parts are found by the names in the recipe, never by ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.engine.ema import Averages
from ganvas.engine.feed import CHANNELS_LAST, Feed
from ganvas.engine.layout import Replicated, Sharded
from ganvas.engine.optim import Optim
from ganvas.engine.precision import make_deterministic, seed_from
from ganvas.engine.schedules import Schedules, knobs_of
from ganvas.engine.trainer import Hooks, Trainer
from ganvas.errors import BadValue, CheckpointError, GanvasError
from ganvas.files.files import model_file, read_weights
from ganvas.recipe.check import roles_of
from ganvas.recipe.schema import Ema, Span, Train
from ganvas.recipe.trained import Weights
from ganvas.runtime import ranks
from ganvas.runtime.devices import settle_kernels
from ganvas.types import Dataset, DataSpec, Facts, Network, StreamedDataset, Task


@dataclass(frozen=True)
class Plan:
    """A resolved recipe together with the data that it will be trained on, made once for a run and handed down."""

    resolved: Mapping[str, Any]
    dataset: Dataset | StreamedDataset
    device: torch.device

    @cached_property
    def settings(self) -> Train:
        settings: Train = parts.build_section(Train, self.resolved["train"])
        return settings

    @cached_property
    def ema(self) -> Ema | None:
        ema: Ema | None = parts.build_section(Ema, self.resolved["ema"]) if self.resolved["ema"] else None
        return ema

    @cached_property
    def facts(self) -> Facts:
        """What a task may know of the data."""
        return Facts(self.dataset.spec, len(self.dataset), self.dataset.class_names)

    @property
    def score_every(self) -> int | None:
        """Steps between scores; None: at the end alone, or never."""
        every: int | None = (self.resolved["eval"] or {}).get("every")
        return every


def build_networks(
    resolved: Mapping[str, Any], spec: DataSpec, *, pretrained: bool
) -> tuple[dict[str, Network], dict[str, tuple[str, ...]]]:
    """(networks by role, the beginnings of frozen parameter names by role).

    Each role's initial weights depend on (seed, role) alone. With `pretrained`, `from:` is followed.

    Raises
    ------
    BadValue : a network reads a condition that the data do not have, or the weights of `from:` are not its own.
    """
    nets: dict[str, Network] = {}
    frozen: dict[str, tuple[str, ...]] = {}
    given = {role for role, declared in roles_of(resolved["task"]).items() if declared.frozen}
    for role, node in resolved["networks"].items():
        seed_from(resolved["train"]["seed"], "init", role)
        entry = parts.build_set("network", {role: node}, Weights, spec)[role]
        weights: Weights = entry.extra
        nets[role] = entry.part
        check_conditions(entry.part, spec, role)
        frozen[role] = ("",) if role in given else frozen_names(entry.part, weights, role)
        if weights.from_ and pretrained:
            load_weights(entry.part, Path(weights.from_), weights.net or role, role)
    return nets, frozen


def check_conditions(net: Network, spec: DataSpec, role: str) -> None:
    """Refuse a network that cannot do without a condition that the data do not have.

    Raises
    ------
    BadValue : says which, and which there are.
    """
    for name, needed in net.reads().items():
        if needed and name not in spec.conditions:
            have = ", ".join(spec.conditions) or "none"
            raise BadValue(
                f"{net.called()} reads a condition {name!r}; the data come with {have}", where=f"networks.{role}",
                hint="ganvas list data (paired, captioned and others make conditions)",
            )  # fmt: skip


def frozen_names(net: nn.Module, weights: Weights, role: str) -> tuple[str, ...]:
    """The beginnings of the names of the parameters that never learn; "" stands for all of them.

    Raises
    ------
    BadValue : one of them is the beginning of no name.
    """
    if weights.freeze == "all":
        return ("",)
    names = [name for name, _ in net.named_parameters()]
    for start in weights.freeze or ():
        if not any(name.startswith(start) for name in names):
            pieces = sorted({name.split(".")[0] for name in names})
            raise BadValue(
                f"no parameter's name begins with {start!r}", where=f"networks.{role}.freeze",
                hint=f"they begin with {', '.join(pieces)}",
            )  # fmt: skip
    return tuple(weights.freeze or ())


def load_weights(net: Network, source: Path, net_name: str, role: str) -> None:
    """Fill a network with the weights of another model's network, all of them.

    Raises
    ------
    BadValue : there is no such model or network, or names or shapes differ; says which.
    """
    place = f"networks.{role}.from"
    try:
        tensors = read_weights(model_file(source))
    except CheckpointError as error:
        raise BadValue(f"{source}: {error.problem}", where=place, hint=error.hint) from None
    weights: dict[str, Tensor] = {
        name.removeprefix(f"{net_name}."): tensor for name, tensor in tensors.items() if name.startswith(f"{net_name}.")
    }
    if not weights:
        present = ", ".join(sorted({name.split(".")[0] for name in tensors})) or "nothing"
        raise BadValue(
            f"{source} has no network {net_name!r}, but {present}",
            where=place,
            hint=f"say which: networks.{role}.net=NAME",
        )
    fill(net, weights, source=str(source), place=place)


def fill(net: Network, state: Mapping[str, Tensor], *, source: str, place: str) -> None:
    """Give a network the state of another one, or of another form of itself.

    Raises
    ------
    BadValue : names or shapes differ; says which.
    """
    state = net.adopted(state)
    current = net.state_dict()
    differing = sorted(
        {*current} ^ {*state} | {name for name in {*current} & {*state} if current[name].shape != state[name].shape}
    )
    if differing:
        shown = ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
        raise BadValue(
            f"the weights of {source} do not fit: {shown}", where=place,
            hint="leave out `use:` and its keys to take the network as it was built there",
        )  # fmt: skip
    net.load_state_dict(state)


def build_trainer(plan: Plan, folder: Path, hooks: Hooks, *, fresh: bool) -> Trainer:
    """Everything that a run needs, at step 0. `fresh` follows `from:`; a resumed run has its own weights."""
    settings, device = plan.settings, plan.device
    settle_kernels()
    make_deterministic(device)
    nets, frozen = build_networks(plan.resolved, plan.facts.spec, pretrained=fresh)
    for role, net in nets.items():
        net.to(device).train("" not in frozen[role])  # frozen whole: its running statistics stay, too
        if settings.channels_last:
            lay_channels_last(net)
    # Before anything else sees the networks: a task may keep what it reads of them.
    layout = Sharded(device) if settings.parallel == "sharded" and ranks.world() > 1 else Replicated(device)
    task = build_task(plan.resolved, nets, plan.facts)
    optim, averages = build_learners(plan, nets, task, frozen, layout)
    if not optim.optimizers:
        raise BadValue("nothing is left to learn", where="networks", hint="leave `freeze: all` out of one network")
    schedules = build_schedules(plan, nets, task, optim, averages)
    if settings.compile:
        for net in nets.values():
            net.compile()
    feed = Feed(plan.dataset, settings.batch, settings.seed, device, channels_last=settings.channels_last)
    return Trainer(
        task=task, nets=nets, feed=feed, optim=optim, averages=averages, schedules=schedules, layout=layout,
        settings=settings, score_every=plan.score_every, folder=folder, device=device, hooks=hooks,
    )  # fmt: skip


def lay_channels_last(net: nn.Module) -> None:
    """Lay a network's weights, of kernels over images and over films, as channels_last data lie."""
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.dim() in CHANNELS_LAST:
            tensor.data = tensor.data.to(memory_format=CHANNELS_LAST[tensor.dim()])


def build_learners(
    plan: Plan,
    nets: Mapping[str, Network],
    task: Task,
    frozen: Mapping[str, tuple[str, ...]],
    layout: Replicated,
) -> tuple[Optim, Averages | None]:
    """What moves the weights, and what averages them. Freezes every parameter until an update's turn."""
    settings = plan.settings
    averages = Averages(nets, task.averaged, plan.ema) if plan.ema else None
    layout.spread(nets)
    if averages is not None:
        layout.spread_averages(averages.nets)
    scaler = torch.amp.GradScaler(plan.device.type, enabled=settings.precision == "fp16")
    return Optim(nets, plan.resolved["optim"], frozen=frozen, steps=settings.steps, scaler=scaler), averages


def build_schedules(
    plan: Plan, nets: Mapping[str, Network], task: Task, optim: Optim, averages: Averages | None
) -> Schedules:
    entries = parts.build_set("schedule", plan.resolved["schedules"], Span)
    return Schedules(entries, knobs_of(nets, task, optim, averages), plan.settings.steps)


def build_task(resolved: Mapping[str, Any], nets: Mapping[str, Network], facts: Facts) -> Task:
    try:
        task: Task = parts.build("task", resolved["task"], nets, facts)
    except GanvasError as error:
        error.where = error.where or "task"
        raise
    check_passes(task, resolved["train"])
    return task


def check_passes(task: Task, train: Mapping[str, Any]) -> None:
    """Refuse passes of fewer data than the task can compare.

    Raises
    ------
    BadValue : `accumulate` cuts the batch too small, or it is so from the start.
    """
    batch, least = train["batch"], task.least_batch
    if batch % ranks.world():
        raise BadValue(
            f"a batch of {batch} cannot be dealt to {ranks.world()} processes", where="train.batch",
            hint=f"train.batch={max(1, round(batch / ranks.world())) * ranks.world()}",
        )  # fmt: skip
    batch //= ranks.world()
    smallest = batch // min(train["accumulate"], batch)  # of the micro-batches
    if smallest >= least:
        return
    cut = f" of {train['accumulate']} pieces" if train["accumulate"] > 1 else ""
    raise BadValue(
        f"a part of this task compares {least} or more data of one pass, and a batch of {batch}{cut} has passes of"
        f" {smallest}",
        where="train.accumulate" if batch >= least else "train.batch",
        hint=f"train.accumulate={batch // least}" if batch >= least else f"train.batch={16 * train['accumulate']}",
    )
