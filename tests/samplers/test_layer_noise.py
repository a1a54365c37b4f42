"""The noise that layers of style generators add: how it is chosen when sampling and when walking."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ganvas import parts
from ganvas.errors import MissingCapability, UsageError
from ganvas.model import Model
from ganvas.model.walk import walk
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.types import Network, SpacedGenerator

SPEC = image_spec((3, 16, 16))
KEYS = {"z_dim": 6, "w_dim": 5, "channel_base": 64, "channel_max": 8, "mapping": {"layers": 2}}
NODES: dict[str, dict[str, Any]] = {name: {"use": f"{name}-generator", **KEYS} for name in ("stylegan", "stylegan2")}
NODES["mobilestylegan"] = {"use": "mobilestylegan-generator", **KEYS}
NODES["householder"] = {"use": "householder-generator", "of": NODES["stylegan2"], "rank": 3}

every_noisy = pytest.mark.parametrize("name", NODES)


def model_of(node: dict[str, Any], strength: float = 0.5) -> Model:
    torch.manual_seed(0)
    net: Network = parts.build("network", check_node("network", node), SPEC)
    for name, parameter in net.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(strength)
    return Model({"sampler": {"use": "plain"}}, SPEC, {"generator": net})


def images(model: Model, n: int = 6, **keys: Any) -> Tensor:
    return model.sample(n, seed=2, sampler={"use": "style", **keys}) if keys else model.sample(n, seed=2)


@every_noisy
def test_const_is_the_usual_and_none_takes_it_away(name: str) -> None:
    model = model_of(NODES[name])
    assert isinstance(model.generator, SpacedGenerator) and model.generator.noisy
    plain = images(model)
    torch.testing.assert_close(images(model, noise="const"), plain)
    assert (images(model, noise="none") - plain).abs().max() > 1e-3
    quiet = model_of(NODES[name], strength=0.0)
    for noise in ("random", "const", "none"):
        torch.testing.assert_close(images(quiet, noise=noise), images(quiet))


@every_noisy
def test_random_noise_differs_by_image_and_follows_the_seed(name: str) -> None:
    model = model_of(NODES[name])
    found = images(model, noise="random")
    assert torch.equal(images(model, noise="random"), found)
    torch.testing.assert_close(images(model, 3, noise="random"), found[:3])  # as for all other chance
    torch.testing.assert_close(model.sample(6, seed=2, sampler={"use": "style", "noise": "random"}, batch=2), found)
    # A latent has many images: the same w, psi 0, and yet no two are alike.
    still = images(model, psi=0, noise="random") if model.generator.centre is not None else found  # type: ignore[union-attr]
    assert min((still[0] - other).abs().max() for other in still[1:]) > 1e-3


@every_noisy
def test_any_space_can_be_given_noise_from_a_generator(name: str) -> None:
    model = model_of(NODES[name])
    z = model.draw(2, seed=0)
    for space in model.latents:
        point = model.draw(2, seed=0, space=space)
        one, other = (
            model.generator.noised(point, noise=torch.Generator().manual_seed(5))  # type: ignore[union-attr]
            for _ in range(2)
        )
        assert torch.equal(one, other), space
        torch.testing.assert_close(
            one, model.generator.noised(z, noise=torch.Generator().manual_seed(5))  # type: ignore[union-attr]
        )  # fmt: skip


@pytest.mark.parametrize("noise", ["random", "const", "none", None])
def test_a_walk_does_not_flicker(noise: Any) -> None:
    """Frames of a straight path from a latent to itself are the same to the bit."""
    model = model_of(NODES["stylegan"])

    def frames(**keys: Any) -> list[np.ndarray]:
        return list(walk(model, stations=1, frames=3, seed=1, space="w", columns=2, **keys))

    found = frames(noise=noise)
    assert all(np.array_equal(found[0], each) for each in found[1:])
    assert np.array_equal(found[0], frames()[0]) == (noise in ("const", None))


def test_generators_without_noise_say_so() -> None:
    styled = model_of({"use": "stylegan3-generator", **{**KEYS, "layers": 4, "margin": 2}})
    with pytest.raises(UsageError, match="add no noise"):
        images(styled, noise="none")
    with pytest.raises(MissingCapability, match="add no noise"):
        next(walk(styled, stations=2, frames=1, seed=0, noise="none"))
    assert isinstance(styled.generator, SpacedGenerator) and not styled.generator.noisy
    with pytest.raises(UsageError, match="needs a generator with a space w"):
        plain = model_of({"use": "sngan-generator", "z_dim": 4, "width": 4})
        images(plain, noise="none")
