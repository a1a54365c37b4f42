"""Latent recovery (Webster et al. 2019): the statistics, the search for latents, and what it says of toy models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor, nn

from ganvas import parts
from ganvas.errors import DataError, UsageError
from ganvas.model import Model
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics.latent_recovery import LatentRecovery, minimise, recover, recovery_statistics
from ganvas.types import Batch, DataSpec, Evidence, EvidenceSet, Facts

pytestmark = pytest.mark.system("latent-recovery")

SPEC = image_spec((1, 8, 8), 10)


def network(name: str, spec: DataSpec = SPEC, **keys: object) -> nn.Module:
    return parts.build("network", check_node("network", {"use": name, "width": 128, "depth": 2, **keys}), spec)


def model_of(generator: nn.Module, spec: DataSpec = SPEC) -> Model:
    return Model({"sampler": {"use": "plain"}}, spec, {"generator": generator})


def in_bytes(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5).round().byte()


# ------------------------------------------------------------------------------------------- statistics


def test_statistics_are_the_published_formulas() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((30, 50), (51, 51), (200, 100)):
        training, held_out = rng.gamma(2, 1, size=n), rng.gamma(2, 1.3, size=m)
        found = recovery_statistics(training, held_out)
        m_train, m_test = torch.from_numpy(training).median().item(), torch.from_numpy(held_out).median().item()
        assert (found.median_training, found.median_held_out) == (m_train, m_test)
        assert found.gap == abs(m_test - m_train) / m_test
        assert found.p_value == ks_2samp(training, held_out).pvalue


def test_statistics_by_hand() -> None:
    apart = recovery_statistics([1, 2], [3, 4])
    assert apart.gap == pytest.approx(2 / 3)  # lower medians 1 and 3
    assert apart.p_value == pytest.approx(2 / 6)  # two of the six ways to divide four values are as far apart
    assert apart.attack_accuracy == 1
    same = recovery_statistics([5, 6, 7], [5, 6, 7])
    assert (same.gap, same.p_value) == (0, 1)
    assert recovery_statistics([9, 9, 1], [2, 3, 4]).attack_accuracy == pytest.approx(1 / 3)
    with pytest.raises(UsageError, match="2 training and 0 held-out"):
        recovery_statistics([1, 2], [])
    with pytest.raises(DataError, match="not finite"):
        recovery_statistics([1, np.nan], [1])


# ------------------------------------------------------------------------------------------- search


def test_each_problem_is_solved_on_its_own() -> None:
    """Quadratics with condition numbers up to 10,000: their minima, alone as among the others."""
    rng = np.random.default_rng(0)
    basis = [np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(5)]
    A = torch.from_numpy(np.stack([b @ np.diag(np.geomspace(1, 10**k, 6)) @ b.T for k, b in enumerate(basis)]))
    b = torch.from_numpy(rng.normal(size=(5, 6)))

    def error_of(x: Tensor, which: slice = slice(None)) -> Tensor:
        return 0.5 * torch.einsum("ni,nij,nj->n", x, A[which], x) - (b[which] * x).sum(1)

    start = torch.from_numpy(rng.normal(size=(5, 6)))
    found = minimise(error_of, start, 80)
    torch.testing.assert_close(found.latent, torch.linalg.solve(A, b), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.error, error_of(found.latent))
    for i in range(5):
        one = slice(i, i + 1)
        alone = minimise(lambda x, one=one: error_of(x, one), start[one], 80)
        torch.testing.assert_close(alone.latent, found.latent[one], rtol=1e-6, atol=1e-7)


def test_a_curved_valley_is_followed_and_no_error_rises() -> None:
    def rosenbrock(x: Tensor) -> Tensor:
        return (1 - x[:, 0]) ** 2 + 100 * (x[:, 1] - x[:, 0] ** 2) ** 2

    start = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [3.0, -2.0], [1.0, 1.0]], dtype=torch.float64)
    last = rosenbrock(start)
    for steps in range(1, 30):
        error = minimise(rosenbrock, start, steps).error
        assert (error <= last).all()
        last = error
    found = minimise(rosenbrock, start, 80)
    torch.testing.assert_close(found.latent, torch.ones(4, 2, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    assert found.latent[3].tolist() == [1, 1]  # a start without a gradient stays


def test_generated_images_are_recovered_from_most_starts() -> None:
    """MSE below 1e-3 of the images' variance, which is stricter than 1e-3."""
    for seed in range(3):
        torch.manual_seed(seed)
        model = model_of(network("mlp-generator", z_dim=16))
        images = model.synthesize(model.draw(8, seed=seed))
        starts = [recover(model, images, seed=10 + restart).error for restart in range(5)]
        solved = torch.stack(starts) < 1e-3 * images.var()
        print(f"recovered from {solved.float().mean():.0%} of starts")  # noqa: T201
        assert solved.float().mean() >= 0.8


def test_the_best_restart_counts() -> None:
    model = model_of(network("mlp-generator", z_dim=16))
    images = model.synthesize(model.draw(8, seed=0))
    each = [recover(model, images, iterations=5, seed=seed) for seed in range(3)]
    best = recover(model, images, iterations=5, restarts=3)
    torch.testing.assert_close(best.error, torch.stack([one.error for one in each]).amin(0))
    made = model.synthesize(type(model.draw(1, seed=0))(best.latent))
    torch.testing.assert_close((made - images).square().flatten(1).mean(1), best.error)


def test_classes_are_asked_for_and_other_sizes_are_averaged() -> None:
    model = model_of(network("mlp-generator", z_dim=8, conditioning="concat"))
    label = torch.arange(10)
    images = model.synthesize(model.draw(10, seed=0), label)
    right, wrong = recover(model, images, label), recover(model, images, label.roll(1))
    assert right.error.median() < 1e-6 < 1e-3 * images.var() < wrong.error.median()
    small = nn.functional.avg_pool2d(images, 2)
    assert recover(model, small, label).error.median() < 1e-6


def test_masked_pixels_are_painted_in() -> None:
    """What is visible is met at 20 dB at least; so many pixels over so few dimensions show the rest, too."""
    model = model_of(network("mlp-generator", z_dim=8))
    images = model.synthesize(model.draw(20, seed=0))
    mask = torch.ones(1, 8, 8)
    mask[:, 2:6, 3:7] = 0
    found = recover(model, images, restarts=3, phi=lambda each: each * mask)
    made = model.synthesize(type(model.draw(1, seed=0))(found.latent))
    for where in (mask, 1 - mask):
        error = ((made - images).square() * where).sum((1, 2, 3)) / where.sum()
        psnr = 10 * torch.log10(2**2 / error)  # images span [-1, 1]
        assert psnr.min() >= 20


# ------------------------------------------------------------------------------------------- toy models


def digits(split: str) -> Tensor:
    dataset = parts.build("dataset", check_node("dataset", {"use": "digits", "split": split}))
    order = np.random.default_rng(0)
    data: Tensor = dataset.batch(order.permutation(len(dataset)), order).data
    return data


def glo(images: Tensor, seed: int) -> nn.Module:
    """A generator and one latent an image on the sphere, trained together to rebuild (Bojanowski et al. 2018)."""
    torch.manual_seed(seed)
    generator, z = network("mlp-generator", z_dim=16), torch.randn(len(images), 16, requires_grad=True)
    optim = torch.optim.Adam([{"params": generator.parameters(), "lr": 1e-3}, {"params": [z], "lr": 1e-2}])
    for _ in range(600):
        made = generator(4 * nn.functional.normalize(z))
        optim.zero_grad()
        (made - images).square().mean().backward()
        optim.step()
    return generator


def gan(images: Tensor, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    nets = {"generator": network("mlp-generator", z_dim=16), "discriminator": network("mlp-discriminator")}
    node = {"use": "adversarial", "regularizers": {"r1": {"weight": 1.0}}}
    task = parts.build("task", check_node("task", node), nets, Facts(SPEC))
    optim = {role: torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.99)) for role, net in nets.items()}
    for step in range(3000):
        for update in task.updates():
            (role,) = update.nets
            optim[role].zero_grad()
            batch = Batch(images[torch.randint(len(images), (64,))])
            torch.stack(list(update.losses(batch, step).values())).sum().backward()
            optim[role].step()
    return nets["generator"]


def evidence(model: Model, training: Tensor, held_out: Tensor) -> Evidence:
    sets = (EvidenceSet(images=in_bytes(each)) for each in (held_out, training))
    real, trained = sets
    return Evidence(real, EvidenceSet(), training=trained, model=model)


def test_a_generator_with_a_reconstruction_loss_on_few_images_is_caught() -> None:
    training, held_out = digits("train")[:64], digits("test")
    found = LatentRecovery()(evidence(model_of(glo(training, 0)), training, held_out))
    print(found)  # noqa: T201
    assert found["recovery_gap"] > 0.3
    assert found["recovery_p"] < 0.01
    assert found["recovery_training"] < found["recovery_held_out"]


@pytest.mark.slow
def test_memorisers_have_a_gap_and_gans_of_enough_data_have_none() -> None:
    """Three restarts an image; with a single one, p of the first GAN was 0.047."""
    training, held_out = digits("train"), digits("test")
    for seed in range(3):
        memoriser = LatentRecovery(restarts=3)(evidence(model_of(glo(training[:64], seed)), training[:64], held_out))
        honest = LatentRecovery(count=256, restarts=3)(evidence(model_of(gan(training, seed)), training, held_out))
        print(f"memoriser {memoriser}\nGAN {honest}")  # noqa: T201
        assert memoriser["recovery_gap"] > 0.3 and memoriser["recovery_p"] < 0.01
        assert honest["recovery_gap"] < 0.1 and honest["recovery_p"] > 0.05


def test_the_metric_is_a_function_of_model_and_images() -> None:
    images = digits("test")
    case = evidence(model_of(network("mlp-generator", z_dim=8)), images[:40], images[100:130])
    metric = LatentRecovery(count=50, iterations=5)
    state = torch.get_rng_state()
    found = metric(case)
    assert torch.equal(torch.get_rng_state(), state)
    assert found == metric(case)
    with pytest.raises(UsageError, match="no model"):
        metric(Evidence(case.real, case.fake, training=case.training))
    with pytest.raises(UsageError, match="no training images"):
        metric(Evidence(case.real, case.fake, model=case.model))
