"""Up-convolutions bend spectra (Durall et al. 2020): where the copies come from, and a term with a gradient."""

from __future__ import annotations

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
from ganvas.recipe import check_node
from ganvas.regularizers.spectrum import radial_spectrum, ring_weights
from ganvas.types import Batch, DataSpec, Latent, Turn

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


# ------------------------------------------------------------------------------------------- toys

SPEC, STEPS = DataSpec((1, 32, 32), 10), 250


def network(name: str, **keys: object) -> nn.Module:
    return parts.build("network", check_node("network", {"use": name, **keys}), SPEC)


def real_digits() -> Tensor:
    dataset = parts.build("dataset", check_node("dataset", {"use": "digits", "size": 32, "split": "all"}))
    data: Tensor = dataset.batch(np.random.default_rng(0).permutation(len(dataset)), np.random.default_rng(0)).data
    return data


def trained_samples(seed: int) -> Tensor:
    """1,000 samples of a DCGAN, transposed convolutions to the pixels, on the first 1,000 digits."""
    torch.manual_seed(seed)
    nets = {
        "generator": network("dcgan-generator", width=32, z_dim=32),
        "discriminator": network("dcgan-discriminator", width=32),
    }
    task = parts.build("task", check_node("task", "adversarial"), nets, SPEC)
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


# Not shown: that the term halves the spectral distance of an adversarial run at the same Fréchet distance. At 32x32
# with a convolution after the last up-convolution, seed 0 (spectral L1, Fréchet distance): 0.78, 16 without; 0.72, 16
# at weight 0.5; 2.4, 51 at 2; 2.1, 63 at 10; 1.2, 75 at 50. At 16x16 without that convolution, mean of 3 seeds: 0.16,
# 9 without; 0.31, 44 at 2. Above 0.5 the critic wins at once. What holds: the term by itself brings the spectrum near.
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
            turn = Turn({}, step, batch, None, latent, None, None, lambda z, label, net=generator: net(z.values))
            optim.zero_grad()
            term(turn).backward()
            optim.step()
        after = gap()
        print(f"spectral L1 {before:.2f} -> {after:.2f}")  # noqa: T201
        assert after <= 0.5 * before
