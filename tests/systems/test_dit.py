"""DiT (Peebles & Xie 2023): its sizes, what it begins with, its loss, and what guidance does for classes.

Parity with the authors' network and diffusion process at every output is in tests/parity (`dit`, `dit_diffusion`).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ganvas
from ganvas import parts
from ganvas.interop.dit import respaced
from ganvas.interop.registry import NoImporter, OfficialCase, import_network
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics.class_agreement import class_agreement
from ganvas.shelves.networks.diffusion.dit import DiT
from ganvas.training.train import train
from ganvas.types import Batch, Condition, Facts

pytestmark = pytest.mark.system("dit")

GOLDEN = Path(os.environ.get("GANVAS_GOLDEN", Path(__file__).resolve().parents[2].parent / "shared" / "golden"))
LATENTS = image_spec((4, 32, 32), num_classes=1000)
SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "XL": (1152, 28, 16)}
SMALL = image_spec((3, 8, 8), num_classes=5)


def dit(spec: object = SMALL, **keys: object) -> DiT:
    torch.manual_seed(0)
    small = {"width": 32, "depth": 2, "heads": 4} | keys
    return parts.build("network", check_node("network", {"use": "dit-denoiser", **small}), spec)


def awake(net: DiT) -> DiT:
    torch.manual_seed(1)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net


def golden(name: str) -> OfficialCase:
    file = GOLDEN / name / "a.safetensors"
    if not file.is_file():
        pytest.skip(f"no golden case {name} under {GOLDEN}; set GANVAS_GOLDEN")
    return OfficialCase.read(file)


# ------------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize(("size", "trainable"), [("S", 32_865_056), ("B", 130_315_808), ("XL", 674_834_720)])
def test_sizes_are_those_of_the_paper(size: str, trainable: int) -> None:
    width, depth, heads = SIZES[size]
    with torch.device("meta"):
        net = dit(LATENTS, width=width, depth=depth, heads=heads, learned_sigma=True)
    assert sum(each.numel() for each in net.parameters()) == trainable
    table = net.positions.numel()
    assert table == 256 * width
    if size == "XL":
        assert trainable + table == 675_129_632


def test_at_first_its_output_is_zero_and_each_block_passes_its_tokens_on() -> None:
    net = dit(learned_sigma=True)
    x, level, label = torch.randn(3, 3, 8, 8), torch.tensor([0.0, 500, 999]), torch.tensor([0, 4, 5])
    assert torch.equal(net(x, level, label), torch.zeros(3, 6, 8, 8))
    tokens, vector = torch.randn(3, 16, 32), torch.randn(3, 32)
    for block in net.blocks:
        assert torch.equal(block(tokens, vector), tokens)


def test_forward_is_the_official_one_on_the_same_weights() -> None:
    case = golden("dit")
    outputs = import_network(case).run(case.inputs)
    for name in ("out", "cfg_out"):
        assert (outputs[name] - case.outputs[name]).abs().max() <= 1e-5 * case.outputs[name].std()


def test_losses_are_the_official_terms_and_learned_variance_takes_no_part_in_the_mean() -> None:
    case = golden("dit_diffusion")
    outputs = import_network(case).run(case.inputs)
    for name in (name for name in case.outputs if ".loss_" in name):
        torch.testing.assert_close(outputs[name], case.outputs[name], rtol=1e-5, atol=1e-5)


def test_positions_differ_and_rows_and_columns_are_told_apart() -> None:
    net = dit(image_spec((1, 8, 16)))
    grid = net.positions.view(4, 8, 32)
    assert torch.equal(grid[0, 3, :16], grid[2, 3, :16])  # the first half says the column
    assert torch.equal(grid[1, 0, 16:], grid[1, 7, 16:])  # the second the row
    assert len(net.positions[0].unique(dim=0)) == 32


def test_no_label_is_the_null_class() -> None:
    net = awake(dit())
    x, level = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 700.0])
    nothing = net.without(Condition(label=torch.tensor([1, 2])))
    assert nothing["label"].tolist() == [5, 5]
    assert torch.equal(net(x, level), net(x, level, nothing["label"]))
    assert not torch.equal(net(x, level), net(x, level, torch.tensor([1, 2])))


def test_without_a_null_class_dropout_and_guidance_are_refused() -> None:
    net = dit(null_class=False)
    assert net.label_embedding.num_embeddings == 5
    with pytest.raises(ganvas.errors.BadValue, match="lack of 'label'"):
        parts.build("task", {"use": "denoise", "path": {"use": "linear-ddpm"}, "condition_dropout": 0.1},
                    {"denoiser": net}, Facts(SMALL))  # fmt: skip
    recipe = {"task": {"use": "denoise", "path": {"use": "linear-ddpm"}}}
    model = ganvas.Model(recipe, SMALL, {"denoiser": net})
    with pytest.raises(ganvas.errors.UsageError, match="no null class"):
        model.sample(1, sampler={"use": "ddim", "steps": 2, "guidance": 2})


@pytest.mark.parametrize("keys", [{"width": 30, "heads": 3}, {"heads": 5}, {"patch": 3}, {"frequencies": 7}])
def test_sizes_that_cannot_be_are_refused_with_a_hint(keys: dict[str, int]) -> None:
    with pytest.raises(ganvas.errors.BadValue) as refused:
        dit(**keys)
    assert refused.value.hint


# ------------------------------------------------------------------------------------------- training


def test_dropout_replaces_all_conditions_of_some_data() -> None:
    net = awake(dit())
    task = parts.build(
        "task", {"use": "denoise", "path": {"use": "linear-ddpm"}, "condition_dropout": 0.25},
        {"denoiser": net}, Facts(SMALL),
    )  # fmt: skip
    torch.manual_seed(2)
    label = torch.randint(5, (4000,))
    after = task.dropped(Condition(label=label))["label"]
    lost = after == 5
    assert torch.equal(after[~lost], label[~lost])
    assert 0.22 < lost.float().mean() < 0.28


def test_learned_variance_must_be_agreed_on() -> None:
    with pytest.raises(ganvas.errors.BadValue, match="reads 2 predictions"):
        parts.build("task", {"use": "denoise", "path": {"use": "linear-ddpm", "learned_sigma": True}},
                    {"denoiser": dit()}, Facts(SMALL))  # fmt: skip


def test_the_bound_teaches_the_variance_alone() -> None:
    path = parts.build("path", {"use": "linear-ddpm", "learned_sigma": True})
    torch.manual_seed(3)
    x, noise, prediction = torch.rand(4, 3, 8, 8) * 2 - 1, torch.randn(4, 3, 8, 8), torch.randn(4, 6, 8, 8)
    level = torch.tensor([0.0, 1.0, 500.0, 999.0])
    prediction.requires_grad_()
    path.losses(prediction, x, noise, path.noisy(x, noise, level), level)["bound"].backward()
    assert not prediction.grad[:, :3].any()
    assert prediction.grad[:, 3:].flatten(1).any(1).all()


def test_a_step_of_training_lowers_the_loss() -> None:
    net = dit(learned_sigma=True)
    node = {"use": "denoise", "path": {"use": "cosine-ddpm", "learned_sigma": True}, "condition_dropout": 0.1}
    (update,) = parts.build("task", node, {"denoiser": net}, Facts(SMALL)).updates()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0)
    torch.manual_seed(4)
    batch = Batch.labelled(torch.rand(32, 3, 8, 8) * 2 - 1, torch.randint(5, (32,)))

    def loss() -> Tensor:
        return torch.stack(list(update.losses(batch, 0).values())).sum()

    first = loss().item()
    for _ in range(30):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.9 * first


# ------------------------------------------------------------------------------------------- the official process


def test_respacing_keeps_the_timesteps_that_the_official_code_keeps() -> None:
    assert respaced(1000, "") == list(range(1000))
    assert respaced(1000, "10") == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    assert respaced(1000, "ddim50") == list(range(0, 1000, 20))
    assert respaced(300, "10,15,20")[:11] == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99, 100]
    path = parts.build("path", {"use": "linear-ddpm"})
    for count in (2, 3, 7, 50, 250):
        assert path.levels(count).tolist() == [*reversed(respaced(1000, str(count))), -1]
    with pytest.raises(NoImporter):
        respaced(1000, "ddim600")


def test_official_arguments_that_are_not_understood_are_refused_by_name() -> None:
    case = OfficialCase("models.DiT", "facebookresearch/DiT", {"qk_norm": True}, {})
    with pytest.raises(NoImporter, match="qk_norm"):
        import_network(case)
    process = OfficialCase("diffusion.create_diffusion", "facebookresearch/DiT", {"a": {"use_kl": True}}, {})
    with pytest.raises(NoImporter, match="use_kl"):
        import_network(process)


# ------------------------------------------------------------------------------------------- the toy claim


@pytest.mark.slow
def test_guidance_makes_classes_clearer_on_digits(tmp_path: Path) -> None:
    """The catalogue's toy: of 200 samples at least 80 % are read as asked for at guidance 2, more than at 1."""
    model = train("dit-digits", "eval=~", out=tmp_path / "run", device="cpu")
    extractor = parts.build("extractor", check_node("extractor", "digit-net"))
    label = torch.arange(200) % 10
    found = {}
    for guidance in (1.0, 2.0):
        made = model.sample(200, seed=0, label=label, sampler={"use": "ddim", "steps": 20, "guidance": guidance})
        logits = extractor(made)[1]
        found[guidance] = class_agreement(logits.numpy(), label.numpy())
    assert found[2.0] >= 0.8, found
    assert found[2.0] > found[1.0], found
