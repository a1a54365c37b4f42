"""Diffusion-GAN: what its catalogue row asks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ganvas import parts
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.augment.diffusion_gan import DiffusionNoise
from ganvas.types import NO_CONDITION, Batch, Critic, Facts, Generator, Latent, LatentSpec, Scores, Turn

pytestmark = pytest.mark.system("diffusion-gan")
GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "diffusion_gan" / "a.safetensors"

# ------------------------------------------------------------------------------------------- the process


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"no {GOLDEN}")
@pytest.mark.parametrize("p", [0.0, 0.37, 1.0])
@pytest.mark.parametrize(("name", "keys"), [("default", {}), ("linear", {"t_min": 5, "t_max": 100})])
def test_noised_images_are_the_official_ones(name: str, keys: dict[str, Any], p: float) -> None:
    case = load_file(GOLDEN)
    t, noise = case[f"in.{name}@p{p}.t"][:, 0], case[f"in.{name}@p{p}.rng.000.randn_like"]
    ours = DiffusionNoise(p=p, **keys).apply(case["in.x"], t, noise)
    assert (ours - case[f"out.{name}@p{p}.x_t"]).abs().max() < 1e-6


def test_gradient_through_the_noise_is_shortened_by_the_root_of_alpha_bar() -> None:
    part = DiffusionNoise(p=0.5)
    t = torch.tensor([0, 1, 100, 500])
    x, noise = torch.randn(4, 3, 4, 4, requires_grad=True), torch.randn(4, 3, 4, 4)
    y = part.apply(x, t, noise)
    score = torch.tanh(y).sum()
    (to_y,) = torch.autograd.grad(score, y, retain_graph=True)
    (to_x,) = torch.autograd.grad(score, x)
    assert torch.allclose(to_x, part.alpha_bar[t].sqrt().float()[:, None, None, None] * to_y)


def networks(conditioning: Any) -> dict[str, nn.Module]:
    spec = image_spec((1, 8, 8), num_classes=10)
    torch.manual_seed(0)
    critic = check_node("network", {"use": "sngan-discriminator", "width": 8, "conditioning": conditioning})
    return {
        "generator": parts.build("network", {"use": "sngan-generator", "width": 8, "z_dim": 8}, spec),
        "discriminator": parts.build("network", critic, spec),
    }


def test_with_all_steps_0_a_training_step_is_the_plain_gans_to_the_bit() -> None:
    spec = image_spec((1, 8, 8), num_classes=10)
    batch = Batch.labelled(torch.rand(6, 1, 8, 8) * 2 - 1, torch.arange(6))
    diffused, plain = networks({"use": "level", "head": "projection"}), networks("projection")
    shared = {
        key.replace("head.inner.", "head."): value for key, value in diffused["discriminator"].state_dict().items()
    }
    plain["discriminator"].load_state_dict({key: value for key, value in shared.items() if ".psi." not in key})
    node = {"use": "adversarial", "objective": "non-saturating"}
    tasks = [
        parts.build("task", check_node("task", {**node, "augment": "diffusion-noise"}), diffused, Facts(spec)),
        parts.build("task", check_node("task", node), plain, Facts(spec)),
    ]
    tasks[0].augment.t_list.zero_()
    for task in tasks:
        optim = {role: torch.optim.SGD(net.parameters(), lr=0.1) for role, net in task.nets.items()}
        for update in task.updates():
            torch.manual_seed(5)  # the noise that changes nothing draws numbers, too
            (role,) = update.nets
            optim[role].zero_grad()
            sum(update.losses(batch, 0).values()).backward()
            optim[role].step()
    for role in plain:
        ours = {key.replace("head.inner.", "head."): value for key, value in diffused[role].state_dict().items()}
        for key, value in plain[role].state_dict().items():
            assert torch.equal(ours[key], value), key


# ------------------------------------------------------------------------------------------- the controller


def test_certainty_drives_T_up_and_ignorance_down_in_the_expected_number_of_updates() -> None:  # noqa: N802
    part = DiffusionNoise(t_min=5, t_max=500, speed_kimg=1.0)
    batch = 25  # p moves by 0.1 every 4 updates: 40 updates from end to end

    def observe(r_d: float, updates: int) -> None:
        images = torch.zeros(batch, 1, 1, 1)
        scores = Scores(torch.full((batch,), r_d), torch.zeros(batch, 1))
        for _ in range(updates):
            part.observe(
                Turn(
                    nets={}, step=0, real=images, condition=NO_CONDITION,
                    latent=Latent(images), fake_condition=NO_CONDITION,
                    critic=lambda data, condition: scores, generate=lambda latent, condition: images,
                )
            )  # fmt: skip

    observe(1.0, 36)
    assert part.T < 500
    observe(1.0, 4)
    assert part.T == 500
    assert len(part.alpha_bar) == 501
    assert part.t_list.max() > 250
    observe(0.0, 36)
    assert part.T > 5
    observe(0.0, 4)
    assert part.T == 5
    assert part.t_list.max() <= 5


# ------------------------------------------------------------------------------------------- disjoint supports


def js(offset: Tensor, part: DiffusionNoise, t: int) -> Tensor:
    """Jensen-Shannon divergence of two points `offset` apart after t steps, by quadrature."""
    alpha_bar = part.alpha_bar[t]
    std = part.noise_std * (1 - alpha_bar).sqrt()
    mean = alpha_bar.sqrt() * offset
    y = torch.linspace(-9, 9, 3001, dtype=torch.float64) * std + mean.detach() / 2
    # Wide enough for both: the two are at most a few standard deviations apart where the divergence is not saturated.
    y = torch.cat((y, y + mean.detach() / 2, y - mean.detach() / 2)).sort()[0]
    log_p, log_q = -0.5 * (y / std).square(), -0.5 * ((y - mean) / std).square()
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    scale = 1 / (std * math.sqrt(2 * math.pi))
    return 0.5 * torch.trapezoid(scale * (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)), y)


def test_disjoint_supports_have_a_gradient_once_they_are_diffused() -> None:
    part = DiffusionNoise(p=1.0)
    slopes, values = [], []
    for distance in (0.25, 0.5, 1.0, 1.5, 2.0):
        offset = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
        steps = range(1, part.T + 1, 25)
        total = torch.stack([js(offset, part, t) for t in steps]).mean()
        (slope,) = torch.autograd.grad(total, offset)
        slopes.append(slope.item())
        values.append(total.item())
    assert all(slope > 1e-3 for slope in slopes)
    assert values == sorted(values)
    # Hardly diffused (t = 1), as good as not at all: the optimal critic is saturated and says nothing.
    offset = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    saturated = js(offset, part, 1)
    (slope,) = torch.autograd.grad(saturated, offset)
    assert saturated.item() == pytest.approx(math.log(2), abs=1e-5)
    assert abs(slope.item()) < 1e-9


# ------------------------------------------------------------------------------------------- 25 Gaussians

GRID = torch.cartesian_prod(torch.linspace(-0.8, 0.8, 5), torch.linspace(-0.8, 0.8, 5))


class Points(Generator):
    """A generator of points in the plane, as (N, 2, 1, 1)."""

    latents = {"z": LatentSpec((8,))}  # noqa: RUF012
    conditional = False

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 2))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.body(latent)[:, :, None, None]  # type: ignore[no-any-return]


class Judge(Critic):
    """A critic of such points with any head."""

    def __init__(self, conditioning: Any) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 96), nn.LeakyReLU(0.2), nn.Linear(96, 96), nn.LeakyReLU(0.2))
        node = check_node("conditioning", conditioning)
        self.head = parts.build("conditioning", node, 96, image_spec((2, 1, 1)), lambda layer: layer)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        return self.head(self.body(data.flatten(1)), label)  # type: ignore[no-any-return]


def modes_covered(augment: dict[str, Any] | None, conditioning: Any, seed: int, steps: int) -> int:
    """How many of the 25 modes get at least a quarter of their share of points, after training."""
    torch.manual_seed(seed)
    nets = {"generator": Points(), "discriminator": Judge(conditioning)}
    node = {"use": "adversarial", "objective": "non-saturating", **({"augment": augment} if augment else {})}
    task = parts.build("task", check_node("task", node), nets, Facts(image_spec((2, 1, 1))))
    optim = {role: torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.99)) for role, net in nets.items()}
    for step in range(steps):
        for update in task.updates():
            (role,) = update.nets
            points = GRID[torch.randint(25, (128,))] + 0.02 * torch.randn(128, 2)
            optim[role].zero_grad()
            sum(update.losses(Batch(points[:, :, None, None]), step).values()).backward()
            optim[role].step()
    with torch.no_grad():
        drawn = nets["generator"](torch.randn(5000, 8)).flatten(1)
    distance, nearest = torch.cdist(drawn, GRID).min(1)
    return int((torch.bincount(nearest[distance < 0.1], minlength=25) >= 50).sum())


@pytest.mark.slow
def test_25_gaussians_keep_at_least_the_modes_of_the_plain_gan() -> None:
    noise = {"use": "diffusion-noise", "noise_std": 0.5, "t_max": 500, "speed_kimg": 20.0}
    found = []
    for seed in range(3):
        plain = modes_covered(None, "plain", seed, 3000)
        diffused = modes_covered(noise, {"use": "level", "head": "plain"}, seed, 3000)
        found.append((plain, diffused))
    print(f"modes covered, (plain, diffused) a seed: {found}")  # noqa: T201
    assert sum(diffused >= plain for plain, diffused in found) >= 2
