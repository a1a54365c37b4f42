"""MaskGIT (Chang et al. 2022): its mask schedules, its decoding, its task, and how good eight steps are on digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ganvas import parts
from ganvas.engine.build import build_networks, build_task
from ganvas.errors import BadValue, MissingCapability
from ganvas.interop.registry import NoImporter, OfficialCase, import_network
from ganvas.model import Model
from ganvas.nn.masking import (
    SCHEDULES,
    Order,
    Predict,
    ScheduleName,
    flat,
    halton_order,
    masked_decode,
    masked_share,
    masks_of_shares,
    still_masked,
)
from ganvas.parts import data_spec, image_spec
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.types import Condition, DataSpec, Facts, Network, Task, label_of

pytestmark = pytest.mark.system("maskgit")

MASK, CODES, LENGTH = 4, 4, 64
SPEC = image_spec((1, 8, 8), 10)
TRANSFORMER = {"vocabulary": CODES, "length": LENGTH, "width": 16, "depth": 1, "heads": 2, "mlp_width": 16}

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)


def network(use: str, spec: DataSpec = SPEC, **keys: Any) -> Any:
    torch.manual_seed(0)
    return parts.build("network", check_node("network", {"use": use, **keys}), spec)


def awake(net: Network) -> Network:
    """With blocks that are no identities, as after training."""
    torch.manual_seed(1)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


def model(sampler: dict[str, Any] | None = None) -> Model:
    nets = {
        "transformer": awake(network("maskgit-transformer", **TRANSFORMER)),
        "tokenizer": network("grey-levels-tokenizer"),
    }
    return Model({"sampler": check_node("sampler", sampler or {"use": "masked-decoding"})}, SPEC, nets)


def decode(
    predict: Predict, *, keep: Tensor | None = None, tokens: Tensor | None = None, n: int = 3, **keys: Any
) -> Tensor:
    tokens = torch.zeros(n, LENGTH, dtype=torch.int64) if tokens is None else tokens
    keep = torch.zeros_like(tokens, dtype=torch.bool) if keep is None else keep
    return masked_decode(predict, tokens, keep, mask=MASK, rng=torch.Generator().manual_seed(0), **keys)


def guess(tokens: Tensor, done: float) -> Tensor:
    """Logits that look at the tokens, and at their own place."""
    seen = torch.nn.functional.one_hot(tokens, CODES + 1).float().mean(1, keepdim=True)  # (N, 1, 5)
    return torch.sin(3 * seen[..., :CODES] + torch.arange(tokens.shape[1])[:, None] + torch.arange(CODES))


# ------------------------------------------------------------------------------------------------- schedules


@every_schedule
@pytest.mark.parametrize("length", [2, 64, 1024])
def test_everything_is_masked_at_first_and_nothing_at_the_end(schedule: ScheduleName, length: int) -> None:
    share = masked_share(schedule, torch.linspace(0, 1, 101), length)
    assert share[0] == 1
    assert share[-1] == 0
    assert (share.diff() <= 0).all()


@every_schedule
@pytest.mark.parametrize("steps", [1, 2, 8, 63, 64])
def test_strictly_fewer_tokens_are_masked_after_each_step_and_none_at_the_end(
    schedule: ScheduleName, steps: int
) -> None:
    counts: list[int] = []
    decode(guess, steps=steps, schedule=schedule, watch=lambda masked: counts.append(int(masked.sum(1).unique())))
    assert len(counts) == steps
    assert all(after < before for before, after in zip([LENGTH, *counts], counts, strict=False))
    assert counts[-1] == 0
    assert counts == still_masked(LENGTH, steps, schedule)


def test_counts_are_the_papers_where_they_fall_strictly() -> None:
    gamma = [np.cos(np.pi / 2 * t / 8) for t in range(1, 9)]
    assert still_masked(64, 8, "cosine") == [int(np.ceil(64 * g - 1e-9)) for g in gamma]


def test_training_masks_the_rounded_share_of_each_datum() -> None:
    share = torch.tensor([0.0, 0.01, 0.5, 1.0])
    assert masks_of_shares(share, LENGTH).sum(1).tolist() == [1, 1, 32, 64]  # at least one, or there is no loss


def test_the_halton_order_visits_each_place_once_and_spreads() -> None:
    order = halton_order((8, 8))
    assert sorted(flat(order, (8, 8)).tolist()) == list(range(64))
    first = order[:16]
    quarters = {(int(y) // 4, int(x) // 4) for y, x in first[:4]}
    assert len(quarters) >= 3
    assert len({(int(y) // 2, int(x) // 2) for y, x in first}) >= 12  # of 16 blocks of four
    assert sorted(map(tuple, halton_order((2, 3, 4)).tolist())) == [
        (a, b, c) for a in range(2) for b in range(3) for c in range(4)
    ]


# ------------------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize("order", ["confidence", "random", "halton"])
def test_known_tokens_are_never_altered_and_the_rest_is_filled(order: Order) -> None:
    tokens = torch.randint(CODES, (5, LENGTH))
    keep = torch.rand(5, LENGTH) < torch.tensor([0.0, 0.2, 0.5, 0.95, 1.0])[:, None]
    numbers = flat(halton_order((8, 8)), (8, 8)) if order == "halton" else order

    def watched(seen: Tensor, done: float) -> Tensor:
        assert torch.equal(seen[keep], tokens[keep])
        return guess(seen, done)

    for steps in (1, 4, 64):
        filled = decode(watched, tokens=tokens, keep=keep, steps=steps, order=numbers)
        assert torch.equal(filled[keep], tokens[keep])
        assert filled.max() < CODES


def test_what_is_not_kept_is_not_looked_at() -> None:
    tokens, keep = torch.randint(CODES, (2, LENGTH)), torch.rand(2, LENGTH) < 0.5
    other = torch.where(keep, tokens, (tokens + 1) % CODES)
    assert torch.equal(*(decode(guess, tokens=each, keep=keep, steps=4) for each in (tokens, other)))


@pytest.mark.parametrize("steps", [1, 3, 8, 64, 200])
def test_an_oracle_gives_its_grid_whatever_the_number_of_steps(steps: int) -> None:
    grid = torch.randint(CODES, (3, LENGTH))
    sure = torch.nn.functional.one_hot(grid, CODES) * 1e4
    assert torch.equal(decode(lambda tokens, done: sure, steps=steps), grid)


def test_as_many_steps_as_tokens_draw_one_at_a_time_from_what_is_known_in_any_order() -> None:
    orders = []
    for order in ("confidence", "random"):
        masks: list[Tensor] = []
        seen: list[Tensor] = []

        def watched(tokens: Tensor, done: float, seen: list[Tensor] = seen) -> Tensor:
            seen.append(tokens)
            return guess(tokens, done)

        filled = decode(watched, steps=LENGTH, order=order, watch=masks.append)
        assert [int(mask.sum()) for mask in masks] == [3 * left for left in range(LENGTH - 1, -1, -1)]
        for tokens, mask in zip(seen[1:], masks, strict=False):  # what is asked about next holds all that is drawn
            assert torch.equal(tokens == MASK, mask)
            assert torch.equal(tokens[~mask], filled[~mask])
        before = [torch.ones_like(masks[0]), *masks[:-1]]
        orders.append(torch.stack([(a & ~b).int().argmax(1) for a, b in zip(before, masks, strict=True)]))
    assert not torch.equal(*orders)
    assert not torch.equal(orders[1][:, 0], orders[1][:, 1])  # each datum has its own


def test_one_at_a_time_it_draws_from_the_joint_distribution() -> None:
    """Two tokens that are equal, of which 0 is likelier: p(0, 0) = 0.7, p(1, 1) = 0.3."""

    def pair(tokens: Tensor, done: float) -> Tensor:
        other = tokens.flip(1)
        known = torch.nn.functional.one_hot(other.clamp_max(1), 2) * 50.0
        return torch.where((other == MASK)[..., None], torch.tensor([0.7, 0.3]).log(), known)

    n = 4000
    drawn = masked_decode(
        pair, torch.zeros(n, 2, dtype=torch.int64), torch.zeros(n, 2, dtype=torch.bool), mask=MASK, steps=2,
        order="random", rng=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    assert abs((drawn[:, 0] == 0).float().mean() - 0.7) < 4 * (0.21 / n) ** 0.5


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.randn(3, LENGTH, CODES)
    assert torch.equal(decode(lambda tokens, done: logits, steps=5, temperature=0.0), logits.argmax(-1))


# ------------------------------------------------------------------------------------------------- the sampler


def test_samples_are_the_same_within_more_of_them_and_in_any_batch() -> None:
    net = model()
    some = net.sample(5, seed=3, label=2)
    assert torch.equal(net.sample(70, seed=3, label=2)[:5], some)
    assert torch.equal(net.sample(5, seed=3, label=2, batch=2), some)
    assert not torch.equal(net.sample(5, seed=4, label=2), some)
    assert {round(level, 4) for level in some.unique().tolist()} <= {-1.0, -0.3333, 0.3333, 1.0}


def test_guidance_moves_the_logits_away_from_those_of_no_class() -> None:
    net = model().nets["transformer"]
    tokens, label = torch.randint(CODES + 1, (3, LENGTH)), torch.tensor([1, 5, 9])
    known, unknown = net(tokens, label), net(tokens)
    assert torch.equal(net(tokens, torch.full((3,), 10)), unknown)  # the number after the last class is no class
    assert not torch.allclose(known, unknown)

    def logits(done: float, **keys: Any) -> Tensor:
        sampler = parts.build("sampler", check_node("sampler", {"use": "masked-decoding", "steps": 5, **keys}))
        return sampler.logits(net, tokens, Condition(label=label), done)

    assert torch.equal(logits(0.4), known)
    assert torch.allclose(logits(0.4, guidance=3.0), unknown + 3 * (known - unknown), atol=1e-5)
    assert torch.allclose(logits(0.0, guidance=3.0, guidance_rises=True), known, atol=1e-5)
    assert torch.allclose(logits(0.4, guidance=3.0, guidance_rises=True), unknown + 2 * (known - unknown), atol=1e-5)
    assert torch.allclose(logits(0.8, guidance=3.0, guidance_rises=True), unknown + 3 * (known - unknown), atol=1e-5)


@pytest.mark.parametrize("outside", [False, True])
def test_inpainting_keeps_every_token_that_it_is_not_asked_for(outside: bool) -> None:
    net = model()
    node = {"use": "masked-inpainting", "first": [0.25, 0.5], "last": [0.75, 1.0], "outside": outside}
    data = SPEC.modality.draw(6, SPEC.shape, torch.Generator().manual_seed(0))
    assert net.wanted(node) == {"label": False, "data": True}
    made = net.sample(6, sampler=node, condition={"data": data}, label=3)
    changed = net.encode(made).values != net.encode(data).values
    part = torch.zeros(8, 8, dtype=torch.bool)
    part[2:6, 4:] = True
    wanted = ~part if outside else part
    assert not changed[:, ~wanted].any()
    assert changed[:, wanted].any()


def test_data_that_are_tokens_need_no_tokenizer() -> None:
    spec = data_spec({"use": "text", "vocabulary": list("abcdefg")}, (12,), label_of(3))
    net = awake(network("maskgit-transformer", spec, width=16, depth=1, heads=2, mlp_width=16))
    sampler = check_node("sampler", "masked-decoding")
    made = Model({"sampler": sampler}, spec, {"transformer": net}).sample(4)
    assert made.shape == (4, 12)
    assert made.dtype == torch.int64
    assert made.max() < 7
    (update,) = task({"transformer": net}, spec).updates()
    assert update.losses(spec.stand_in(4), 0)["cross_entropy"].isfinite()


def test_a_model_without_masks_is_refused_by_name() -> None:
    net = Model({"sampler": {"use": "masked-decoding"}}, SPEC, {"generator": network("sngan-generator", width=8)})
    with pytest.raises(MissingCapability, match="masked tokens"):
        net.sample(1)


# ------------------------------------------------------------------------------------------------- the task


def task(nets: dict[str, Network], spec: DataSpec = SPEC, **keys: Any) -> Task:
    built: Task = parts.build("task", check_node("task", {"use": "masked-tokens", **keys}), nets, Facts(spec))
    return built


def test_the_loss_is_the_cross_entropy_of_masked_tokens_alone() -> None:
    net, seen = network("maskgit-transformer", **TRANSFORMER), []
    net.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    tokenizer = network("grey-levels-tokenizer")
    (update,) = task({"transformer": net, "tokenizer": tokenizer}, label_smoothing=0.0, condition_dropout=0.0).updates()
    batch = SPEC.stand_in(16, torch.Generator().manual_seed(0))
    loss = update.losses(batch, 0)["cross_entropy"]
    tokens = tokenizer.encode(batch.data).flatten(1)
    ((given, logits),) = seen
    masked = given == MASK
    assert torch.equal(given[~masked], tokens[~masked])
    surprise = -logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    assert loss.item() == pytest.approx(surprise[masked].mean().item(), rel=1e-5)
    assert masked.sum(1).float().std() > 5  # each datum has its own share


def test_some_labels_are_dropped() -> None:
    net = network("maskgit-transformer", **TRANSFORMER)
    whole = task({"transformer": net, "tokenizer": network("grey-levels-tokenizer")}, condition_dropout=0.25)
    label = torch.arange(4000) % 10
    dropped = whole.dropped(Condition(label=label)).label
    lost = dropped == 10
    assert torch.equal(dropped[~lost], label[~lost])
    assert abs(lost.float().mean() - 0.25) < 0.03


@pytest.mark.parametrize(("key", "value"), [("vocabulary", 7), ("length", 16)])
def test_a_transformer_of_other_tokens_is_refused_with_what_to_type(key: str, value: int) -> None:
    recipe = Recipe.load("tiny/digits-maskgit").override(f"networks.transformer.{key}={value}")
    spec = parts.build("dataset", recipe.resolve()["data"]).spec

    def build(recipe: Recipe) -> Task:
        resolved = recipe.resolve()
        return build_task(resolved, build_networks(resolved, spec, pretrained=False)[0], Facts(spec))

    with pytest.raises(BadValue) as caught:
        build(recipe)
    assert caught.value.where == f"networks.transformer.{key}"
    build(recipe.override(caught.value.hint))


# ------------------------------------------------------------------------------------------------- the official one


@pytest.mark.parametrize(("keys", "named"), [({"proj": 2}, "proj=2"), ({"context": 3}, "context")])
def test_official_options_that_are_not_understood_are_refused_by_name(keys: dict[str, Any], named: str) -> None:
    case = OfficialCase(cls="Network.transformer.Transformer", repo="valeoai/Maskgit-pytorch", kwargs=keys, state={})
    with pytest.raises(NoImporter, match=named):
        import_network(case)


# ------------------------------------------------------------------------------------------------- the toy claim

SIZES = {"vocabulary": CODES, "length": LENGTH, "width": 64, "heads": 4, "dropout": 0.1}
GREY = {"use": "grey-levels-tokenizer", "levels": CODES}
DIGITS = {"use": "digits", "split": "train"}
IN_ANY_ORDER = {
    "data": DIGITS,
    "networks": {
        "transformer": {"use": "maskgit-transformer", "depth": 3, "mlp_width": 128, **SIZES},
        "tokenizer": GREY,
    },
    "task": "masked-tokens",
}
IN_RASTER_ORDER = {
    "data": DIGITS,
    "networks": {"model": {"use": "character-transformer", "depth": 4, **SIZES}, "tokenizer": GREY},
    "task": {"use": "next-token", "condition_dropout": 0.1},
}


def taught(recipe: dict[str, Any], steps: int, seed: int = 0) -> tuple[Model, int]:
    """The average of the model's weights over a short training on 64 digits a step, and how many weights it has."""
    torch.manual_seed(seed)
    resolved = Recipe(recipe).resolve()
    dataset = parts.build("dataset", resolved["data"])
    nets, _ = build_networks(resolved, dataset.spec, pretrained=False)
    (update,) = build_task(resolved, nets, Facts(dataset.spec)).updates()
    net = nets[update.nets[0]]
    whole = dataset.batch(np.arange(len(dataset)), np.random.default_rng(0))
    optim = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.96), weight_decay=0.03)
    average = {name: value.clone() for name, value in net.state_dict().items()}
    for step in range(steps):
        optim.param_groups[0]["lr"] = 0.002 * min(1, step / 50) * (1 - step / steps)
        rows = torch.randint(len(dataset), (64,))
        optim.zero_grad()
        sum(update.losses(whole.map(lambda value, rows=rows: value[rows]), step).values()).backward()
        optim.step()
        for name, value in net.state_dict().items():
            average[name].lerp_(value, 0.02)
    net.load_state_dict(average)
    return Model(resolved, dataset.spec, nets), sum(each.numel() for each in net.parameters())


@pytest.mark.slow
def test_eight_steps_on_digits_are_as_good_as_sixty_four_of_an_autoregressive_model_of_its_size(
    claim: Callable[..., None],
) -> None:
    """On digits of 64 tokens, the class accuracy of 8 steps is within 5 points of raster sampling from an equal size.

    The accuracy is that of the digit net on 500 samples, after equally many training steps of both.
    """
    label = torch.arange(500) % 10
    extractor = parts.build("extractor", check_node("extractor", "digit-net"))
    found, sizes = {}, {}
    for name, recipe, sampler in (
        ("masked", IN_ANY_ORDER, {"use": "masked-decoding", "steps": 8, "choice_temperature": 1.0}),
        ("raster", IN_RASTER_ORDER, {"use": "autoregressive"}),
    ):
        made, sizes[name] = taught(recipe, steps=400)
        data = made.sample(500, seed=0, label=label, sampler=sampler)
        found[name] = (extractor(data)[1].argmax(1) == label).double().mean().item()
    claim({"accuracy": found, "weights": sizes})
    assert 0.9 < sizes["masked"] / sizes["raster"] < 1.1
    assert found["masked"] >= found["raster"] - 0.05
    assert found["masked"] >= 0.85
