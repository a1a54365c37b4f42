"""Official augmentations and ours on the same images and the same random numbers.

Cases are found as in `test_parity`. Run with -s to see the largest deviations.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ganvas.interop.registry import OfficialCase
from ganvas.nn.wavelets import SYM6, band_filters
from ganvas.shelves.augment import ada
from ganvas.shelves.augment.ada import GROUPS
from ganvas.shelves.augment.diffaug import DiffAugment
from ganvas.shelves.augment.diffusion_gan import DiffusionNoise

DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "golden"
FOLDERS = [Path(each) for each in os.environ.get("GANVAS_GOLDEN", str(DEFAULT)).split(os.pathsep) if each]
LIMIT = 1e-4  # of the output's spread


def cases(cls: str) -> list[OfficialCase]:
    """Every case of an official class, whatever it is called."""
    sidecars = [path for folder in FOLDERS for path in sorted(folder.glob("*/*.json")) if cls in path.read_text()]
    found = [OfficialCase.read(path.with_suffix(".safetensors")) for path in sidecars]
    return [case for case in found if case.cls == cls]


def close(name: str, ours: Tensor, official: Tensor) -> float:
    """The deviation in spreads; fails where it is too large."""
    assert ours.shape == official.shape, name
    deviation = ((ours - official).abs().max() / official.std()).item()
    assert deviation <= LIMIT, f"{name}: {deviation:.1e} of the spread"
    return deviation


def told(what: str, deviations: list[float]) -> None:
    if not deviations:
        pytest.skip(f"no golden case of {what}; set GANVAS_GOLDEN")
    print(f"{what}: {len(deviations)} outputs, at most {max(deviations):.1e} of the spread (allowed {LIMIT:.0e})")  # noqa: T201


# ------------------------------------------------------------------------------------------- DiffAugment


def test_diffaugment() -> None:
    deviations = []
    for case in cases("DiffAugment_pytorch.DiffAugment"):
        images = case.inputs["img"]
        for name, official in case.outputs.items():
            rng = {
                key.rsplit(".", 2)[1]: value.flatten()
                for key, value in case.inputs.items()
                if key.startswith(f"{name}.rng.")
            }
            part, draws = our_diffaugment(name, [rng[number] for number in sorted(rng)])
            deviations.append(close(name, part.apply(images, draws), official))
    told("DiffAugment", deviations)


def our_diffaugment(name: str, rng: list[Tensor]) -> tuple[DiffAugment, dict[str, Tensor]]:
    """A policy, or one function of it with its ratio (`rand_cutout_ratio0.3`), and the draws made of its numbers."""
    single, _, ratio = name.removeprefix("rand_").partition("_ratio")
    keys = {"translation": ["up", "left"], "cutout": ["cut_y", "cut_x"]}
    if name.startswith("rand_"):
        policy: tuple[str, ...] = (single if single in keys else "color",)
        names = keys.get(single, [single])
    else:
        policy = tuple(name.split(","))
        names = [each for step in policy for each in keys.get(step, ["brightness", "saturation", "contrast"])]
    draws = dict(zip(names, rng, strict=True))
    for key, scale, offset in (("brightness", 1, -0.5), ("saturation", 2, 0), ("contrast", 1, 0.5)):
        if key in draws:
            draws[key] = scale * draws[key] + offset
    ratios = {f"{single}_ratio": float(ratio)} if ratio else {}
    return DiffAugment(policy=policy, **ratios), draws  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- ADA

OFFICIAL = ("xflip", "rotate90", "xint", "scale", "rotate", "rotate_after", "aniso", "xfrac", "brightness", "contrast",
            "lumaflip", "hue", "saturation", "imgfilter", "noise", "cutout")  # fmt: skip


def at_percentile(q: float, transforms: Mapping[str, float], images: Tensor, noise: Tensor | None) -> dict[str, Tensor]:
    """The draws that the official pipeline makes with `debug_percentile`: no luck, one value for all."""
    N = len(images)
    # Their quantile of a normal distribution is erfinv(2q - 1), without the √2.
    normal = torch.erfinv(torch.tensor(2 * q - 1)).item()
    values: dict[str, float] = {
        "xflip": math.floor(2 * q), "rotate90": math.floor(4 * q), "xint": 0.125 * (2 * q - 1),
        "scale": 2 ** (0.2 * normal), "rotate": math.pi * (2 * q - 1), "rotate_after": 0.0,
        "aniso": 2 ** (0.2 * normal), "xfrac": 0.125 * normal, "brightness": 0.2 * normal,
        "contrast": 2 ** (0.5 * normal),
        "lumaflip": math.floor(2 * q), "hue": math.pi * (2 * q - 1), "saturation": 2**normal, "imgfilter": 2**normal,
        "cutout": 0.5,
    }  # fmt: skip
    wide = {"xint": (2,), "xfrac": (2,), "imgfilter": (4,)}
    draws = {name: torch.full((N, *wide.get(name, ())), float(values[name])) for name in transforms if name in values}
    if "rotate" in draws:
        draws["rotate_after"] = torch.zeros(N)
    if "cutout" in draws:
        draws["cutout_centre"] = torch.full((N, 2), q)
    if noise is not None:
        draws["noise"] = noise * 0.1 * torch.erfinv(torch.tensor(q))
    return draws


def from_rng(rng: Iterator[Tensor], p: float, transforms: list[str], images: Tensor) -> dict[str, Tensor]:
    """The draws that the official pipeline makes of recorded random numbers, in the order of its calls."""
    draws: dict[str, Tensor] = {}
    p_rot = 1 - math.sqrt(1 - p)

    def gated(value: Tensor, nothing: float, p: float = p) -> Tensor:
        return torch.where(next(rng) < p, value, nothing)

    for name in transforms:
        if name in ("hue", "saturation") and images.shape[1] == 1:
            continue
        if name in ("xflip", "lumaflip"):
            draws[name] = gated((2 * next(rng)).floor(), 0).flatten()
        elif name == "rotate90":
            draws[name] = gated((4 * next(rng)).floor(), 0)
        elif name == "xint":
            draws[name] = gated(0.125 * (2 * next(rng) - 1), 0)
        elif name in ("rotate", "rotate_after"):
            draws[name] = gated(math.pi * (2 * next(rng) - 1), 0, p_rot)
        elif name in ("scale", "aniso"):
            draws[name] = gated((0.2 * next(rng)).exp2(), 1)
        elif name == "xfrac":
            draws[name] = gated(0.125 * next(rng), 0)
        elif name == "brightness":
            draws[name] = gated(0.2 * next(rng), 0)
        elif name == "contrast":
            draws[name] = gated((0.5 * next(rng)).exp2(), 1)
        elif name == "hue":
            draws[name] = gated(math.pi * (2 * next(rng) - 1), 0)
        elif name == "saturation":
            draws[name] = gated(next(rng).exp2(), 1).flatten()
        elif name == "imgfilter":
            draws[name] = torch.stack([gated(next(rng).exp2(), 1) for _ in range(4)], dim=1)
        elif name == "noise":
            draws[name] = gated(0.1 * next(rng).abs(), 0) * next(rng)
        else:
            draws[name] = gated(torch.full((len(images), 1, 1, 1, 1), 0.5), 0).flatten()
            draws["cutout_centre"] = next(rng).flatten(1)
    return draws


def ordered(transforms: Mapping[str, float] | set[str]) -> list[str]:
    """In the order of the official calls; the second rotation comes after the change of aspect."""
    order = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "rotate_after", "xfrac", *OFFICIAL[8:])
    return [name for name in order if name in transforms or (name == "rotate_after" and "rotate" in transforms)]


def test_ada() -> None:
    deviations = []
    for case in cases("training.augment.AugmentPipe"):
        for name, official in case.outputs.items():
            what, _, percentile = name.partition("@")
            images = case.inputs["img_gray" if what.startswith("gray.") else "img"].clone().requires_grad_(True)
            if not percentile:
                p = case.inputs[f"{what.partition('_')[0]}_p"].item()
                keys = sorted(key for key in case.inputs if key.startswith(f"{what}.rng."))
                groups = {"bgcfnc": "bgcfnk"}.get(what.partition("_")[2], what.partition("_")[2])
                transforms = ordered({each for group in groups for each in GROUPS[group]})
                rng = iter([case.inputs[key] for key in keys])
                draws = from_rng(rng, p, transforms, images)
                assert next(rng, None) is None
            else:
                pipe = what.removeprefix("gray.").removeprefix("grad_input_")
                transforms_on = case.kwargs.get(pipe, {pipe: 1})
                assert set(transforms_on.values()) == {1}
                noise = case.inputs.get(f"{name}.randn") if "noise" in transforms_on else None
                draws = at_percentile(float(percentile), transforms_on, images, noise)
            ours = ada.apply(images, draws)
            if what.startswith("grad_input_"):
                (ours,) = torch.autograd.grad((ours * case.inputs["grad_weight"]).sum(), images)
            deviations.append(close(name, ours.detach(), official))
    told("ADA", deviations)


def test_filters_of_ada() -> None:
    deviations = []
    for case in cases("training.augment.AugmentPipe"):
        low_pass = torch.tensor(SYM6)
        deviations.append(close("Hz_geom", low_pass / low_pass.sum(), case.state["Hz_geom"]))
        deviations.append(close("Hz_fbank", band_filters().float(), case.state["Hz_fbank"]))
    told("ADA's filters", deviations)


# ------------------------------------------------------------------------------------------- Diffusion-GAN


def test_diffusion_gan() -> None:
    deviations = []
    names = {"beta_schedule": None, "ts_dist": "prior"}
    for case in cases("training.diffusion.Diffusion"):
        for name in sorted({key.rpartition(".")[0] for key in case.outputs}):
            which, _, p = name.partition("@p")
            kwargs = {names.get(key, key): value for key, value in case.kwargs[which].items()}
            kwargs.pop(None, None)
            part = DiffusionNoise(p=float(p), **kwargs)
            alpha_bar = part.alpha_bar
            assert case.outputs[f"{name}.T"].item() == part.T
            listed = case.inputs[f"{name}.t_epl"]
            assert len(listed) == len(part.t_list)
            assert (listed[32:] == 0).all()
            assert (part.t_list[32:] == 0).all()
            noise = case.inputs[f"{name}.rng.000.randn_like"]
            ours = {
                "betas": part.betas(),
                "alphas_bar_sqrt": alpha_bar.sqrt(),
                "one_minus_alphas_bar_sqrt": (1 - alpha_bar).sqrt(),
                "x_t": part.apply(case.inputs["x"], case.inputs[f"{name}.t"][:, 0], noise),
            }  # fmt: skip
            for key, value in ours.items():
                deviations.append(close(f"{name}.{key}", value.float(), case.outputs[f"{name}.{key}"]))
    told("Diffusion-GAN", deviations)
