"""Standing and batch statistics against batch norm's definition, and truncation by interpolation."""

import pytest
import torch

from ganvas import parts
from ganvas.errors import MissingCapability
from ganvas.model import Model
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.types import Condition


def model(use: str = "sngan-generator", **keys: object) -> Model:
    spec = image_spec((1, 8, 8), num_classes=3)
    torch.manual_seed(0)
    net = parts.build("network", check_node("network", {"use": use, "width": 8, "z_dim": 6, **keys}), spec)
    return Model({"sampler": {"use": "plain"}}, spec, {"generator": net})


def test_batch_statistics_are_those_of_training_and_leave_the_model_alone() -> None:
    made = model()
    before = {name: value.clone() for name, value in made.nets["generator"].state_dict().items()}
    drawn = made.sample(64, seed=1, sampler="batch-statistics")
    assert all(torch.equal(before[name], value) for name, value in made.nets["generator"].state_dict().items())
    made.nets["generator"].train()
    torch.testing.assert_close(drawn, made.nets["generator"](made.draw(64, seed=1).values))


def test_an_image_by_batch_statistics_does_not_depend_on_how_many_are_asked_for() -> None:
    assert torch.equal(
        model().sample(5, seed=2, sampler="batch-statistics"),
        model().sample(90, seed=2, sampler="batch-statistics")[:5],
    )


def test_standing_statistics_are_the_mean_over_the_batches_of_their_means() -> None:
    made = model(conditioning="batch-norm")
    sampler = parts.build("sampler", check_node("sampler", {"use": "standing-statistics", "batches": 5, "batch": 32}))
    latent = made.draw(4, seed=0)
    sampler(made, latent, Condition(label=torch.zeros(4, dtype=torch.int64)), torch.Generator())
    norm = next(m for m in sampler.net.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert norm.num_batches_tracked == 5
    random = torch.Generator().manual_seed(0)
    means = []
    for _ in range(5):
        z = torch.randn(32, 6, generator=random)
        torch.randint(3, (32,), generator=random)
        first = made.nets["generator"].project(z).unflatten(1, made.nets["generator"].stem_shape)
        means.append(first.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0), atol=1e-6, rtol=1e-4)


def test_standing_statistics_make_an_untrained_generator_look_as_in_training() -> None:
    """Running statistics of a fresh net are 0 and 1; gathered ones bring images near those of training mode."""
    made = model()
    training = made.sample(64, seed=3, sampler="batch-statistics")
    standing = made.sample(64, seed=3, sampler="standing-statistics")
    plain = made.sample(64, seed=3)
    assert (standing - training).square().mean() < 0.2 * (plain - training).square().mean()


@pytest.mark.parametrize("name", ["standing-statistics", "batch-statistics"])
def test_a_generator_without_batch_norm_is_refused(name: str) -> None:
    with pytest.raises(MissingCapability, match="batch norm"):
        model("mlp-generator").sample(2, sampler=name)


def test_interpolation_at_one_is_plain_and_at_zero_one_image() -> None:
    made = model()
    assert torch.equal(made.sample(6, sampler={"use": "interpolated", "psi": 1.0}), made.sample(6))
    still = made.sample(6, sampler={"use": "interpolated", "psi": 0.0})
    torch.testing.assert_close(still, still[:1].expand_as(still))
    half = made.sample(6, sampler={"use": "interpolated", "psi": 0.5})
    torch.testing.assert_close(half, made.nets["generator"](0.5 * made.draw(6, seed=0).values))
