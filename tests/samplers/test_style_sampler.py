"""Truncation in w and style mixing, on a generator whose image shows its w."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ganvas.errors import MissingCapability, UsageError
from ganvas.model import Model
from ganvas.parts import image_spec
from ganvas.types import Generator, Latent, LatentSpec, SpacedGenerator

L, W = 4, 3


class Styled(SpacedGenerator):
    """w = 2 z + 1 (its mean is 1), one w a layer; the image is w+ itself, scaled into [-1, 1]."""

    conditional = False

    def __init__(self) -> None:
        super().__init__()
        self.latents = {
            "z": LatentSpec((W,), "normal"), "w": LatentSpec((W,), "none"), "w+": LatentSpec((L, W), "none"),
        }  # fmt: skip

    @property
    def centre(self) -> Latent:
        return Latent(torch.ones(1, W), "w")

    def to_space(self, latent: Latent, space: str, label: Tensor | None = None) -> Latent:
        values = 2 * latent.values + 1 if latent.space == "z" else latent.values
        if space == "w+" and latent.space != "w+":
            values = values[:, None].expand(-1, L, -1)
        return Latent(values, space)

    def from_space(self, latent: Latent, label: Tensor | None = None) -> Tensor:
        return self.to_space(latent, "w+").values[:, None] / 16  # (N, 1, L, W)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.from_space(Latent(latent))


def ws(n: int = 70, **sampler: Any) -> Tensor:
    model = Model({"sampler": {"use": "plain"}}, image_spec((1, L, W)), {"generator": Styled()})
    wish = {"use": "style", **sampler} if sampler else None
    return 16 * model.sample(n, seed=0, sampler=wish)[:, 0]  # (n, L, W)


def test_psi_one_changes_nothing_and_zero_gives_the_mean() -> None:
    torch.testing.assert_close(ws(psi=1.0), ws())
    torch.testing.assert_close(ws(psi=0.0), torch.ones(70, L, W))


def test_psi_scales_the_way_from_the_mean() -> None:
    torch.testing.assert_close(ws(psi=0.3) - 1, 0.3 * (ws() - 1))


def test_a_cutoff_leaves_later_layers_alone() -> None:
    found, plain = ws(psi=0.5, cutoff=2), ws()
    torch.testing.assert_close(found[:, 2:], plain[:, 2:])
    torch.testing.assert_close(found[:, :2] - 1, 0.5 * (plain[:, :2] - 1))


def test_mixed_layers_are_the_next_images_whatever_the_count() -> None:
    plain, mixed = ws(64), ws(64, mix=[1, 2])
    torch.testing.assert_close(mixed[:, 1:3], plain.roll(-1, 0)[:, 1:3])
    torch.testing.assert_close(mixed[:, [0, 3]], plain[:, [0, 3]])
    torch.testing.assert_close(ws(10, mix=[1, 2]), mixed[:10])


def test_layers_that_are_not_there_and_generators_without_w_are_refused() -> None:
    with pytest.raises(UsageError, match="0 to 3"):
        ws(mix=[2, 4])
    plain = Model({"sampler": {"use": "plain"}}, image_spec((1, 1, 3)), {"generator": Plain()})
    with pytest.raises(UsageError, match="space w"):
        plain.sample(2, sampler="style")


class Plain(Generator):
    conditional = False

    def __init__(self) -> None:
        super().__init__()
        self.latents = {"z": LatentSpec((3,), "normal")}

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return latent[:, None, None]


def test_points_of_w_are_where_the_mapping_takes_z() -> None:
    model = Model({"sampler": {"use": "plain"}}, image_spec((1, L, W)), {"generator": Styled()})
    z, w = model.draw(5, seed=3), model.draw(5, seed=3, space="w")
    torch.testing.assert_close(w.values, 2 * z.values + 1)
    torch.testing.assert_close(model.synthesize(w), model.synthesize(z))
    mean, std = model.statistics("w", n=20_000)
    torch.testing.assert_close(mean, torch.ones(W), atol=0.05, rtol=0)
    torch.testing.assert_close(std, 2 * torch.ones(W), atol=0.05, rtol=0)
    with pytest.raises(MissingCapability, match="'s'"):
        model.synthesize(Latent(w.values, "s"))
