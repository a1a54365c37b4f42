"""StyleGAN3: its layout, filters, layers and spaces, and what equivariance measures.

Equality with the released networks is in tests/parity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import scipy.special
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas import parts
from ganvas.errors import BadValue, UsageError
from ganvas.interop.registry import OfficialCase, import_network
from ganvas.nn.filtered import FilteredLeaky, lowpass_taps, radial_taps
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics.equivariance import (
    RotationEquivariance,
    TranslationEquivariance,
    rotated,
    translated,
    turn_filter,
    turned_band,
)
from ganvas.shelves.networks.style.stylegan2 import StyleGAN2Generator
from ganvas.shelves.networks.style.stylegan3 import FourierInput, StyleGAN3Generator
from ganvas.types import DataSpec, Evidence, EvidenceSet, Latent, LatentSpec, Movable, SpacedGenerator

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden"
TINY: dict[str, Any] = {"z_dim": 6, "w_dim": 5, "channel_base": 128, "channel_max": 8, "layers": 5, "margin": 4}
R = {"kernel": 1, "radial": True}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def build(name: str, spec: DataSpec, **keys: Any) -> Any:
    return parts.build("network", check_node("network", {"use": name, **keys}), spec)


def generator(spec: DataSpec, **keys: Any) -> StyleGAN3Generator:
    return build("stylegan3-generator", spec, **{**TINY, **keys})  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize(
    ("side", "keys", "count"),
    [
        # T and R at 1024 pixels with the released code's mapping networks of two layers
        (1024, {}, 22_313_167),
        (1024, {**R, "channel_base": 65536, "channel_max": 1024}, 15_093_151),
    ],
)
def test_parameter_counts_of_the_published_configurations(side: int, keys: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        net = build("stylegan3-generator", image_spec((3, side, side)), **keys)
    assert sum(each.numel() for each in net.parameters()) == count


def test_sampling_rates_and_sizes_of_the_published_layout() -> None:
    """The layers of the 1024 px network as its code names them: L0_36_512, ..., L13_1024_32, L14_1024_3."""
    with torch.device("meta"):
        net = build("stylegan3-generator", image_spec((3, 1024, 1024)))
    outputs = [36, 36, 52, 52, 84, 148, 148, 276, 276, 532, 1044, 1044, 1044, 1024]
    kinds = [layer.activation for layer in net.synthesis.layers[:-1]]
    channels = [layer.weight.shape[0] for layer in net.synthesis.layers]
    assert net.synthesis.input.band.size == (36, 36)
    size = 36
    for wanted, activation in zip(outputs, kinds, strict=True):
        left, right, _, _ = activation.padding
        taps = sum(0 if each is None else len(each) - 1 for each in (activation.up_taps, activation.down_taps))
        size = ((size + 2) * activation.up + left + right - taps - 1) // activation.down + 1
        assert size == wanted
    assert channels == [512] * 7 + [323, 203, 128, 81, 51, 32, 32, 3]


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 24, 16), (2, 17, 31), (3, 20, 48)])
@pytest.mark.parametrize("keys", [{}, R])
def test_any_image_from_16_pixels(shape: tuple[int, ...], keys: dict[str, Any]) -> None:
    assert generator(image_spec(shape), **keys)(torch.randn(2, 6)).shape == (2, *shape)


@pytest.mark.parametrize(
    "bands", [{"oversampling": 1}, {"taps": 5}, {"critical": 1}, {"first_cutoff": 1.5, "last_stopband": 1.0}]
)
def test_other_bands_fit_together(bands: dict[str, Any]) -> None:
    net = generator(image_spec((3, 32, 32)), bands=bands)
    image = net(torch.randn(2, 6))
    assert image.shape == (2, 3, 32, 32)
    assert torch.isfinite(image).all()


def test_what_cannot_be_laid_out_is_refused() -> None:
    wrong: Sequence[tuple[tuple[int, ...], dict[str, Any]]] = [
        ((3, 15, 64), {}), ((2,), {}), ((3, 16, 16), {"layers": 2}), ((3, 16, 16), {"bands": {"first_stopband": 1.0}}),
        ((3, 16, 16), {"conditioning": "mapping"}),
    ]  # fmt: skip
    for shape, keys in wrong:
        with pytest.raises(BadValue) as caught:
            generator(image_spec(shape), **keys)
        assert caught.value.hint


# ------------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(("taps", "cutoff", "width", "rate"), [(12, 2, 12, 32), (24, 7.3, 5, 64), (7, 4, 9, 32)])
def test_filters_are_scipys_kaiser_designs(taps: int, cutoff: float, width: float, rate: float) -> None:
    expected = scipy.signal.firwin(taps, cutoff, width=width, fs=rate)
    ours = lowpass_taps(taps, cutoff=cutoff, width=width, rate=rate)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-7)
    x = (np.arange(taps) - (taps - 1) / 2) / rate
    r = np.hypot(*np.meshgrid(x, x))
    with np.errstate(invalid="ignore"):
        jinc = np.where(r > 0, scipy.special.j1(2 * np.pi * cutoff * r) / (np.pi * r), np.pi * cutoff**2)
    jinc[r == 0] = cutoff * np.pi * cutoff  # the limit: J1(x) is x / 2 near 0
    window = np.kaiser(taps, scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(taps, width / (rate / 2))))
    expected = jinc * np.outer(window, window)
    if taps % 2 == 0:
        radial = radial_taps(taps, cutoff=cutoff, width=width, rate=rate)
        np.testing.assert_allclose(radial.numpy(), expected / expected.sum(), atol=1e-7)


@pytest.mark.parametrize("case", ["stylegan3_t_g", "stylegan3_r_g", "stylegan_xl_superres"])
def test_filters_are_those_of_the_released_networks(case: str) -> None:
    path = GOLDEN / case / "a.safetensors"
    if not path.exists():
        pytest.skip("the golden cases are not beside the checkout")
    official = OfficialCase.read(path)
    ours = import_network(official)
    seen = 0
    for key, taps in official.state.items():
        if key.endswith(("up_filter", "down_filter")):
            name, _, which = key.rpartition(".")
            layer = ours.net.get_submodule(ours.module_name(name))
            torch.testing.assert_close(getattr(layer.activation, which.replace("filter", "taps")), taps)
            seen += 1
    assert seen >= 10


def filtered_plainly(layer: FilteredLeaky, x: Tensor) -> Tensor:
    """Zeros inserted one by one, full two-dimensional kernels, every sample of the high rate kept until the end."""
    N, C, H, W = x.shape
    up, down = layer.up, layer.down
    wide = x.new_zeros(N, C, H * up, W * up)
    wide[:, :, ::up, ::up] = x
    assert layer.up_taps is not None
    assert layer.down_taps is not None
    kernels = [taps if taps.dim() == 2 else torch.outer(taps, taps) for taps in (layer.up_taps, layer.down_taps)]
    kernels = [kernel.flip(0, 1).expand(C, 1, *kernel.shape).to(x) for kernel in kernels]
    wide = F.conv2d(F.pad(wide, layer.padding), kernels[0] * up**2, groups=C)
    wide = torch.where(wide > 0, wide, 0.2 * wide) * math.sqrt(2)
    if layer.clamp is not None:
        wide = wide.clamp(-layer.clamp, layer.clamp)
    return F.conv2d(wide, kernels[1], groups=C)[:, :, ::down, ::down]


@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize(("up", "down", "clamp"), [(2, 2, None), (4, 2, 0.5), (2, 4, None)])
def test_the_non_linearity_is_the_plain_one(radial: bool, up: int, down: int, clamp: float | None) -> None:
    design = radial_taps if radial else lowpass_taps
    layer = FilteredLeaky(
        lowpass_taps(6 * up, cutoff=3, width=8, rate=16 * up), design(6 * down, cutoff=3, width=8, rate=16 * down),
        up=up, down=down, padding=(7, 25, -2, 19), clamp=clamp,
    ).double()  # fmt: skip
    x = torch.randn(2, 3, 16, 18, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(layer(x), filtered_plainly(layer, x))
    assert torch.autograd.gradgradcheck(layer, (x,), fast_mode=True)


def test_the_non_linearity_makes_fewer_aliases_than_a_plain_one() -> None:
    """A wave just below the band's end, shifted by half a pixel before and after the ReLU."""
    n = 64
    x = torch.arange(n)

    def wave(shift: float) -> Tensor:
        return torch.sin(2 * math.pi * 13 * (x - shift) / n).expand(1, 1, n, n).contiguous()

    def moved(y: Tensor) -> Tensor:
        phase = torch.exp(-2j * math.pi * torch.fft.fftfreq(n) * 0.5)
        return torch.fft.ifft(torch.fft.fft(y) * phase).real

    up, down = (lowpass_taps(12, cutoff=16, width=32, rate=128) for _ in range(2))
    layer = FilteredLeaky(up, down, up=2, down=2, padding=(11, 10, 11, 10), clamp=None)
    middle = slice(16, 48)
    errors = []
    for activation in (layer, lambda y: F.leaky_relu(y, 0.2) * math.sqrt(2)):
        difference = activation(wave(0.5)) - moved(activation(wave(0.0)))
        errors.append(difference[..., middle, middle].square().mean().item())
    assert errors[0] < errors[1] / 10


# ------------------------------------------------------------------------------------------- input and layers


def test_the_input_turns_and_shifts_as_w_says() -> None:
    net = generator(image_spec((3, 32, 32)))
    source: FourierInput = net.synthesis.input
    w = torch.zeros(1, 5)
    straight = source(w)
    rate = source.band.rate
    # A whole sample to the right is a roll; the affine layer's bias is (cos, sin, shift, shift).
    source.affine.bias.data = torch.tensor([1.0, 0.0, 1 / rate, 0.0])
    torch.testing.assert_close(source(w)[..., 1:], straight[..., :-1], atol=1e-4, rtol=1e-4)
    source.affine.bias.data = torch.tensor([0.0, 2.0, 0.0, 0.0])  # a quarter; its length does not matter
    quarter = source(w)
    assert min((quarter - straight.rot90(k, (2, 3))).abs().max().item() for k in (1, 3)) < 1e-4


def test_a_movement_of_the_image_is_a_shift_and_a_turn_of_the_source() -> None:
    source = generator(image_spec((3, 32, 32))).synthesis.input
    w = torch.randn(2, 5)
    source.affine.weight.data.normal_(0, 0.3)
    still = source(w)
    down = torch.tensor([[1.0, 0, 0], [0, 1, 2 / source.band.rate], [0, 0, 1]])
    torch.testing.assert_close(source(w, down)[:, :, 2:], still[:, :, :-2], atol=1e-4, rtol=1e-4)
    clockwise = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # right goes down, where y points
    torch.testing.assert_close(source(w, clockwise), still.rot90(-1, (2, 3)), atol=1e-4, rtol=1e-4)
    assert source(w, torch.diag(torch.tensor([0.01, 0.01, 1.0]))).abs().max() == 0  # all waves are beyond the band


def test_magnitudes_follow_training_alone_and_are_divided_by() -> None:
    net = generator(image_spec((3, 16, 16)), magnitude_decay=0.9)
    layer = net.synthesis.layers[1]
    z = torch.randn(4, 6)
    net.eval()(z)
    assert layer.magnitude == 1
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda _module, given, _out: seen.append(given[0]))
    net.train()(z)
    torch.testing.assert_close(layer.magnitude, 0.9 + 0.1 * seen[0].square().mean())
    x, w = torch.randn(2, 8, *layer_input(net, 1)), torch.randn(2, 5)
    layer.eval()
    layer.activation = nn.Identity()
    layer.magnitude.fill_(4.0)
    halved = layer(x, w)
    layer.magnitude.fill_(1.0)
    torch.testing.assert_close(halved, layer(x, w) / 2)
    frozen = generator(image_spec((3, 16, 16)), magnitude_decay=1.0)
    frozen.train()(z)
    assert all(layer.magnitude == 1 for layer in frozen.synthesis.layers)


def layer_input(net: StyleGAN3Generator, number: int) -> tuple[int, int]:
    sizes: list[tuple[int, int]] = []
    handle = net.synthesis.layers[number].register_forward_hook(
        lambda _module, given, _out: sizes.append(tuple(given[0].shape[2:]))
    )
    with torch.no_grad():
        net.synthesis(net.broadcast(torch.randn(1, net.latents["w"].shape[0])))
    handle.remove()
    return sizes[0]


@pytest.mark.parametrize("keys", [{}, R])
def test_every_space_leads_to_the_same_image(keys: dict[str, Any]) -> None:
    net = generator(image_spec((3, 16, 16), 4), conditioning="mapping", **keys).eval()
    assert isinstance(net, SpacedGenerator)
    assert isinstance(net, Movable)
    z, label = Latent(torch.randn(3, 6)), torch.tensor([0, 1, 3])
    image = net(z.values, label)
    assert not torch.allclose(net(z.values, label.flip(0)), image)
    for space, spec in net.latents.items():
        there = net.to_space(z, space, label)
        assert there.values.shape == (3, *spec.shape)
        torch.testing.assert_close(net.from_space(there, label), image)
        torch.testing.assert_close(net.moved(there, torch.eye(3), label), image)
    with pytest.raises(UsageError, match="no way from latent space 'w\\+' to 'w'"):
        net.to_space(there, "w")
    with pytest.raises(UsageError, match="no labels"):
        net(z.values)


def test_the_mean_of_w_follows_training_and_psi_0_is_one_image() -> None:
    net = generator(image_spec((3, 16, 16)), average_decay=0.9)
    z = torch.randn(8, 6)
    w = net.map(z).detach()
    net(z)
    torch.testing.assert_close(net.mapping.w_avg, 0.1 * w.mean(0))
    images = net.eval().from_space(Latent(net.truncate(w, 0.0), "w"))
    torch.testing.assert_close(images, images[:1].expand_as(images))
    torch.testing.assert_close(net.truncate(w, 1.0), w)


def test_the_blur_fades_and_keeps_a_constant_image() -> None:
    part = parts.build("augment", {"use": "fading-blur", "sigma": 2.0, "steps": 4})
    dot = torch.zeros(1, 1, 31, 31)
    dot[..., 15, 15] = 1
    spread = []
    for step in range(5):
        part.load_state_dict({"step": step})
        spread.append((part(dot) > 0).sum().item())
        assert part(torch.ones(1, 1, 31, 31))[0, 0, 15, 15].item() == pytest.approx(1)
    assert spread == [13**2, 9**2, 7**2, 3**2, 1]  # floor(3 sigma) on each side of 2, 1.5, 1, 0.5 and 0 pixels
    assert part(dot) is dot


# ------------------------------------------------------------------------------------------- equivariance


class Waves(Movable):
    """A picture of few waves, sampled: moving its source is exact."""

    conditional = False

    def __init__(self, side: int, *, broken: float = 0.0) -> None:
        super().__init__()
        self.latents = {"z": LatentSpec((2,), "normal")}
        self.side, self.broken = side, broken
        self.frequencies = torch.randn(6, 2)  # far below the pixels' band: ideal filters lose nothing

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.moved(Latent(latent), torch.eye(3), label)

    def to_space(self, latent: Latent, space: str, label: Tensor | None = None) -> Latent:
        return latent

    def from_space(self, latent: Latent, label: Tensor | None = None) -> Tensor:
        return self(latent.values, label)

    def moved(self, latent: Latent, move: Tensor, label: Tensor | None = None) -> Tensor:
        axis = (torch.arange(self.side) + 0.5) / self.side - 0.5
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        places = torch.stack([x, y, torch.ones_like(x)], 2) @ torch.linalg.inv(move)[:2].T  # (H, W, 2)
        phases = latent.values @ self.frequencies.T  # (N, 6)
        waves = torch.sin(2 * math.pi * (places @ self.frequencies.T) + phases[:, None, None]).sum(3)
        error = self.broken * torch.randn(waves.shape)
        return (waves / 3 + error)[:, None]


class Trained:
    """As much of a model as the metrics ask for."""

    num_classes = 0

    def __init__(self, net: Any) -> None:
        self.generator = net
        self.latents = net.latents

    def draw(self, n: int, *, seed: int, space: str | None = None) -> Latent:
        rng = torch.Generator().manual_seed(seed)
        return Latent(torch.randn(n, *self.latents["z"].shape, generator=rng))

    def labels(self, n: int, *, seed: int, label: Any = None) -> Tensor | None:
        return None


def measured(metric: Any, net: Any, seed: int = 0) -> dict[str, float]:
    model: Any = Trained(net.eval())
    evidence = Evidence(real=EvidenceSet(), fake=EvidenceSet(), model=model, seed=seed)
    return metric(evidence)  # type: ignore[no-any-return]


def test_a_picture_that_moves_exactly_has_a_high_score_and_a_known_error_its_decibels() -> None:
    exact = measured(TranslationEquivariance(samples=32), Waves(32))
    assert exact["eq_t"] > 100  # rounding alone
    assert exact["eq_t_frac"] > 45  # a Lanczos filter of three lobes
    assert measured(RotationEquivariance(samples=32), Waves(48))["eq_r"] > 45
    noisy = measured(TranslationEquivariance(samples=32), Waves(32, broken=0.1))
    assert noisy["eq_t"] == pytest.approx(10 * math.log10(4 / (2 * 0.1**2)), abs=0.3)  # two images' noise


def test_shifts_by_whole_pixels_are_copies() -> None:
    images = torch.randn(2, 3, 9, 12)
    moved, (rows, columns) = translated(images, 3.0, -2.0, lobes=0)
    assert (rows, columns) == (slice(0, 7), slice(3, 12))
    assert torch.equal(moved, images[:, :, 2:, :9])
    with_filter, (rows, columns) = translated(images, 3.0, -2.0, lobes=3)
    known = images[:, :, rows.start + 2 : rows.stop + 2, columns.start - 3 : columns.stop - 3]
    torch.testing.assert_close(with_filter, known, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("x", "y"), [(0.0, 40.0), (-12.0, 0.0), (100.0, 100.0)])
def test_nothing_is_known_of_what_has_left_the_image(x: float, y: float) -> None:
    moved, (rows, columns) = translated(torch.randn(1, 1, 9, 12), x, y, lobes=3)
    assert moved.numel() == 0
    assert (rows.stop - rows.start) * (columns.stop - columns.start) == 0


def test_a_turn_by_a_quarter_is_a_turned_image() -> None:
    """Without a filter's loss: at a quarter, the bands before and after are the same square."""
    images = Waves(40)(torch.randn(2, 2))
    turned, known = rotated(images, math.pi / 2)
    assert 0 < known.sum() < known.numel()
    direct = min((images.rot90(k, (2, 3)) - turned)[:, :, known].abs().max().item() for k in (1, 3))
    assert direct < 0.01
    same = (turned_band(images, 0.3) - images)[:, :, 6:-6, 6:-6]
    assert same.abs().max() < 0.01
    assert turn_filter(0.3, 1).sum().item() == pytest.approx(1, abs=1e-5)


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(UsageError, match="too small"):
        measured(RotationEquivariance(samples=4), Waves(12))
    with pytest.raises(UsageError, match="can be moved"):
        measured(TranslationEquivariance(samples=4), build("sngan-generator", image_spec((3, 16, 16)), width=8))


def toy_pair(side: int, seed: int) -> tuple[StyleGAN3Generator, StyleGAN2Generator]:
    """StyleGAN3-T with the published margin and StyleGAN2 without noise, which would not move; of like sizes."""
    torch.manual_seed(seed)
    spec = image_spec((3, side, side))
    keys: dict[str, Any] = {"z_dim": 16, "w_dim": 16, "channel_base": 256, "channel_max": 24, "mapping": {"layers": 2}}
    return (
        build("stylegan3-generator", spec, layers=6, magnitude_decay=0.9, **keys),
        build("stylegan2-generator", spec, noise=False, mixing=0.0, **keys),
    )


def signal_to_noise(net: Any, images: Tensor, seed: int) -> dict[str, float]:
    """EQ-T with the images' own variance in place of that of black and white: fair to whoever has more contrast."""
    contrast = 10 * math.log10(images.var().item() / 4)
    found = measured(TranslationEquivariance(samples=32), net, seed)
    return {key: value + contrast for key, value in found.items()}


@pytest.mark.parametrize("seed", range(3))
def test_untrained_translation_equivariance_is_20_db_above_stylegan2(seed: int) -> None:
    three, two = toy_pair(16, seed)
    sizes = [sum(each.numel() for each in net.parameters()) for net in (three, two)]
    assert 0.8 < sizes[0] / sizes[1] < 1.25
    with torch.no_grad():
        images = [net.eval()(torch.randn(64, 16)) for net in (three, two)]
    ours, theirs = (signal_to_noise(net, each, seed) for net, each in zip((three, two), images, strict=True))
    assert ours["eq_t"] > theirs["eq_t"] + 20
    assert ours["eq_t_frac"] > theirs["eq_t_frac"] + 20


def test_rotation_equivariance_is_what_radial_filters_and_small_kernels_bring() -> None:
    found = {}
    for name, keys in (("t", {}), ("r", {**R, "channel_base": 512, "channel_max": 32})):
        net = generator(image_spec((1, 32, 32)), **{"channel_base": 256, "channel_max": 16, "margin": 10, **keys})
        found[name] = measured(RotationEquivariance(samples=8), net)["eq_r"]
    assert found["r"] > found["t"] + 20


def train_briefly(net: nn.Module, real: Tensor, steps: int) -> None:
    """Non-saturating loss with lazy R1 against StyleGAN2's critic."""
    critic = build("stylegan2-discriminator", image_spec((3, 16, 16)), channel_base=256, channel_max=24)
    optimizers = [
        torch.optim.Adam(each.parameters(), rate, (0.0, 0.99)) for each, rate in ((critic, 2e-3), (net, 2.5e-3))
    ]
    net.train()
    for step in range(steps):
        data = real[torch.randint(len(real), (8,))].requires_grad_(step % 8 == 0)
        with torch.no_grad():
            fake = net(torch.randn(8, 16))
        scores = critic(data).logits
        loss = F.softplus(-scores).mean() + F.softplus(critic(fake).logits).mean()
        if data.requires_grad:
            (slope,) = torch.autograd.grad(scores.sum(), data, create_graph=True)
            loss = loss + 8 * 0.25 * slope.square().sum((1, 2, 3)).mean()
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        F.softplus(-critic(net(torch.randn(8, 16))).logits).mean().backward()
        optimizers[1].step()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_trained_translation_equivariance_is_20_db_above_stylegan2(seed: int) -> None:
    dataset = build_shapes()
    found = []
    for net in toy_pair(16, seed):
        torch.manual_seed(seed)
        train_briefly(net, dataset, 60)
        with torch.no_grad():
            images = net.eval()(torch.randn(64, 16))
        assert images.std() > 0.1  # there is something to compare
        decibels = measured(TranslationEquivariance(samples=64), net, seed)
        found.append((decibels, signal_to_noise(net, images, seed)))
    for ours, theirs in zip(*found, strict=True):
        assert ours["eq_t"] > theirs["eq_t"] + 20
        assert ours["eq_t_frac"] > theirs["eq_t_frac"] + 20


def build_shapes() -> Tensor:
    dataset = parts.build("dataset", check_node("dataset", {"use": "shapes", "count": 256, "size": 16}))
    return dataset.batch(np.arange(256), np.random.default_rng(0)).data  # type: ignore[no-any-return]
