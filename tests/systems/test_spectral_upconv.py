"""Up-convolutions bend spectra (Durall et al. 2020): where the copies come from, and a term with a gradient."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor, nn

from ganvas import parts
from ganvas.nn.spectrum import radial_profile
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features
from ganvas.shelves.regularizers.spectrum import ROUNDING_POWER, radial_spectrum, relative_spectrum, ring_weights
from ganvas.types import NO_CONDITION, Batch, Facts, Latent, Turn

pytestmark = pytest.mark.system("spectral-upconv")


def test_spectrum_of_a_zero_inserted_signal_is_the_tiled_spectrum() -> None:
    torch.manual_seed(0)
    small = torch.randn(3, 8, 6)
    large = torch.zeros(3, 16, 12)
    large[:, ::2, ::2] = small
    torch.testing.assert_close(torch.fft.fft2(large), torch.fft.fft2(small).repeat(1, 2, 2), rtol=0, atol=1e-5)
    # A transposed convolution is that and a small kernel: with a kernel of one tap, the copies are all there.
    layer = nn.ConvTranspose2d(1, 1, 1, stride=2, output_padding=1, bias=False)
    nn.init.ones_(layer.weight)
    torch.testing.assert_close(layer(small[:, None])[:, 0], large)


def test_profile_of_white_noise_is_flat() -> None:
    torch.manual_seed(0)
    noise = torch.randn(1000, 1, 32, 32)
    hard = radial_profile(noise).mean(0)  # divided by the counts of the rings already
    power = torch.fft.rfft2(noise[:, 0], norm="ortho").abs().square()
    soft = torch.einsum("nhw,rhw->nr", power, ring_weights(32, 32)).mean(0)
    for profile in (hard, soft):
        assert (profile[1:] - 1).abs().max() < 0.03
        assert abs(profile[0] - 1) < 3 * math.sqrt(2 / 1000)  # one frequency alone: χ²₁, of standard error √(2/n)


@pytest.mark.parametrize("size", [(16, 16), (12, 20)], ids=str)
def test_profile_is_the_average_of_its_bins(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, *size)
    found, side = radial_profile(images), min(size)
    for n in range(2):
        power = np.abs(np.fft.fftshift(np.fft.fft2(images[n].mean(0).double().numpy()))) ** 2 / (size[0] * size[1])
        bins: dict[int, list[float]] = {}
        for y in range(size[0]):
            for x in range(size[1]):
                down, across = (y - size[0] // 2) / size[0] * side, (x - size[1] // 2) / size[1] * side
                bins.setdefault(int(math.sqrt(down**2 + across**2) + 1e-9), []).append(power[y, x])
        expected = [np.mean(bins[k]) for k in range(side // 2 + 1)]
        np.testing.assert_allclose(found[n], expected, rtol=1e-5, atol=1e-5)


def test_soft_rings_are_the_average_of_their_two_neighbours() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 1, 8, 8)
    power = np.abs(np.fft.fft2(image[0, 0].double().numpy())) ** 2 / 64
    total, weight = np.zeros(5), np.zeros(5)
    for y in range(8):
        for x in range(8):
            radius = math.hypot(min(y, 8 - y), min(x, 8 - x))
            for k in range(5):
                share = max(0.0, 1 - abs(radius - k))
                total[k] += share * power[y, x]
                weight[k] += share
    decibel = np.log(total / weight + 1e-8)
    expected = (decibel - decibel.min()) / (decibel.max() - decibel.min() + 1e-8)
    np.testing.assert_allclose(radial_spectrum(image)[0], expected, rtol=0, atol=1e-5)


def test_relative_spectrum_is_that_of_the_brightness_and_its_term_a_mean_absolute_difference() -> None:
    torch.manual_seed(0)
    fake, real = torch.rand(3, 2, 8, 8) * 2 - 1, torch.rand(5, 2, 8, 8) * 2 - 1
    power = np.abs(np.fft.fft2((fake.mean(1).double().numpy() + 1) / 2)) ** 2 / 64
    radius = np.hypot(
        *np.meshgrid(np.minimum(np.arange(8), 8 - np.arange(8)), np.minimum(np.arange(8), 8 - np.arange(8)))
    )
    weight = np.clip(1 - np.abs(radius - np.arange(5)[:, None, None]), 0, None)
    rings = np.einsum("nhw,rhw->nr", power, weight) / weight.sum((1, 2)) + ROUNDING_POWER
    expected = np.log(rings[:, 1:] / rings[:, :1])
    np.testing.assert_allclose(relative_spectrum(fake), expected, rtol=0, atol=1e-4)
    term = parts.build(
        "regularizer", check_node("regularizer", {"use": "spectral-distribution", "scale": "brightness"})
    )
    turn = Turn({}, 0, real, NO_CONDITION, Latent(torch.zeros(3, 1)), NO_CONDITION, None, lambda z, condition: fake)
    difference = np.abs(expected - relative_spectrum(real).mean(0).numpy()).mean()
    assert term(turn).item() == pytest.approx(difference, rel=1e-4)
    black = torch.full((2, 1, 8, 8), -1.0, requires_grad=True)
    relative_spectrum(black).sum().backward()
    assert black.grad is not None and black.grad.isfinite().all()


# ------------------------------------------------------------------------------------------- toys

SPEC, STEPS = image_spec((1, 32, 32), 10), 250


def network(name: str, **keys: object) -> nn.Module:
    return parts.build("network", check_node("network", {"use": name, **keys}), SPEC)


def real_digits() -> Tensor:
    dataset = parts.build("dataset", check_node("dataset", {"use": "digits", "size": 32, "split": "all"}))
    data: Tensor = dataset.batch(np.random.default_rng(0).permutation(len(dataset)), np.random.default_rng(0)).data
    return data


@functools.cache
def trained_samples(seed: int, weight: float = 0) -> Tensor:
    """1,000 samples of a DCGAN, transposed convolutions to the pixels, on the first 1,000 digits."""
    torch.manual_seed(seed)
    nets = {
        "generator": network("dcgan-generator", width=32, z_dim=32),
        "discriminator": network("dcgan-discriminator", width=32),
    }
    term = {"spectral-distribution": {"weight": weight, "scale": "brightness"}}
    node = {"use": "adversarial", "regularizers": term if weight else {}}
    task = parts.build("task", check_node("task", node), nets, Facts(SPEC))
    optim = {role: torch.optim.Adam(net.parameters(), lr=5e-4, betas=(0.5, 0.999)) for role, net in nets.items()}
    data = real_digits()[:1000]
    for step in range(STEPS):
        for update in task.updates():
            (role,) = update.nets
            optim[role].zero_grad()
            batch = Batch(data[torch.randint(1000, (32,))])
            torch.stack(list(update.losses(batch, step).values())).sum().backward()
            optim[role].step()
    with torch.no_grad():
        made: Tensor = nets["generator"].eval()(torch.randn(1000, 32))
    return made


@pytest.mark.slow
def test_svm_on_spectra_tells_samples_from_digits() -> None:
    """At 32x32; at 16x16, with half as many rings and a better generator, it was right in 0.70 to 0.77 of cases."""

    def vectors(images: Tensor) -> np.ndarray:
        profile = radial_profile(images)
        return (profile / profile[:, :1].clamp(min=1e-6)).add(1e-8).log().numpy()[:, 1:]

    real, accuracies = vectors(real_digits()), []
    for seed in range(3):
        fake = vectors(trained_samples(seed))
        svm = make_pipeline(StandardScaler(), SVC(C=10))
        svm.fit(np.concatenate([real[:100], fake[:100]]), np.repeat([0, 1], 100))
        accuracies.append(((svm.predict(real[1000:]) == 0).mean() + (svm.predict(fake[100:]) == 1).mean()) / 2)
    print(f"accuracy on spectra: {np.round(accuracies, 3).tolist()}")  # noqa: T201
    assert min(accuracies) >= 0.95, accuracies


# With spectra scaled to [0, 1] per image, as published, an adversarial run gains nothing. At 32x32 with a convolution
# after the last up-convolution, seed 0 (spectral L1, Fréchet distance): 0.78, 16 without; 0.72, 16 at weight 0.5;
# 2.4, 51 at 2; 2.1, 63 at 10; 1.2, 75 at 50. At 16x16 without that convolution, mean of 3 seeds: 0.16, 9 without;
# 0.31, 44 at 2. Above 0.5 the critic wins at once. Relative to the mean brightness it works, as the next test shows.
# After 600 steps instead of 250 it still does, seeds 0 and 1: 0.43, 9.1 and 1.10, 17.8 without; 0.16, 9.1 and 0.24,
# 7.9 at weight 5.
@pytest.mark.slow
def test_term_halves_the_spectral_distance_of_an_adversarial_run() -> None:
    real, extractor = real_digits()[1000:], parts.build("extractor", check_node("extractor", "digit-net"))

    def distances(fake: Tensor) -> tuple[float, float, float]:
        published, relative = (
            (spectrum(fake).mean(0) - spectrum(real).mean(0)).abs().sum().item()
            for spectrum in (radial_spectrum, relative_spectrum)
        )
        return published, relative, frechet_distance_of_features(extractor(real)[0], extractor(fake)[0])

    for seed in range(3):
        without, with_term = distances(trained_samples(seed)), distances(trained_samples(seed, weight=5))
        print(f"spectral L1 (both scales), Fréchet: {np.round(without, 2)} -> {np.round(with_term, 2)}")  # noqa: T201
        assert with_term[0] <= 0.5 * without[0]
        assert with_term[1] <= 0.5 * without[1]
        assert with_term[2] <= 1.1 * without[2]


@pytest.mark.slow
def test_term_alone_brings_the_spectrum_of_a_generator_to_that_of_real_data() -> None:
    real = real_digits()
    target = radial_spectrum(real[1000:]).mean(0)
    term = parts.build("regularizer", check_node("regularizer", "spectral-distribution"))
    for seed in range(3):
        torch.manual_seed(seed)
        generator = network("dcgan-deep-generator", widths=[32, 16, 16, 16], z_dim=32)
        optim = torch.optim.Adam(generator.parameters(), lr=2e-3)

        def gap(net: nn.Module = generator) -> float:
            with torch.no_grad():
                return (radial_spectrum(net(torch.randn(256, 32))).mean(0) - target).abs().sum().item()

        before = gap()
        for step in range(300):
            batch, latent = real[torch.randint(1000, (32,))], Latent(torch.randn(32, 32))
            turn = Turn(
                {},
                step,
                batch,
                NO_CONDITION,
                latent,
                NO_CONDITION,
                None,
                lambda z, _, net=generator: net(z.values),
            )
            optim.zero_grad()
            term(turn).backward()
            optim.step()
        after = gap()
        print(f"spectral L1 {before:.2f} -> {after:.2f}")  # noqa: T201
        assert after <= 0.5 * before
