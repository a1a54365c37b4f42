"""What one step does: micro-batches, lazy terms, clipping, rates, frozen weights, half precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_networks import Line

from ganvas import parts
from ganvas.engine.build import Plan, build_trainer
from ganvas.engine.optim import Optim
from ganvas.engine.precision import autocast
from ganvas.engine.trainer import Hooks, Trainer
from ganvas.errors import BadValue
from ganvas.files.files import read_rows, read_tensors
from ganvas.parts import image_spec
from ganvas.recipe.recipe import Recipe
from ganvas.training.train import train
from ganvas.types import Batch, Facts, Update

Watch = Callable[..., list[list[torch.Tensor]]]
Make = Callable[..., Trainer]


def mean_square(net: Line) -> Callable[[Batch, int], dict[str, torch.Tensor]]:
    return lambda batch, step: {"square": net(batch.data.flatten(1).to(net.weight.dtype)).square().sum(1).mean()}


# --------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("pieces", [2, 3, 8])
def test_accumulated_gradient_is_that_of_the_whole_batch(make_trainer: Make, gradients: Watch, pieces: int) -> None:
    net = Line(6, 2).double()
    seen = []
    for accumulate in (1, pieces):
        trainer = make_trainer(nets={"net": copy.deepcopy(net)}, accumulate=accumulate)
        seen.append(gradients(trainer))
        trainer.take_step()
    for whole, pieced in zip(seen[0][0], seen[1][0], strict=True):
        torch.testing.assert_close(pieced, whole, rtol=1e-12, atol=1e-14)


def test_accumulation_reports_the_loss_of_the_whole_batch(make_trainer: Make) -> None:
    values = [make_trainer(accumulate=pieces).take_step()["net.square"] for pieces in (1, 3)]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_lazy_term_runs_each_kth_step_with_k_times_the_gradient(make_trainer: Make, gradients: Watch) -> None:
    net = Line(6, 2).double()
    lazy = make_trainer([Update(("net",), mean_square(net), every=4)], nets={"net": net}, steps=9)
    seen = gradients(lazy)
    before = copy.deepcopy(net)
    for step in range(9):
        lazy.take_step()
        assert len(seen) == 1 + step // 4
    once = make_trainer([Update(("net",), mean_square(before))], nets={"net": before})
    expected = gradients(once)
    once.take_step()
    for quick, plain in zip(seen[0], expected[0], strict=True):
        torch.testing.assert_close(quick, 4 * plain, rtol=1e-12, atol=0)


def test_repeat_is_so_many_optimizer_steps_on_different_data(make_trainer: Make, gradients: Watch) -> None:
    net = Line(6, 2)
    trainer = make_trainer([Update(("net",), mean_square(net), repeat=3)], nets={"net": net})
    seen = gradients(trainer)
    trainer.take_step()
    assert len(seen) == 3
    assert trainer.feed.position == 3 * 8


def test_losses_of_an_update_are_summed(make_trainer: Make, gradients: Watch) -> None:
    net = Line(6, 2).double()

    def two(batch: Batch, step: int) -> dict[str, torch.Tensor]:
        return {"weight": net.weight.sum(), "bias": 3 * net.bias.sum()}

    trainer = make_trainer([Update(("net",), two)], nets={"net": net})
    seen = gradients(trainer)
    trainer.take_step()
    assert torch.equal(seen[0][0], torch.ones(2, 6).double())
    assert torch.equal(seen[0][1], torch.full((2,), 3.0).double())


def test_only_the_networks_of_an_update_learn(make_trainer: Make) -> None:
    nets = {"net": Line(6, 6), "other": Line(6, 2)}
    before = copy.deepcopy(nets)

    def both(batch: Batch, step: int) -> dict[str, torch.Tensor]:
        return {"chain": nets["other"](nets["net"](batch.data.flatten(1))).square().mean()}

    make_trainer([Update(("net",), both)], nets=nets).take_step()
    assert not torch.equal(nets["net"].weight, before["net"].weight)
    assert torch.equal(nets["other"].weight, before["other"].weight)
    assert nets["other"].weight.grad is None


def test_clip_norm_bounds_the_norm_of_each_role(make_trainer: Make, gradients: Watch) -> None:
    nets = {"net": Line(6, 2), "other": Line(6, 2)}
    updates = [Update((role,), mean_square(net)) for role, net in nets.items()]
    trainer = make_trainer(updates, nets=nets, optim={"clip_norm": 1e-3})
    seen = {role: gradients(trainer, role) for role in nets}
    trainer.take_step()
    for role in nets:
        norm = torch.cat([each.flatten() for each in seen[role][0]]).norm()
        assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_clip_norm_leaves_small_gradients_alone(make_trainer: Make, gradients: Watch) -> None:
    seen = []
    for clip in (None, 1e6):
        trainer = make_trainer(optim={"clip_norm": clip})
        seen.append(gradients(trainer))
        trainer.take_step()
    assert all(torch.equal(one, other) for one, other in zip(seen[0][0], seen[1][0], strict=True))


def test_roles_have_their_own_rates_on_one_course() -> None:
    nets = {"generator": Line(2, 2), "discriminator": Line(2, 2)}
    node = {
        "use": "adam", "lr": 0.1, "roles": {"discriminator": {"lr": 0.4}},
        "schedule": {"use": "linear", "warmup_steps": 0, "start": 0.0, "final": 0.0},
    }  # fmt: skip
    optim = Optim(nets, node, frozen={}, steps=10, scaler=torch.amp.GradScaler("cpu", enabled=False))
    for step, factor in ((0, 1.0), (5, 0.5), (9, 0.1)):
        optim.begin(step)
        assert optim.rates() == pytest.approx({"lr.generator": 0.1 * factor, "lr.discriminator": 0.4 * factor})


# -------------------------------------------------------------------------------------------------- frozen and borrowed


def trainer_of(recipe: Recipe, folder: Path) -> Trainer:
    resolved = recipe.resolve()
    plan = Plan(resolved, parts.build("dataset", resolved["data"]), torch.device("cpu"))
    return build_trainer(plan, folder, Hooks(), fresh=True)


def test_borrowed_weights_are_those_of_the_other_run_and_frozen_ones_stay(trained_run: Path, tmp_path: Path) -> None:
    recipe = Recipe.load("tiny/digits").override(
        f"networks.generator={{from: {trained_run}, freeze: all}}",
        f"networks.discriminator={{from: {trained_run}, freeze: [blocks.0, head]}}",
        "train.steps=2", "eval=",
    )  # fmt: skip
    theirs, _ = read_tensors(trained_run / "model.safetensors")
    start = trainer_of(recipe, tmp_path)
    for role, net in start.nets.items():
        for name, tensor in net.state_dict().items():
            assert torch.equal(tensor, theirs[f"{role}.{name}"]), f"{role}.{name}"
    model = train(recipe, out=tmp_path / "run", device="cpu")
    for name, tensor in model.nets["generator"].state_dict().items():  # running statistics included
        assert torch.equal(tensor, theirs[f"generator.{name}"]), name
    for name, parameter in model.nets["discriminator"].named_parameters():
        stays = name.startswith(("blocks.0", "head"))
        assert torch.equal(parameter, theirs[f"discriminator.{name}"]) == stays, name


def test_freezing_what_is_not_there_is_told(tmp_path: Path) -> None:
    recipe = Recipe.load("tiny/digits").override("networks.generator.freeze=[blokcs]")
    with pytest.raises(BadValue, match="no parameter's name begins with 'blokcs'") as caught:
        trainer_of(recipe, tmp_path)
    assert "blocks" in caught.value.hint
    assert caught.value.where == "networks.generator.freeze"


# --------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("every", [1, 4])
def test_penalties_are_float32_whatever_the_precision(every: int) -> None:
    spec = image_spec((1, 8, 8), num_classes=10)
    torch.manual_seed(0)
    nets = {
        "generator": parts.build("network", {"use": "sngan-generator", "width": 8, "z_dim": 8}, spec),
        "discriminator": parts.build("network", {"use": "sngan-discriminator", "width": 8, "norm": "none"}, spec),
    }
    node = {
        "use": "adversarial", "objective": {"use": "hinge"},
        "regularizers": {"r1": {"use": "r1", "weight": 10.0, "every": every}},
    }  # fmt: skip
    task = parts.build("task", node, nets, Facts(spec))
    batch = Batch.labelled(torch.rand(8, 1, 8, 8) * 2 - 1, torch.arange(8))
    found = {}
    for precision in ("fp32", "bf16"):
        losses: dict[str, torch.Tensor] = {}
        for update in task.updates()[: 1 if every == 1 else 2]:
            torch.manual_seed(1)
            with autocast(torch.device("cpu"), precision):
                losses |= update.losses(batch, 0)
        found[precision] = losses
    assert found["bf16"]["r1"].dtype == torch.float32
    assert found["bf16"]["r1"].item() == pytest.approx(found["fp32"]["r1"].item(), rel=1e-6)
    assert found["bf16"]["adversarial"].item() != found["fp32"]["adversarial"].item()  # the rest did run in half
    assert found["bf16"]["adversarial"].item() == pytest.approx(found["fp32"]["adversarial"].item(), rel=0.05)


def rows_of(folder: Path, *overrides: str) -> list[dict[str, float]]:
    train("tiny/digits", "train.log_every=1", "eval=", *overrides, out=folder, device="cpu")
    return read_rows(folder / "log.jsonl")


def test_bf16_trains_close_to_float32(tmp_path: Path) -> None:
    full = rows_of(tmp_path / "full", "train.steps=3")
    half = rows_of(tmp_path / "half", "train.steps=3", "train.precision=bf16")
    for one, other in zip(full, half, strict=True):
        assert other == pytest.approx(one, abs=0.05)


def test_fp16_skips_steps_that_overflow_and_then_learns(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "train.steps=20", "train.precision=fp16")
    assert rows[-1]["discriminator.adversarial"] < rows[0]["discriminator.adversarial"] - 0.2


def test_channels_last_trains_alike(tmp_path: Path) -> None:
    plain = rows_of(tmp_path / "plain", "train.steps=3")
    last = rows_of(tmp_path / "last", "train.steps=3", "train.channels_last=true")
    for one, other in zip(plain, last, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)


# -------------------------------------------------------------------------------------------------- lazy updates


def test_a_lazy_update_can_learn_from_the_batch_of_the_update_before_it(make_trainer: Make) -> None:
    net, seen = Line(6, 2), []

    def losses(batch: Batch, step: int) -> dict[str, torch.Tensor]:
        seen.append(batch.data.clone())
        return {"loss": net(batch.data.flatten(1)).square().mean()}

    updates = [Update(("net",), losses), Update(("net",), losses, again=True), Update(("net",), losses)]
    make_trainer(updates, nets={"net": net}).take_step()
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_in_a_lazy_update_the_moments_of_every_weight_go_on(make_trainer: Make) -> None:
    net = Line(6, 2)

    def of_weight(batch: Batch, step: int) -> dict[str, torch.Tensor]:
        return {"weight": net.weight.square().sum()}

    updates = [Update(("net",), mean_square(net)), Update(("net",), of_weight, every=2)]
    trainer = make_trainer(updates, nets={"net": net}, optim={"use": "adam"})
    trainer.take_step()
    moments = trainer.optim.optimizers["net"].state
    assert {state["step"].item() for state in moments.values()} == {2.0}  # the bias has no gradient in the lazy one
    trainer.take_step()
    assert {state["step"].item() for state in moments.values()} == {3.0}


@pytest.mark.parametrize("non_finite", ["keep", "replace"])
def test_gradients_that_are_not_finite_are_replaced_where_a_recipe_says_so(non_finite: str, make_trainer: Make) -> None:
    net = Line(6, 2)
    before = net.bias.detach().clone()

    def losses(batch: Batch, step: int) -> dict[str, torch.Tensor]:
        # d sqrt(x) / dx at 0 is infinite, and 0 times it is none
        return {"loss": net(batch.data.flatten(1)).square().mean() + (0.0 * net.weight).square().sum().sqrt()}

    trainer = make_trainer([Update(("net",), losses)], nets={"net": net}, optim={"non_finite": non_finite})
    trainer.take_step()
    assert bool(net.weight.isfinite().all()) is (non_finite == "replace")
    assert net.bias.isfinite().all() and not torch.equal(net.bias, before)
