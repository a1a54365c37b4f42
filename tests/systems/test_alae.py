"""ALAE (Pidhorskyi et al. 2020): its three steps, the encoder that reads styles, and what a toy of digits learns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas import load, parts
from ganvas.engine.build import Plan, build_networks, build_task, build_trainer
from ganvas.engine.trainer import Hooks
from ganvas.errors import BadValue, DataError, MissingCapability
from ganvas.model import HasCritic, HasEncoder, HasLatents, Model
from ganvas.parts import image_spec
from ganvas.recipe.recipe import Recipe
from ganvas.shelves.networks.style.alae import ALAEEncoder, StyleReader
from ganvas.shelves.tasks.alae import ALAE
from ganvas.training.train import train
from ganvas.types import Batch, Facts, Latent

pytestmark = pytest.mark.system("alae")

SPEC = image_spec((1, 8, 8), num_classes=10)
MLP = "tiny/digits-alae"
STYLE = (
    "networks.generator={use: stylegan2-generator, z_dim: 8, w_dim: 16, channel_base: 128, channel_max: 16}",
    "networks.encoder={use: alae-encoder, w_dim: 16, channel_base: 128, channel_max: 16}",
)


def set_up(*overrides: str) -> tuple[ALAE, dict[str, nn.Module]]:
    resolved = Recipe.load(MLP).override(*overrides).resolve()
    nets, _ = build_networks(resolved, SPEC, pretrained=False)
    return build_task(resolved, nets, Facts(SPEC)), nets


def images(n: int = 6, seed: int = 1) -> Tensor:
    return torch.rand(n, *SPEC.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --------------------------------------------------------------------------------------------- the three steps


def hashes(nets: Mapping[str, nn.Module]) -> dict[str, str]:
    """One of all parameters of F, G, E and D each."""
    mapping = {name for name, _ in nets["generator"].named_parameters() if name.startswith("mapping.")}
    assert mapping
    groups: dict[str, Iterable[Tensor]] = {
        "F": [p for name, p in nets["generator"].named_parameters() if name in mapping],
        "G": [p for name, p in nets["generator"].named_parameters() if name not in mapping],
        "E": nets["encoder"].parameters(),
        "D": nets["latent_critic"].parameters(),
    }
    return {
        name: hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in group)).hexdigest()
        for name, group in groups.items()
    }


@pytest.mark.parametrize("betas", ["[0.0, 0.99]", "[0.9, 0.99]"])  # with momentum, a zero gradient would move, too
@pytest.mark.parametrize("networks", [(), STYLE], ids=["mlp", "style"])
def test_each_step_changes_its_groups_alone(networks: tuple[str, ...], betas: str, tmp_path: Path) -> None:
    resolved = Recipe.load(MLP).override(*networks, f"optim.betas={betas}").resolve()
    plan = Plan(resolved, parts.build("dataset", resolved["data"]), torch.device("cpu"))
    trainer = build_trainer(plan, tmp_path, Hooks(), fresh=True)
    for _ in range(2):  # in the second round every optimizer has a past
        for update, learning in zip(trainer.task.updates(), ("ED", "FG", "EG"), strict=True):
            before = hashes(trainer.nets)
            trainer.apply(update, next(trainer.feed))
            after = hashes(trainer.nets)
            assert {name for name in before if before[name] != after[name]} == set(learning)
        trainer.step += 1


@pytest.mark.parametrize("networks", [(), STYLE], ids=["mlp", "style"])
def test_losses_are_the_formulas(networks: tuple[str, ...]) -> None:
    task, nets = set_up(*networks, "task.latent_weight=1", *(["networks.generator.mixing=0"] if networks else []))
    generator, encoder, critic = nets["generator"].eval(), nets["encoder"], nets["latent_critic"]
    x = images()
    batch = Batch.labelled(x, torch.arange(len(x)))

    torch.manual_seed(5)
    found = [update.losses(batch, 0) for update in task.updates()]
    torch.manual_seed(5)
    z = [torch.randn(len(x), *generator.latents["z"].shape) for _ in range(3)]  # one for each step

    logits = [critic(encoder(generator(each))) for each in z]
    at = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(critic(encoder(at)).sum(), at)
    torch.testing.assert_close(
        found[0]["adversarial"], F.softplus(logits[0]).mean() + F.softplus(-critic(encoder(x))).mean()
    )
    torch.testing.assert_close(found[0]["r1"], 10 / 2 * slope.square().sum((1, 2, 3)).mean())
    assert set(found[0]) == {"adversarial", "r1"}
    torch.testing.assert_close(found[1], {"adversarial": F.softplus(-logits[1]).mean()})
    w = generator.to_space(Latent(z[2]), "w").values
    back = encoder(generator.from_space(Latent(w, "w")))
    torch.testing.assert_close(found[2], {"latent": (w - back).square().sum(1).mean()})


def test_weights_and_penalty_are_keys() -> None:
    batch = Batch(images())
    seen = []
    for overrides in (["task.latent_weight=1"], ["task.latent_weight=0.25", "task.r1_gamma=0"]):
        task, _ = set_up(*overrides)
        torch.manual_seed(0)
        seen.append([update.losses(batch, 0) for update in task.updates()])
    assert "r1" not in seen[1][0]
    torch.testing.assert_close(seen[1][0]["adversarial"], seen[0][0]["adversarial"])
    torch.testing.assert_close(seen[1][2]["latent"], seen[0][2]["latent"] / 4)


@pytest.mark.parametrize(
    ("overrides", "problem", "hint"),
    [
        (["networks.encoder.w_dim=7"], r"answers with w \(7,\)", "networks.encoder.w_dim=16"),
        (["networks.latent_critic.w_dim=7"], r"reads points \(7,\)", "networks.latent_critic.w_dim=16"),
        (["networks.generator={use: mlp-generator}"], "is no spaced generator", "stylegan2-generator"),
        (["networks.encoder={use: mlp-discriminator}"], "is no encoder", "alae-encoder"),
        (["networks.latent_critic={use: mlp-discriminator}"], "is no latent critic", "mlp-latent-critic"),
    ],
)
def test_networks_that_do_not_fit_are_refused(overrides: list[str], problem: str, hint: str) -> None:
    with pytest.raises(BadValue, match=problem) as error:
        set_up(*overrides)
    assert hint in error.value.hint


# --------------------------------------------------------------------------------------------- the encoder


def with_statistics(mean: Tensor, std: Tensor, seed: int = 0) -> Tensor:
    """Maps (N, C, 6, 5) whose channels have exactly these means and standard deviations (N, C)."""
    x = torch.randn(*mean.shape, 6, 5, generator=torch.Generator().manual_seed(seed)).double()
    variance, own = torch.var_mean(x, (2, 3), keepdim=True, correction=0)
    return (x - own) / variance.sqrt() * std[..., None, None] + mean[..., None, None]


def test_w_is_affine_in_mean_and_standard_deviation() -> None:
    """w(t s + (1 − t) s′) = t w(s) + (1 − t) w(s′), whatever else is in the maps."""
    reader = StyleReader(3, 7).double()
    nn.init.normal_(reader.linear.bias)
    draw = torch.Generator().manual_seed(3)
    mean, std = torch.randn(2, 2, 3, generator=draw).double(), torch.rand(2, 2, 3, generator=draw).double() + 0.5
    t = 0.3

    def read(mean: Tensor, std: Tensor, seed: int) -> Tensor:
        shown = (std.square() - 1e-5).sqrt()  # the reader reports sqrt(variance + 1e-5)
        return reader(with_statistics(mean, shown, seed))[1]

    between = read(t * mean[0] + (1 - t) * mean[1], t * std[0] + (1 - t) * std[1], 1)
    torch.testing.assert_close(
        between, t * read(mean[0], std[0], 2) + (1 - t) * read(mean[1], std[1], 3), rtol=1e-5, atol=1e-5
    )
    # and C is the layer's matrix: one unit of one channel's deviation is one column of it
    unit = torch.zeros(2, 3).double()
    unit[:, 1] = 1
    column = (read(mean[0], std[0] + unit, 4) - read(mean[0], std[0], 4))[0]
    torch.testing.assert_close(column, reader.linear.weight[:, 3 + 1] / 6**0.5, rtol=1e-4, atol=1e-4)


def test_reader_leaves_mean_0_and_variance_1() -> None:
    x, _ = StyleReader(3, 4)(5 + 3 * torch.randn(2, 3, 9, 9))
    torch.testing.assert_close(x.mean((2, 3)), torch.zeros(2, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(x.var((2, 3), correction=0), torch.ones(2, 3), rtol=0, atol=1e-4)


def test_encoder_s_w_is_the_sum_of_what_its_readers_say_and_there_are_two_a_resolution() -> None:
    net = ALAEEncoder(image_spec((3, 32, 64)), w_dim=5, channel_base=128, channel_max=16)
    said: list[Tensor] = []
    sizes: list[tuple[int, ...]] = []

    def note(_: nn.Module, given: tuple[Tensor], out: tuple[Tensor, Tensor]) -> None:
        said.append(out[1])
        sizes.append(tuple(given[0].shape[2:]))

    for module in net.modules():
        if isinstance(module, StyleReader):
            module.register_forward_hook(note)
    w = net(torch.randn(2, 3, 32, 64))
    torch.testing.assert_close(w, torch.stack(said).sum(0))
    assert sizes == [(32, 64), (16, 32), (16, 32), (8, 16), (8, 16), (4, 8), (4, 8), (4, 8)]  # as StyleGAN has layers
    assert len(said) == parts.build("network", {"use": "stylegan2-generator"}, image_spec((3, 32, 64))).layers


# --------------------------------------------------------------------------------------------- a model that encodes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alae") / "run"
    train(MLP, "train.steps=2", "eval=~", out=out, device="cpu")
    return out


def test_a_run_is_a_model_that_encodes_and_makes_again(run: Path) -> None:
    model = load(run)
    model.require(HasEncoder, HasLatents)
    x = images(3)
    latent = model.encode(x)
    assert (latent.space, latent.values.shape) == ("w", (3, 16))
    torch.testing.assert_close(latent.values, model.nets["encoder"](x))
    again = model.synthesize(latent)
    assert again.shape == x.shape
    torch.testing.assert_close(again, model.generator.from_space(latent))


def test_encoding_is_differentiable_in_the_data(run: Path) -> None:
    x = images(2).requires_grad_()
    load(run).encode(x).values.sum().backward()
    assert x.grad.flatten(1).any(1).all()


def test_a_critic_of_latents_is_no_critic_of_data(run: Path) -> None:
    with pytest.raises(MissingCapability, match="a critic"):
        load(run).require(HasCritic)


def test_data_of_another_shape_and_models_without_encoder_are_refused(run: Path) -> None:
    with pytest.raises(DataError, match=r"\(2, 1, 9, 8\) for a model of \(N, 1, 8, 8\)"):
        load(run).encode(torch.zeros(2, 1, 9, 8))
    resolved = Recipe.load("tiny/digits").resolve()
    nets, _ = build_networks(resolved, SPEC, pretrained=False)
    with pytest.raises(MissingCapability, match="an encoder"):
        Model(resolved, SPEC, nets).encode(images())


# --------------------------------------------------------------------------------------------- a toy of digits


def digits(split: str) -> tuple[Tensor, Tensor]:
    dataset = parts.build("dataset", {"use": "digits", "split": split})
    batch = dataset.batch(np.arange(len(dataset)), np.random.default_rng(0))
    return batch.data, batch.label


def probed(encode: Callable[[Tensor], Tensor]) -> float:
    """Held-out accuracy of a logistic regression on standardised features."""
    (x, y), (held_out, truth) = digits("train"), digits("test")
    with torch.no_grad():
        known, unknown = encode(x), encode(held_out)
    known, unknown = ((each - known.mean(0)) / known.std(0) for each in (known, unknown))
    weight, bias = torch.zeros(known.shape[1], 10, requires_grad=True), torch.zeros(10, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(known @ weight + bias, y) + 1e-3 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return float(((unknown @ weight + bias).argmax(1) == truth).float().mean())


def returned(generator: nn.Module, encoder: nn.Module) -> tuple[float, float]:
    """Mean ‖w − E(G(w))‖², by itself and as a share of the variance of w."""
    z = torch.randn(512, *generator.latents["z"].shape, generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        w = generator.eval().to_space(Latent(z), "w")
        distance = (w.values - encoder(generator.from_space(w))).square().sum(1).mean()
    return float(distance), float(distance / w.values.var(0).sum())


def bigan_encoder(seed: int, z_dim: int, width: int, steps: int) -> nn.Module:
    """That of a BiGAN (Donahue et al. 2017, section 4.1): swapped labels, uniform z, batch norm, Adam 0.0002, 0.5.

    Its layers have as many units as the encoder that it is compared with.
    """
    torch.manual_seed(seed)
    x, _ = digits("train")
    x = x.flatten(1)

    def mlp(inputs: int, outputs: int, norm: bool) -> nn.Sequential:
        layers: list[nn.Module] = []
        for into in (inputs, width):
            layers += [nn.Linear(into, width), nn.BatchNorm1d(width) if norm else nn.Identity(), nn.LeakyReLU(0.2)]
        return nn.Sequential(*layers, nn.Linear(width, outputs))

    generator = nn.Sequential(mlp(z_dim, 64, norm=True), nn.Tanh())
    encoder, critic = mlp(64, z_dim, norm=True), mlp(64 + z_dim, 1, norm=False)
    both = [*generator.parameters(), *encoder.parameters()]
    sides = [
        (torch.optim.Adam(mine, 2e-4, (0.5, 0.999), weight_decay=2.5e-5), sign)
        for mine, sign in ((critic.parameters(), 1.0), (both, -1.0))
    ]
    for step in range(steps):
        for optimizer, sign in sides:
            real, z = x[torch.randint(len(x), (64,))], torch.rand(64, z_dim) * 2 - 1
            real_logits = critic(torch.cat([real, encoder(real)], 1))
            fake_logits = critic(torch.cat([generator(z), z], 1))
            loss = F.softplus(-sign * real_logits).mean() + F.softplus(sign * fake_logits).mean()
            for group in optimizer.param_groups:
                group["lr"] = 2e-4 * 0.01 ** max(0.0, 2 * step / steps - 1)  # exponential decay in the second half
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return encoder.eval()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_latents_come_back_and_features_are_as_good_as_a_bigan_s(seed: int, tmp_path: Path) -> None:
    """Catalogue: ‖w − E(G(w))‖² falls by 80 %, and a linear probe is at most 2 points below that of a BiGAN."""
    recipe = Recipe.load(MLP).override(
        f"train.seed={seed}", "train.steps=2000", "train.batch=64", "train.checkpoint_every=2000", "eval=~"
    )
    nets, _ = build_networks(recipe.resolve(), SPEC, pretrained=False)
    before, before_share = returned(nets["generator"], nets["encoder"])
    model = train(recipe, out=tmp_path / "run", device="cpu")
    after, after_share = returned(model.nets["generator"], model.nets["encoder"])
    ours = probed(lambda x: model.encode(x).values)
    encoder = bigan_encoder(seed, 16, 128, steps=3000)
    theirs = probed(lambda x: encoder(x.flatten(1)))
    untrained = probed(nets["encoder"])
    assert after <= 0.2 * before
    assert after_share <= 0.2 * before_share  # w has not just become small
    assert ours >= theirs - 0.02
    assert ours > untrained
