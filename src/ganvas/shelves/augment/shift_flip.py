"""The augmentation that consistency regularization compares a critic's scores under (Zhang et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from ganvas.nn import draws
from ganvas.nn.warp import shift
from ganvas.parts import augment
from ganvas.types import Augment


@augment("shift-flip", paper="Zhang et al. 2020 (CR-GAN)")
class ShiftFlip(Augment):
    """A horizontal flip for half of the images, and a shift by whole pixels with mirrored borders.

    Parameters
    ----------
    shift_ratio : the largest shift as a part of the side: 4 pixels of 32.
    """

    def __init__(self, *, shift_ratio: Annotated[float, Ge(0), Le(1)] = 0.125) -> None:
        self.shift_ratio = shift_ratio

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return self.apply(images, self.draw(images))

    def draw(self, images: Tensor) -> dict[str, Tensor]:
        """`flip` (N,) bool, `down` and `right` (N,) whole pixels."""
        N, _, H, W = images.shape
        drawn = {"flip": draws.uniform("flip", (N,), like=images) < 0.5}
        for name, side in (("down", H), ("right", W)):
            most = int(side * self.shift_ratio + 0.5)
            drawn[name] = draws.integers(name, -most, most + 1, (N,), like=images)
        return drawn

    def apply(self, images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Flip, then shift, as drawn."""
        images = torch.where(draws["flip"][:, None, None, None], images.flip(3), images)
        return shift(images, draws["down"], draws["right"], reflect=True)
