"""Whole training steps: our trainer on the weights, batches and draws of official runs ends where they end.

Cases lie under the folders in $GANVAS_GOLDEN, as `step_*/<name>.safetensors` with a `.json` beside it; the rule of
comparison is that of their README. Run with -s to see the deviations.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from official_steps import ROLES, Steps, run, trainer_of
from torch import Tensor

from ganvas.interop.registry import NoImporter

HERE = Path(__file__).resolve()
DEFAULT = HERE.parents[2].parent / "shared" / "golden"
FOLDERS = [Path(folder) for folder in os.environ.get("GANVAS_GOLDEN", str(DEFAULT)).split(os.pathsep) if folder]
CASES = [path for folder in FOLDERS for path in sorted(folder.glob("step_*/*.safetensors"))]
LIMIT = 1e-6  # of the update
LOSS_LIMIT = 1e-6  # relative

# Where ours is something else on purpose: (network, kind of tensor) -> what it is equal to instead.
CHOICES: Mapping[str, Mapping[tuple[str, str], str]] = {
    # NVIDIA's own loop averages after all updates of a step, as ours does; StudioGAN before the critic's, in which the
    # mean of w moves.
    "models.stylegan2": {("G_ema", "w_avg"): "G"},
}


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def kind_of(name: str) -> str:
    """Kinds are compared apart: batch-norm statistics move a thousand times as far as weights and would hide them."""
    if "running_" in name:
        return "batch norm"
    if "num_batches" in name:
        return "counts"
    if "w_avg" in name:
        return "w_avg"
    return "power iterations" if name.endswith(("._u", "._v", "_u", "_v")) else "parameters"


def without_gradient(case: Steps) -> set[tuple[str, str]]:
    """(network, our name) of the parameters that rounding alone moves, such as biases in front of a batch norm."""
    listed = set(case.sidecar["parameters_without_gradient"])
    names = set()
    for role in {full_name.split(".", 1)[0] for full_name in listed}:
        start = case.state(f"state0.{role}")
        marked = {key: torch.full_like(value, float(f"{role}.{key}" in listed)) for key, value in start.items()}
        state = case.network(role, marked).net.state_dict()
        names |= {(role, key) for key, value in state.items() if value.is_floating_point() and value.min() == 1}
    return names


def deviations(case: Steps, nets: Mapping[str, Mapping[str, Tensor]], n: int) -> dict[str, float]:
    """|ours − official| / |official − start| of every network and kind of tensor after n steps, 2-norms."""
    left_out = without_gradient(case)
    found = {}
    for net, state in nets.items():
        official_state, role = case.state(f"out.{net}.{n}"), net[0]
        official = case.network(role, official_state).net.double().state_dict()
        start = case.network(role, case.state(f"state0.{role}")).net.double().state_dict()
        squares: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for name, value in official.items():
            if (role, name) in left_out:
                continue
            kind, goal = kind_of(name), value
            instead = CHOICES.get(case.sidecar["cls"].split(".Generator")[0], {}).get((net, kind))
            if instead is not None:
                goal = case.network(role, case.state(f"out.{instead}.{n}")).net.double().state_dict()[name]
            squares[kind][0] += (state[name].double() - goal.double()).square().sum().item()
            squares[kind][1] += (goal.double() - start[name].double()).square().sum().item()
        for kind, (off, moved) in squares.items():
            found[f"{net} {kind}"] = (off / moved) ** 0.5 if moved else off**0.5
    return found


def official_losses(case: Steps, update: Mapping[str, Any]) -> dict[str, float]:
    """The terms of one update before their weights, and the total that was differentiated."""
    start = f"out.loss.{update['step']}.{update['update']:03d}."
    return {key.removeprefix(start): value.item() for key, value in case.tensors.items() if key.startswith(start)}


@pytest.mark.skipif(not CASES, reason=f"no golden steps under {os.pathsep.join(map(str, FOLDERS))}; set GANVAS_GOLDEN")
def test_golden_steps_are_there() -> None:
    assert all(path.with_suffix(".json").is_file() for path in CASES)


@pytest.mark.parametrize("path", CASES, ids=[f"{path.parent.name}/{path.stem}" for path in CASES])
@pytest.mark.filterwarnings("ignore:regularizer")  # a slope through batch norm, as in the official configuration
def test_our_steps_are_the_official_ones(path: Path, tmp_path: Path) -> None:
    case = Steps.read(path)
    try:
        trainer, replay = trainer_of(case, tmp_path)
    except NoImporter as missing:
        pytest.skip(missing.problem)
    for done in range(1, case.sidecar["steps"] + 1):
        run(trainer, replay)
        nets = {role: trainer.nets[ROLES[role]].state_dict() for role in ROLES}
        if trainer.averages is not None:
            nets["G_ema"] = trainer.averages.nets["generator"].state_dict()
        if not case.state(f"out.G.{done}"):
            continue
        for name, deviation in deviations(case, nets, done).items():
            print(f"{path.parent.name}/{path.stem} after {done}: {name} {deviation:.1e} of the update")  # noqa: T201
            assert deviation <= LIMIT, f"{name} after {done} steps: {deviation:.2e} of the update"
    assert len(replay.losses) == len(case.sidecar["updates"])
    for update, ours in zip(case.sidecar["updates"], replay.losses, strict=True):
        official = official_losses(case, update)
        every = interval(case, update["kind"])
        total = every * sum(ours.values())
        assert total == pytest.approx(official["total"], rel=LOSS_LIMIT, abs=1e-9), update
        for term, value in official.items():
            if term == "adv":  # unweighted in both
                (adversarial,) = (loss for name, loss in ours.items() if name.endswith(".adversarial"))
                assert adversarial == pytest.approx(value, rel=LOSS_LIMIT, abs=1e-9), update


def interval(case: Steps, kind: str) -> int:
    """How many steps the lazy term of such an update stands for; its total is multiplied by that."""
    style = case.sidecar["kwargs"].get("STYLEGAN", {})
    return {"pl": style.get("g_reg_interval", 1), "r1": style.get("d_reg_interval", 1)}.get(kind, 1)


def test_a_draw_that_is_not_there_is_refused() -> None:
    from ganvas.nn import draws

    like = torch.zeros(1)
    with draws.fed(lambda name, shape: torch.zeros(2)), pytest.raises(ValueError, match=r"'latent' is \(3,\)"):
        draws.normal("latent", (3,), like=like)
    with draws.fed(lambda name, shape: torch.full(shape, 7.0)):
        assert draws.uniform("x", (2,), like=like).tolist() == [7.0, 7.0]
    assert not torch.equal(draws.normal("x", (2,), like=like), torch.full((2,), 7.0))
