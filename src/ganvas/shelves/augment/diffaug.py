"""Differentiable augmentation for data-efficient GAN training (Zhao et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from ganvas.nn import draws
from ganvas.nn.warp import shift
from ganvas.parts import augment
from ganvas.types import Augment

Policy = Literal["color", "translation", "cutout"]


@augment("diffaug", paper="Zhao et al. 2020 (DiffAugment)")
class DiffAugment(Augment):
    """Colour, translation and cutout, done to real and generated images alike.

    Parameters
    ----------
    policy : what is done, in this order.
    translation_ratio : the largest shift as a part of the side; 0 comes in from outside.
    cutout_ratio : the side of the square that is set to 0, as a part of the image's.
    """

    def __init__(
        self,
        *,
        policy: tuple[Policy, ...] = ("color", "translation", "cutout"),
        translation_ratio: Annotated[float, Ge(0), Le(1)] = 0.125,
        cutout_ratio: Annotated[float, Gt(0), Le(1)] = 0.5,
    ) -> None:
        self.policy = policy
        self.translation_ratio = translation_ratio
        self.cutout_ratio = cutout_ratio

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return self.apply(images, self.draw(images))

    def draw(self, images: Tensor) -> dict[str, Tensor]:
        """What is done to each image: one number each (N,), places in whole pixels."""
        N, _, H, W = images.shape
        drawn: dict[str, Tensor] = {}
        if "color" in self.policy:
            drawn["brightness"] = draws.uniform("brightness", (N,), like=images) - 0.5
            drawn["saturation"] = 2 * draws.uniform("saturation", (N,), like=images)
            drawn["contrast"] = draws.uniform("contrast", (N,), like=images) + 0.5
        if "translation" in self.policy:
            for name, side in (("up", H), ("left", W)):
                most = _pixels(side, self.translation_ratio)
                drawn[name] = draws.integers(name, -most, most + 1, (N,), like=images)
        if "cutout" in self.policy:
            for name, side in (("cut_y", H), ("cut_x", W)):
                size = _pixels(side, self.cutout_ratio)
                drawn[name] = draws.integers(name, 0, side + 1 - size % 2, (N,), like=images)
        return drawn

    def apply(self, images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Do what was drawn, in the order of the policy; what is not in `draws` is not done."""

        def strength(name: str) -> Tensor:
            return draws[name].to(images.dtype)[:, None, None, None]

        for step in self.policy:
            if step == "color":
                if "brightness" in draws:
                    images = images + strength("brightness")
                if "saturation" in draws:
                    grey = images.mean(1, keepdim=True)
                    images = grey + (images - grey) * strength("saturation")
                if "contrast" in draws:
                    mean = images.mean((1, 2, 3), keepdim=True)
                    images = mean + (images - mean) * strength("contrast")
            elif step == "translation":
                images = shift(images, -draws["up"], -draws["left"], reflect=False)
            else:
                images = images * self.outside_cutout(images, draws["cut_y"], draws["cut_x"])
        return images

    def outside_cutout(self, images: Tensor, cut_y: Tensor, cut_x: Tensor) -> Tensor:
        """(N, 1, H, W): 0 in the square about (cut_y, cut_x), 1 elsewhere."""
        inside = []
        for side, centre in zip(images.shape[2:], (cut_y, cut_x), strict=True):
            size = _pixels(side, self.cutout_ratio)
            from_start = torch.arange(side, device=images.device) - (centre - size // 2)[:, None]  # (N, side)
            inside.append((from_start >= 0) & (from_start < size))
        rows, columns = inside
        return (~(rows[:, None, :, None] & columns[:, None, None, :])).to(images.dtype)


def _pixels(side: int, ratio: float) -> int:
    return int(side * ratio + 0.5)
