"""How often and how far: what is drawn is distributed as the papers say."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from ganvas.errors import BadValue
from ganvas.shelves.augment.ada import Ada
from ganvas.shelves.augment.apa import Apa
from ganvas.shelves.augment.diffaug import DiffAugment
from ganvas.shelves.augment.diffusion_gan import DiffusionNoise
from ganvas.shelves.augment.shift_flip import ShiftFlip
from ganvas.shelves.augment.views import Byol, SimClr

N = 20000
SLACK = 4 * 0.5 / math.sqrt(N)  # four standard errors of any frequency


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("p", [0.2, 0.8, 1.0])
def test_ada_does_each_transformation_with_probability_p(p: float) -> None:
    draws = Ada(pipe="bgcfnc", p=p).draw(torch.zeros(N, 1, 1, 1))
    nothing = {"scale": 1, "aniso": 1, "contrast": 1, "saturation": 1, "imgfilter": 1}
    seen = {}
    for name, value in draws.items():
        seen[name] = (value.reshape(N, -1)[:, 0] != nothing.get(name, 0)).float().mean().item()
    halves = {"xflip": p / 2, "lumaflip": p / 2, "rotate90": 3 * p / 4, "rotate": 1 - math.sqrt(1 - p)}
    halves["rotate_after"] = halves["rotate"]
    for name, frequency in seen.items():
        if name != "cutout_centre":
            assert frequency == pytest.approx(halves.get(name, p), abs=SLACK), name
    either = ((draws["rotate"] != 0) | (draws["rotate_after"] != 0)).float().mean().item()
    assert either == pytest.approx(p, abs=SLACK)
    together = ((draws["scale"] != 1) & (draws["brightness"] != 0)).float().mean().item()
    assert together == pytest.approx(p * p, abs=SLACK)


def test_ada_draws_from_the_papers_distributions() -> None:
    draws = Ada(pipe="bgcfnc", p=1.0).draw(torch.zeros(N, 1, 1, 1))
    normal = {
        "scale": draws["scale"].log2() / 0.2, "aniso": draws["aniso"].log2() / 0.2,
        "xfrac": draws["xfrac"][:, 1] / 0.125, "brightness": draws["brightness"] / 0.2,
        "contrast": draws["contrast"].log2() / 0.5, "saturation": draws["saturation"].log2(),
        "imgfilter": draws["imgfilter"][:, 2].log2(),
    }  # fmt: skip
    for name, value in normal.items():
        assert stats.kstest(value.numpy(), "norm").pvalue > 1e-4, name
    uniform = {
        "rotate": draws["rotate"] / (2 * math.pi) + 0.5, "rotate_after": draws["rotate_after"] / (2 * math.pi) + 0.5,
        "hue": draws["hue"] / (2 * math.pi) + 0.5, "xint": draws["xint"][:, 0] / 0.25 + 0.5,
        "cutout_centre": draws["cutout_centre"][:, 1],
    }  # fmt: skip
    for name, value in uniform.items():
        assert stats.kstest(value.numpy(), "uniform").pvalue > 1e-4, name
    assert torch.bincount(draws["rotate90"].long(), minlength=4).div(N).tolist() == pytest.approx([0.25] * 4, abs=SLACK)
    assert draws["noise"].square().mean().item() == pytest.approx(0.01, rel=0.1)  # E σ² = 0.1²


@pytest.mark.parametrize(
    ("pipe", "count"), [("blit", 3), ("geom", 5), ("color", 5), ("filter", 1), ("noise", 1), ("cutout", 2), ("bg", 8),
                        ("bgc", 13), ("bgcf", 14), ("bgcfn", 15), ("bgcfnc", 17), (("rotate90",), 1)],
)  # fmt: skip
def test_pipes_have_their_transformations(pipe: str, count: int) -> None:
    assert len(Ada(pipe=pipe, p=0.5).draw(torch.zeros(2, 3, 4, 4))) == count  # type: ignore[arg-type]


def test_diffaug_shifts_and_cuts_evenly() -> None:
    draws = DiffAugment().draw(torch.zeros(N, 1, 16, 24))
    assert torch.bincount(draws["up"] + 2).div(N).tolist() == pytest.approx([1 / 5] * 5, abs=SLACK)
    assert torch.bincount(draws["left"] + 3).div(N).tolist() == pytest.approx([1 / 7] * 7, abs=SLACK)
    assert torch.bincount(draws["cut_y"]).div(N).tolist() == pytest.approx([1 / 17] * 17, abs=SLACK)
    for name, low, high in (("brightness", -0.5, 0.5), ("saturation", 0, 2), ("contrast", 0.5, 1.5)):
        assert stats.kstest(draws[name].numpy(), "uniform", args=(low, high - low)).pvalue > 1e-4


def test_shift_flip_flips_half_and_shifts_up_to_an_eighth() -> None:
    draws = ShiftFlip().draw(torch.zeros(N, 1, 32, 8))
    assert draws["flip"].float().mean().item() == pytest.approx(0.5, abs=SLACK)
    assert torch.bincount(draws["down"] + 4).div(N).tolist() == pytest.approx([1 / 9] * 9, abs=SLACK)
    assert torch.bincount(draws["right"] + 1).div(N).tolist() == pytest.approx([1 / 3] * 3, abs=SLACK)


def test_views_are_drawn_as_in_their_papers() -> None:
    images = torch.zeros(N, 1, 1, 1)
    simclr, byol = SimClr(strength=1.0).draw(images), Byol(blur=0.1, solarize=0.2).draw(images)
    for draws, saturation, blur, solarize in ((simclr, 1.8, 0.5, 0.0), (byol, 1.2, 0.1, 0.2)):
        for name, rate in (("flip", 0.5), ("grey", 0.2), ("blur", blur), ("solarize", solarize)):
            assert (draws[name] != 0).float().mean().item() == pytest.approx(rate, abs=SLACK), name
        assert (draws["saturation"] != 1).float().mean().item() == pytest.approx(0.8, abs=SLACK)
        assert draws["saturation"].max().item() == pytest.approx(saturation, abs=1e-3)
        assert draws["width"].max() <= 1
        assert (draws["x"].abs() <= (1 - draws["width"]) / 2 + 1e-6).all()
        area, whole = draws["width"] * draws["height"], (draws["width"] < 1) & (draws["height"] < 1)
        assert 0.08 <= area.min() <= 0.09
        ratio = (draws["width"] / draws["height"])[whole]
        assert ratio.min().item() == pytest.approx(3 / 4, abs=1e-2)
        assert ratio.max().item() == pytest.approx(4 / 3, abs=1e-2)


def test_apa_replaces_with_probability_p_and_generates_only_when_needed() -> None:
    real, made = torch.ones(N, 1, 1, 1), []

    def fake() -> torch.Tensor:
        made.append(True)
        return torch.zeros(N, 1, 1, 1)

    assert Apa().mix_real(real, fake) is real
    assert not made
    assert Apa(p=0.3).mix_real(real, fake).mean().item() == pytest.approx(0.7, abs=SLACK)
    assert torch.equal(Apa(p=1.0).mix_real(real, fake), torch.zeros_like(real))


@pytest.mark.parametrize("prior", ["uniform", "priority"])
def test_half_of_the_diffusion_steps_are_clean_and_the_others_follow_the_prior(prior: str) -> None:
    part = DiffusionNoise(t_min=4, t_max=4, prior=prior)  # type: ignore[arg-type]
    lists = torch.cat([part.draw_list() for _ in range(N // 64)])
    seen = torch.bincount(lists, minlength=5).div(len(lists))
    weights = torch.arange(1.0, 5) if prior == "priority" else torch.ones(4)
    assert seen[0] == 0.5
    assert seen[1:].tolist() == pytest.approx((0.5 * weights / weights.sum()).tolist(), abs=SLACK)
    part.t_list = torch.arange(64) % 2 * 3
    _, t = part.with_level(torch.zeros(N, 1, 1, 1))
    assert torch.bincount(t).div(N).tolist() == pytest.approx([0.5, 0, 0, 0.5], abs=SLACK)


def test_what_would_do_nothing_or_makes_no_sense_is_refused() -> None:
    for make in (lambda: Ada(adapt=False), lambda: Apa(adapt=False), lambda: SimClr(crop=(0.5, 0.2)),
                 lambda: DiffusionNoise(t_min=20, t_max=10), lambda: DiffusionNoise(beta_start=0.1)):  # fmt: skip
        with pytest.raises(BadValue):
            make()
