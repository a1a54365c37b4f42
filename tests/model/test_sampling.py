"""The same seed gives the same images: at any batch size, within any larger set, in any process."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import ganvas
from ganvas import parts
from ganvas.errors import GanvasError, MissingCapability, UnknownPart, UsageError
from ganvas.files.pictures import to_uint8
from ganvas.model import Capability, HasCritic, HasLatents, Model
from ganvas.parts import data_spec, image_spec
from ganvas.types import Generator, Latent, LatentSpec


@pytest.fixture(scope="module")
def model(trained_run: Path) -> Model:
    return ganvas.load(trained_run)


class Echo(Generator):
    """A generator whose datum is its latent, so that what it is given can be seen: points, which nobody clamps."""

    def __init__(self, prior: str = "normal") -> None:
        super().__init__()
        self.latents = {"z": LatentSpec((16,), prior), "w": LatentSpec((4,), "none")}
        self.conditional = False

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return latent.flatten(1)


def echo(prior: str = "normal") -> Model:
    return Model({"sampler": {"use": "plain"}}, data_spec("plane", (16,)), {"generator": Echo(prior)})


class Loud(Echo):
    """A generator of images that does not end in a tanh."""

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return 9 * latent.reshape(-1, 1, 4, 4)


def test_images_lie_in_their_range_whatever_the_generator_ends_in() -> None:
    images = Model({"sampler": {"use": "plain"}}, image_spec((1, 4, 4)), {"generator": Loud()}).sample(20, seed=0)
    assert images.min() == -1 and images.max() == 1


# -------------------------------------------------------------------------------------------------- one seed, one image


def test_batch_size_changes_nothing_but_the_last_bits(model: Model) -> None:
    reference = model.sample(64, seed=3, batch=64)
    for batch in (1, 7, 64, 1000):
        images = model.sample(64, seed=3, batch=batch)
        torch.testing.assert_close(images, reference, rtol=0, atol=1e-5)
        differing = (to_uint8(images) != to_uint8(reference)).mean()
        assert differing < 1e-3


def test_fewer_samples_are_the_beginning_of_more(model: Model) -> None:
    few, many = model.sample(10, seed=5), model.sample(100, seed=5)
    torch.testing.assert_close(few, many[:10], rtol=0, atol=1e-5)
    assert torch.equal(model.draw(10, seed=5).values, model.draw(100, seed=5).values[:10])
    assert torch.equal(model.labels(10, seed=5), model.labels(100, seed=5)[:10])


@given(few=st.integers(0, 130), more=st.integers(0, 130), seed=st.integers(0, 2**40))
@settings(max_examples=30)
def test_a_latent_depends_on_seed_and_place_alone(few: int, more: int, seed: int) -> None:
    short, long = echo().draw(few, seed=seed).values, echo().draw(few + more, seed=seed).values
    assert torch.equal(short, long[:few])


def test_same_call_gives_the_same_bits_and_touches_no_global_randomness(model: Model) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one = model.sample(20, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(model.sample(20, seed=1), one)
    assert not torch.equal(model.sample(20, seed=2), one)


def test_samples_are_images_on_the_cpu(model: Model) -> None:
    images = model.sample(3, seed=0)
    assert images.shape == (3, *model.spec.shape)
    assert images.dtype == torch.float32
    assert images.device.type == "cpu"
    assert images.abs().max() <= 1
    assert model.sample(0, seed=0).shape == (0, *model.spec.shape)


def test_models_are_frozen(model: Model) -> None:
    assert not any(net.training for net in model.nets.values())
    assert not any(parameter.requires_grad for net in model.nets.values() for parameter in net.parameters())


# --------------------------------------------------------------------------------------------------- draws


def test_normal_latents_are_normal() -> None:
    values = echo().draw(2000, seed=0).values
    assert values.shape == (2000, 16)
    assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-3
    assert len(np.unique(values.numpy(), axis=0)) == 2000
    correlation = np.corrcoef(values.numpy(), rowvar=False) - np.eye(16)
    assert np.abs(correlation).max() < 5 / math.sqrt(2000)


def test_uniform_latents_are_uniform() -> None:
    values = echo("uniform").draw(2000, seed=0).values
    assert stats.kstest(values.flatten().numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3


def test_seeds_and_blocks_are_independent() -> None:
    one, other = echo().draw(128, seed=0).values, echo().draw(128, seed=1).values
    for a, b in ((one, other), (one[:64], one[64:])):
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 5 / math.sqrt(a.numel())


def test_drawn_labels_are_uniform_and_independent_of_the_latents(model: Model) -> None:
    labels = model.labels(5000, seed=0)
    assert stats.chisquare(torch.bincount(labels, minlength=10).numpy()).pvalue > 1e-3


# --------------------------------------------------------------------------------------------------- truncation


@pytest.mark.parametrize("threshold", [0.3, 1.0, 2.0])
def test_truncated_latents_have_the_truncated_normal_distribution(threshold: float) -> None:
    values = echo().sample(1000, seed=0, truncation=threshold).flatten().numpy()
    assert np.abs(values).max() <= threshold
    assert stats.kstest(values, stats.truncnorm(-threshold, threshold).cdf).pvalue > 1e-3


def test_truncation_keeps_the_order_of_latents_and_vanishes_at_a_large_threshold() -> None:
    free = echo().sample(50, seed=0)
    assert torch.equal(echo().sample(50, seed=0, truncation=0.5).flatten().argsort(), free.flatten().argsort())
    torch.testing.assert_close(echo().sample(50, seed=0, truncation=8.0), free, rtol=1e-5, atol=1e-5)


def test_truncation_is_the_sampler_by_another_name(model: Model) -> None:
    one = model.sample(4, seed=0, truncation=0.7)
    other = model.sample(4, seed=0, sampler={"use": "truncated", "threshold": 0.7})
    assert torch.equal(one, other)
    assert not torch.equal(one, model.sample(4, seed=0))


# --------------------------------------------------------------------------------------------------- labels


def test_a_label_is_for_all_or_one_for_each(model: Model) -> None:
    alone = model.sample(4, seed=0, label=3)
    listed = model.sample(4, seed=0, label=[3, 3, 3, 3])
    tensor = model.sample(4, seed=0, label=torch.tensor([3] * 4))
    assert torch.equal(alone, listed)
    assert torch.equal(alone, tensor)
    mixed = model.sample(4, seed=0, label=[3, 1, 3, 1])
    torch.testing.assert_close(mixed[::2], alone[::2], rtol=0, atol=1e-5)
    assert not torch.allclose(mixed[1::2], alone[1::2], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "problem", "hint"),
    [
        ({"label": 10}, "label 10 is outside 0 to 9", "0 0"),
        ({"label": -1}, "label -1 is outside", "classes are"),
        ({"label": [0, 1]}, "2 labels for 4 samples", "one for each"),
        ({"label": []}, "0 labels for 4 samples", "one for each"),
        ({"label": "three"}, "no class is called 'three'", "its classes are 0 0, 1 1"),
        ({"label": 2.5}, "2.5 is no class number", "0 to 9"),
        ({"batch": 0}, "batches of 0", "at least 1"),
        ({"truncation": 0.5, "sampler": "plain"}, "both given", "threshold"),
    ],
)
def test_arguments_that_make_no_sense(model: Model, options: dict[str, object], problem: str, hint: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        model.sample(4, seed=0, **options)
    assert hint in caught.value.hint


def test_negative_count() -> None:
    with pytest.raises(UsageError):
        echo().sample(-1, seed=0)


def test_label_for_a_model_without_classes() -> None:
    with pytest.raises(UsageError, match="knows no classes"):
        echo().sample(2, seed=0, label=0)
    assert echo().labels(2, seed=0) is None


@pytest.mark.parametrize(
    "sampler", ["trunctated", {"use": "truncated", "treshold": 1.0}, {"use": "truncated", "threshold": -1.0}]
)
def test_unknown_samplers_and_bad_keys(sampler: object) -> None:
    with pytest.raises(GanvasError) as caught:
        echo().sample(2, seed=0, sampler=sampler)
    if sampler == "trunctated":
        assert isinstance(caught.value, UnknownPart)
        assert "Did you mean 'truncated'?" in caught.value.problem


# --------------------------------------------------------------------------------------------------- capabilities


def test_spaces_that_cannot_be_drawn_from(model: Model) -> None:
    with pytest.raises(MissingCapability, match="no latent space 'q'"):
        model.draw(1, seed=0, space="q")
    with pytest.raises(MissingCapability, match="no latent space 'w'"):
        echo().draw(1, seed=0, space="w")


def test_synthesize_takes_latents_as_they_are() -> None:
    values = torch.randn(3, 16)
    assert torch.equal(echo().synthesize(Latent(values)).flatten(1), values)


def test_capabilities(model: Model) -> None:
    model.require(HasLatents, HasCritic)
    echo().require(HasLatents)
    with pytest.raises(MissingCapability, match=r"this needs a critic; the model has generator"):
        echo().require(HasLatents, HasCritic)
    critic = parts.build("network", {"use": "sngan-discriminator", "width": 8}, image_spec((1, 8, 8)))
    headless = Model({"sampler": {"use": "plain"}}, image_spec((1, 8, 8)), {"discriminator": critic})
    headless.require(HasCritic)
    for call, missing in (
        (lambda: headless.sample(1, seed=0), "a network that makes data"),
        (lambda: headless.draw(1, seed=0), "latent spaces"),
        (lambda: headless.require(HasLatents), "latent spaces"),
    ):
        with pytest.raises(MissingCapability, match=f"this needs {missing}; the model has discriminator"):
            call()


def test_every_capability_has_a_name() -> None:
    for capability in Capability.__subclasses__():
        assert capability.name
        assert isinstance(capability.present(echo()), bool)
