"""The VQ tokenizer (Esser et al. 2021): its codebook, its losses, what a run of it shows, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas import parts
from ganvas.errors import BadValue, UsageError
from ganvas.evaluation.judge import judge_for
from ganvas.evaluation.protocol import load_protocol
from ganvas.interop.registry import NoImporter, OfficialCase, import_network
from ganvas.model import Model
from ganvas.parts import data_spec, image_spec
from ganvas.recipe.check import check_node
from ganvas.report.sheets import interleaved
from ganvas.training.session import sample_grid
from ganvas.types import Autoencoder, Batch, DataSpec, Facts, Network, Reconstruction, Task

SPEC = image_spec((1, 8, 8))
SMALL: dict[str, Any] = {
    "width": 8, "groups": 4, "multipliers": [1, 2], "blocks": 1, "attention": [4], "latent_width": 8, "vocabulary": 16,
    "code_dim": 4,
}  # fmt: skip


def network(use: str, spec: DataSpec = SPEC, **keys: Any) -> Any:
    torch.manual_seed(0)
    return parts.build("network", check_node("network", {"use": use, **keys}), spec)


def images(n: int = 6, spec: DataSpec = SPEC) -> Tensor:
    return spec.modality.draw(n, spec.shape, torch.Generator().manual_seed(1))


def reconstruct(nets: dict[str, Network], spec: DataSpec = SPEC, **keys: Any) -> Task:
    task: Task = parts.build("task", check_node("task", {"use": "reconstruct", **keys}), nets, Facts(spec))
    return task


# ------------------------------------------------------------------------------------------------- the codebook


def test_every_vector_gets_the_nearest_code() -> None:
    book = network("vqgan-tokenizer", **SMALL).codebook
    z = torch.randn(5, 4, 3, 2)
    codes, tokens, _ = book(z)
    distance = torch.cdist(z.movedim(1, -1).reshape(-1, 4), book.embedding.weight)
    assert torch.equal(tokens.flatten(), distance.argmin(1))
    assert torch.allclose(codes, book.lookup(tokens), atol=1e-6)


def test_gradients_go_straight_through_and_the_losses_draw_each_side_to_the_other() -> None:
    book = network("vqgan-tokenizer", **SMALL, beta=0.5).codebook
    z = torch.randn(5, 4, 3, 2, requires_grad=True)
    pull = torch.randn(5, 4, 3, 2)
    codes, tokens, losses = book(z)
    ((codes * pull).sum() + sum(losses.values())).backward()
    gap = (z - book.lookup(tokens)).detach()
    assert torch.allclose(z.grad, pull + 0.5 * 2 * gap / gap.numel(), atol=1e-6)  # beta weighs the commitment
    expected = torch.zeros_like(book.embedding.weight)
    expected.index_add_(0, tokens.flatten(), (-2 * gap / gap.numel()).movedim(1, -1).reshape(-1, 4))
    assert torch.allclose(book.embedding.weight.grad, expected, atol=1e-6)


def test_legacy_puts_beta_on_the_other_loss() -> None:
    now, then = (network("vqgan-tokenizer", **SMALL, beta=0.25, legacy=legacy).codebook for legacy in (False, True))
    z = torch.randn(5, 4, 3, 2)
    losses, old = now(z)[2], then(z)[2]
    assert old["codebook"].item() == pytest.approx(0.25 * losses["codebook"].item())
    assert losses["commitment"].item() == pytest.approx(0.25 * old["commitment"].item())


# ------------------------------------------------------------------------------------------------- the network


def test_decoding_the_tokens_is_the_reconstruction() -> None:
    net = network("vqgan-tokenizer", **SMALL).eval()
    made = net(images())
    assert made.tokens.shape == (6, *net.token_shape) == (6, 4, 4)
    assert torch.equal(net.encode(images()), made.tokens)
    assert torch.allclose(net.decode(made.tokens), made.data, atol=1e-5)


def test_images_need_not_be_square() -> None:
    spec = image_spec((3, 16, 32))
    net = network("vqgan-tokenizer", spec, **{**SMALL, "attention": [16]})
    assert net.token_shape == (8, 16)
    assert [bool(len(level.attention)) for level in net.encoder.levels] == [True, False]
    assert net(images(2, spec)).data.shape == (2, 3, 16, 32)


@pytest.mark.parametrize(
    ("keys", "hint"),
    [({"multipliers": [1, 1, 1, 1, 1]}, "multipliers=[1, 1, 1, 1]"), ({"groups": 3}, "groups=2")],
)
def test_sizes_that_do_not_fit_are_refused_with_ones_that_do(keys: dict[str, Any], hint: str) -> None:
    with pytest.raises(BadValue) as caught:
        network("vqgan-tokenizer", **{**SMALL, **keys})
    assert caught.value.hint == hint
    name, _, value = hint.partition("=")
    network("vqgan-tokenizer", **{**SMALL, name: [1, 1, 1, 1] if value.startswith("[") else int(value)})


def test_grey_levels_keep_what_lies_on_them_and_round_the_rest() -> None:
    net = network("grey-levels-tokenizer")
    on = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0]).repeat(16).view(1, 1, 8, 8)
    assert torch.equal(net.encode(on).flatten()[:4], torch.arange(4))
    assert torch.allclose(net.decode(net.encode(on)), on)
    assert (net(images()).data - images()).abs().max() <= 1 / 3
    assert net.token_shape == (8, 8)


# ------------------------------------------------------------------------------------------------- the task


class Affine(Autoencoder):
    """Data times a weight: of any shape, with nothing but its call."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    @property
    def last_weight(self) -> nn.Parameter:
        return self.weight

    def forward(self, data: Tensor) -> Reconstruction:
        return Reconstruction(self.weight * data, losses={"own": 0.1 * self.weight**2})


def test_losses_are_the_weighted_differences_and_the_networks_own() -> None:
    task = reconstruct({"tokenizer": Affine()}, l1=2.0, l2=3.0)
    x = images()
    (update,) = task.updates()
    losses = update.losses(Batch(x), 0)
    assert losses["l1"].item() == pytest.approx(2 * F.l1_loss(0.5 * x, x).item())
    assert losses["l2"].item() == pytest.approx(3 * F.mse_loss(0.5 * x, x).item())
    assert losses["own"].item() == pytest.approx(0.025)


def test_the_adaptive_weight_makes_both_losses_pull_alike() -> None:
    net = Affine()
    critic = network("sngan-discriminator", width=8)
    task = reconstruct({"tokenizer": net, "discriminator": critic}, adversarial_weight=1.0)
    losses = task.updates()[0].losses(Batch(images()), 0)
    slopes = [torch.autograd.grad(losses[name], net.weight, retain_graph=True)[0] for name in ("l1", "adversarial")]
    assert slopes[1].abs().item() == pytest.approx(slopes[0].abs().item(), rel=0.02)


def test_the_critic_is_seen_from_its_step_on_and_learns_before() -> None:
    nets = {"tokenizer": network("vqgan-tokenizer", **SMALL), "discriminator": network("sngan-discriminator", width=8)}
    task = reconstruct(nets, start=3)
    ours, critics = task.updates()
    assert "adversarial" not in ours.losses(Batch(images()), 2)
    assert "adversarial" in ours.losses(Batch(images()), 3)
    critics.losses(Batch(images()), 0)["adversarial"].backward()
    assert all(parameter.grad is None for parameter in nets["tokenizer"].parameters())
    assert any(parameter.grad.any() for parameter in nets["discriminator"].parameters())


@pytest.mark.parametrize(
    ("keys", "named"),
    [({"l1": 0}, "l1"), ({"perceptual": "random-net"}, "perceptual"), ({"objective": "by-head"}, "objective")],
)
def test_a_task_that_teaches_nothing_is_refused(keys: dict[str, Any], named: str) -> None:
    nets = {"tokenizer": Affine(), "discriminator": network("sngan-discriminator", width=8)}
    with pytest.raises(BadValue) as caught:
        reconstruct(nets, **keys)
    assert caught.value.key == named


# ------------------------------------------------------------------------------------------------- what a run shows


def test_a_model_of_any_data_gives_them_back() -> None:
    spec = data_spec("plane", (2,))
    model = Model({"sampler": {"use": "reconstruction"}}, spec, {"tokenizer": Affine()})
    x = images(5, spec)
    assert model.reads == ("data",)
    assert torch.allclose(model.sample(5, condition={"data": x}), 0.5 * x)
    with pytest.raises(UsageError, match="makes data of a 'data'"):
        model.sample(5)


def test_a_picture_shows_originals_above_their_reconstructions() -> None:
    above, below = torch.arange(4), torch.arange(4) + 10
    assert interleaved([above, below], 2).tolist() == [0, 1, 10, 11, 2, 3, 12, 13]
    model = Model({"sampler": {"use": "reconstruction"}}, SPEC, {"tokenizer": Affine()})
    batch = Batch(torch.ones(6, 1, 8, 8))
    sheet = np.asarray(sample_grid(model, seed=0, like=batch).convert("L"))
    assert sheet[13, 0] == 255  # an original, below the line that says so
    assert sheet[-1, -1] == round((0.5 + 1) / 2 * 255)  # what is made of it


def test_reconstructions_are_scored_each_against_its_own() -> None:
    model = Model({"sampler": {"use": "reconstruction"}}, image_spec((1, 8, 8), 10), {"tokenizer": Affine()})
    whole = load_protocol("digits-reconstruction")
    protocol = {**whole, "metrics": {"psnr": whole["metrics"]["psnr"]}}
    (row,) = judge_for(protocol, None).score_model(model)
    data = (
        parts.build("dataset", {"use": "digits", "split": "test"}).batch(np.arange(500), np.random.default_rng(0)).data
    )
    rounded = model.spec.modality.rounded
    error = (rounded(0.5 * data).double() - rounded(data).double()).square().flatten(1).mean(1)
    assert row["value"] == pytest.approx((10 * (255**2 / error).log10()).mean().item(), abs=1e-4)
    assert row["n_fake"] == row["n_real"] == 500
    assert row["low"] < row["value"] < row["high"]


# ------------------------------------------------------------------------------------------------- the official one


@pytest.mark.parametrize(
    ("kwargs", "config", "named"),
    [
        ({}, {"double_z": True}, "double_z"), ({}, {"give_pre_end": True}, "give_pre_end"),
        ({}, {"tanh_out": True}, "tanh_out"), ({"remap": "used.npy"}, {}, "remap"),
        ({"colorize_nlabels": 3}, {}, "colorize"), ({}, {"out_ch": 1}, "out_ch"),
    ],
)  # fmt: skip
def test_official_options_that_are_not_understood_are_refused_by_name(
    kwargs: dict[str, Any], config: dict[str, Any], named: str
) -> None:
    whole = {
        "double_z": False, "z_channels": 8, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [16], "dropout": 0.0, **config,
    }  # fmt: skip
    case = OfficialCase(
        cls="taming.models.vqgan.VQModel",
        repo="CompVis/taming-transformers",
        kwargs={"ddconfig": whole, **kwargs},
        state={},
    )
    with pytest.raises(NoImporter, match=named):
        import_network(case)
