"""The generators of StyleGAN3 (Karras et al. 2021, "Alias-Free Generative Adversarial Networks"), T and R.

They compute what NVIDIA's `networks_stylegan3` does on the same weights, in float32. Written from the paper and from
what the released networks compute; filters are ordinary convolutions, so that all derivatives are there. Differences:

- The normalisation of weights and styles before demodulation is left out: demodulation divides it out again.
- Sides need not be equal or powers of two. The unit of length is the shorter side S, and sampling rates are S / 2^k for
  as many k as 2^k divides both sides; with a power of two these are the published ones, and where no power of two
  divides them, every layer runs at the full rate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import pi, sqrt
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from ganvas.errors import BadValue, UsageError
from ganvas.nn.equalized import EqualizedLinear, in_full
from ganvas.nn.filtered import FilteredLeaky, lowpass_taps, radial_taps
from ganvas.nn.fir import Padding
from ganvas.nn.mapping import MappingNetwork, MappingOptions, as_condition
from ganvas.nn.modulated import modulated_conv2d
from ganvas.nn.statistics import Follower
from ganvas.parts import network
from ganvas.shelves.networks.gan.pyramid import require_classes, require_images
from ganvas.types import DataSpec, Latent, LatentSpec, Movable

Count = Annotated[int, Gt(0)]
Positive = Annotated[float, Gt(0)]
Decay = Annotated[float, Ge(0), Lt(1)]

SMALLEST = 16  # pixels of the shorter side


# ---------------------------------------------------------------------------------------------------- layout


@dataclass(frozen=True)
class BandOptions:
    """How frequencies grow from the first layer to the last (section 3.2 and appendix G); keys of a recipe.

    Parameters
    ----------
    critical : layers at the end that use the whole band of the image, whose filters cannot be clean.
    first_cutoff : f_c of the first layer, in cycles per image side.
    first_stopband : f_t of the first layer.
    last_stopband : f_t of the last layer, as a multiple of its cutoff.
    taps : length of a filter in samples of the lower of its two rates.
    oversampling : how much finer the non-linearity is sampled than the finer of what surrounds it.
    """

    critical: Annotated[int, Ge(1)] = 2
    first_cutoff: Positive = 2.0
    first_stopband: Positive = 2.0**2.1
    last_stopband: Annotated[float, Ge(1)] = 2.0**0.3
    taps: Count = 6
    oversampling: Count = 2


USUAL_BANDS = BandOptions()
SHORT_MAPPING = MappingOptions(layers=2)


@dataclass(frozen=True)
class SynthesisOptions:
    """What a synthesis network is made of; see `StyleGAN3Generator`."""

    channel_base: int
    channel_max: int
    kernel: int
    radial: bool
    margin: int
    output_scale: float
    clamp: float | None
    magnitude_decay: float
    bands: BandOptions


@dataclass(frozen=True)
class Band:
    """What a map can hold, and how it is sampled: rates and frequencies per shorter side of the image."""

    rate: float  # s, samples
    cutoff: float  # f_c, cycles
    half_width: float  # f_h of the transition band
    size: tuple[int, int]  # (h, w), margin included
    channels: int


@dataclass(frozen=True)
class Step:
    """One layer: the bands before and after it, and whether it is critically sampled or makes the image."""

    before: Band
    after: Band
    critical: bool = False
    to_image: bool = False


def check_layout(spec: DataSpec, layers: int, bands: BandOptions) -> None:
    """Refuse images that are too small, and bands that do not reach them.

    Raises
    ------
    BadValue : they are no images, a side is below 16 pixels, or too few layers or a stopband below its cutoff.
    """
    require_images(spec)
    if min(spec.height, spec.width) < SMALLEST:
        raise BadValue(
            f"images of {spec.height}x{spec.width} are too small; both sides must be {SMALLEST} pixels or more",
            hint="data.size=32",
        )
    if layers <= bands.critical:
        raise BadValue(
            f"{layers} layers are too few where {bands.critical} are critically sampled",
            key="layers", hint=f"layers={bands.critical + 2}",
        )  # fmt: skip
    if bands.first_stopband <= bands.first_cutoff:
        raise BadValue(
            f"the first stopband, {bands.first_stopband:g}, is not above its cutoff, {bands.first_cutoff:g}",
            key="bands", hint="leave both out",
        )  # fmt: skip


# Karras et al. 2021, appendix G: f_c and f_t grow geometrically and reach the image's at the first critical layer
def grow(
    start: tuple[float, float], spec: DataSpec, options: SynthesisOptions, layers: int, first: Band | None = None
) -> list[Band]:
    """The bands after each of `layers` layers and the one that makes the image, (layers + 1) of them.

    Parameters
    ----------
    start : cutoff and stopband of the first of them.
    spec : the image.
    first : that band itself, where it is there already.
    """
    side, bands = min(spec.height, spec.width), options.bands
    last_cutoff = side / 2
    last_stopband = last_cutoff * bands.last_stopband
    grown: list[Band] = []
    for i in range(layers + 1):
        share = min(i / (layers - bands.critical), 1.0)
        cutoff = start[0] * (last_cutoff / start[0]) ** share
        stopband = start[1] * (last_stopband / start[1]) ** share
        k = halvings(spec, min(2 * stopband, side))
        rate, margin = side / 2**k, 2 * options.margin if i < layers - 1 else 0
        size = ((spec.height >> k) + margin, (spec.width >> k) + margin)
        channels = max(1, round(min(options.channel_base / 2 / cutoff, options.channel_max)))
        grown.append(Band(rate, cutoff, max(stopband, rate / 2) - cutoff, size, channels))
    grown[-1] = replace(grown[-1], channels=spec.channels)
    return grown if first is None else [first, *grown[1:]]


def halvings(spec: DataSpec, least: float) -> int:
    """The largest k for which both sides have whole 2^k-th parts and the shorter one keeps `least` samples."""
    k = 0
    while spec.height % 2 ** (k + 1) == 0 == spec.width % 2 ** (k + 1) and (
        min(spec.height, spec.width) / 2 ** (k + 1) >= least
    ):
        k += 1
    return k


def steps_of(bands: Sequence[Band], critical: int) -> list[Step]:
    """The layers between bands as `grow` gives them; the first one stays in its band."""
    last = len(bands) - 1
    return [
        Step(bands[max(i - 1, 0)], band, critical=i >= last - critical, to_image=i == last)
        for i, band in enumerate(bands)
    ]


# ---------------------------------------------------------------------------------------------------- layers


# Karras et al. 2021, section 3.2 and appendix F; frequencies fill a disc of the band's radius
class FourierInput(nn.Module):
    """An endless picture of waves, shifted and turned as w says, sampled where the first layer needs it."""

    frequencies: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, w_dim: int, band: Band) -> None:
        super().__init__()
        self.band = band
        direction = torch.randn(band.channels, 2)
        radius = direction.norm(dim=1, keepdim=True)
        # A normal radius r becomes exp(-r^2 / 4): uniform in the disc, as 1 - exp(-r^2 / 2) is uniform.
        self.register_buffer("frequencies", direction / (radius * (radius.square() / 4).exp()) * band.cutoff)
        self.register_buffer("phases", torch.rand(band.channels) - 0.5)  # in turns
        self.register_buffer("transform", torch.eye(3))  # places in the image -> places in the picture
        self.weight = nn.Parameter(torch.randn(band.channels, band.channels))
        self.affine = EqualizedLinear(w_dim, 4, bias=None)
        nn.init.zeros_(self.affine.weight)
        self.affine.bias = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]))  # neither turned nor shifted

    def forward(self, w: Tensor, move: Tensor | None = None) -> Tensor:
        """w (N, w_dim) and perhaps a movement of the image (3, 3) -> (N, channels, h, w), never in half precision."""
        with torch.autocast(w.device.type, enabled=False):
            place = self.place(w.to(self.weight.dtype), move)  # (N, 2, 3)
            frequencies = self.frequencies @ place[:, :, :2]  # (N, ch, 2)
            phases = self.phases + place[:, :, 2] @ self.frequencies.T  # (N, ch)
            # What a movement has scaled beyond the band is faded out.
            excess = frequencies.norm(dim=2) - self.band.cutoff
            amplitude = (1 - excess / (self.band.rate / 2 - self.band.cutoff)).clamp(0, 1)  # (N, ch)
            fx, fy = frequencies[:, None, None].unbind(4)  # (N, 1, 1, ch) each
            y, x = (self.grid(length) for length in self.band.size)  # (h,), (w,)
            turns = x[:, None] * fx + y[:, None, None] * fy + phases[:, None, None]  # (N, h, w, ch)
            waves = (turns * (2 * pi)).sin() * amplitude[:, None, None]
            mixed: Tensor = waves @ (self.weight.T / sqrt(self.band.channels))  # (N, h, w, ch)
            return mixed.movedim(3, 1).contiguous()

    def grid(self, length: int) -> Tensor:
        """Where samples lie in units of the shorter side, 0 in the middle: (length,)."""
        pixels = torch.arange(length, device=self.weight.device, dtype=self.weight.dtype)
        places: Tensor = (pixels + 0.5 - length / 2) / self.band.rate
        return places

    # Appendix F: (r_c, r_s, t_x, t_y) = A[w] / |(r_c, r_s)|; a place in the image is moved back, shifted, turned
    def place(self, w: Tensor, move: Tensor | None) -> Tensor:
        """Where the picture is read for a place (x, y, 1) of the image: (N, 2, 3)."""
        learnt = self.affine(w)  # (N, 4)
        c, s, tx, ty = (learnt / learnt[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        rows = [c, -s, s * ty - c * tx, s, c, -s * tx - c * ty]
        back = self.transform
        if move is not None:
            back = back @ torch.linalg.inv(move.to(back))
        return torch.stack(rows, 1).view(-1, 2, 3) @ back


class SynthesisLayer(Follower):
    """Modulated convolution on inputs of measured size, and a filtered leaky ReLU; the last one is linear."""

    magnitude: Tensor

    def __init__(self, w_dim: int, step: Step, options: SynthesisOptions) -> None:
        super().__init__()
        in_, out = step.before.channels, step.after.channels
        self.to_image, self.clamp = step.to_image, options.clamp
        self.magnitude_decay = options.magnitude_decay
        self.kernel = 1 if step.to_image else options.kernel
        self.affine = EqualizedLinear(w_dim, in_, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out, in_, self.kernel, self.kernel))
        self.bias = nn.Parameter(torch.zeros(out))
        self.register_buffer("magnitude", torch.ones(()))  # running mean square of the input
        self.activation = None if step.to_image else filtered(step, self.kernel, options)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, in, h, w) and w (N, w_dim) -> (N, out, h', w')."""
        if self.training and self.magnitude_decay < 1:
            self.track(x)
        gain = self.magnitude.rsqrt()
        if self.to_image:
            gain = gain / sqrt(self.weight.shape[1])
        x = modulated_conv2d(
            x, self.weight, self.affine(w), demodulate=not self.to_image, padding=self.kernel - 1, gain=gain
        )
        x = x + self.bias.to(x.dtype)[:, None, None]
        if self.activation is not None:
            return self.activation(x)  # type: ignore[no-any-return]
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)

    @torch.no_grad()
    def track(self, x: Tensor) -> None:
        """Move `magnitude` towards the mean square of a training batch."""
        if self.following:
            self.magnitude.copy_(in_full(x.detach()).square().mean().lerp(self.magnitude, self.magnitude_decay))


def filtered(step: Step, kernel: int, options: SynthesisOptions) -> FilteredLeaky:
    """The non-linearity between two bands, with the filters of both and the padding that gives the next size."""
    before, after, bands = step.before, step.after, options.bands
    between = max(before.rate, after.rate) * bands.oversampling
    up, down = round(between / before.rate), round(between / after.rate)
    up_taps, down_taps = (bands.taps * factor if factor > 1 else 1 for factor in (up, down))

    def pad(in_: int, out: int) -> tuple[int, int]:
        total = (out - 1) * down + 1 - (in_ + kernel - 1) * up + up_taps + down_taps - 2
        first = (total + up) // 2  # samples are centres of pixels at every rate (appendix C.3)
        return first, total - first

    (h, w), (h_out, w_out) = before.size, after.size
    padding: Padding = (*pad(w, w_out), *pad(h, h_out))
    design = radial_taps if options.radial and not step.critical else lowpass_taps
    return FilteredLeaky(
        lowpass_taps(up_taps, cutoff=before.cutoff, width=2 * before.half_width, rate=between) if up > 1 else None,
        design(down_taps, cutoff=after.cutoff, width=2 * after.half_width, rate=between) if down > 1 else None,
        up=up, down=down, padding=padding, clamp=options.clamp,
    )  # fmt: skip


class Synthesis(nn.Module):
    """w -> image: one w for the input and one for each layer."""

    def __init__(self, w_dim: int, steps: Sequence[Step], options: SynthesisOptions) -> None:
        super().__init__()
        self.scale = options.output_scale
        self.input = FourierInput(w_dim, steps[0].before)
        self.layers: Sequence[SynthesisLayer] = nn.ModuleList(  # type: ignore[assignment]
            SynthesisLayer(w_dim, step, options) for step in steps
        )

    @property
    def inputs(self) -> int:
        """L, how many w there are."""
        return 1 + len(self.layers)

    def forward(self, ws: Tensor, move: Tensor | None = None) -> Tensor:
        """ws (N, L, w_dim) and perhaps a movement of the image (3, 3) -> images (N, C, H, W) float32."""
        x = self.input(ws[:, 0], move)
        for layer, w in zip(self.layers, ws[:, 1:].unbind(1), strict=True):
            x = layer(x, w)
        return in_full(x) * self.scale


# ---------------------------------------------------------------------------------------------------- generators


class AliasFreeGenerator(Movable):
    """What StyleGAN3 and StyleGAN-XL share: the way from z over w and w+ to images, and moving what they show."""

    bounded = False
    latents: dict[str, LatentSpec]

    def __init__(self, spec: DataSpec, z_dim: int, w_dim: int, conditioning: str | None, synthesis: Synthesis) -> None:
        super().__init__()
        require_classes(conditioning, spec)
        self.conditional = conditioning is not None
        self.classes = spec.num_classes if conditioning else 0
        self.synthesis = synthesis
        self.latents = {
            "z": LatentSpec((z_dim,), "normal"),
            "w": LatentSpec((w_dim,), "none"),
            "w+": LatentSpec((synthesis.inputs, w_dim), "none"),
        }

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) and label (N,) int64 or (N, K) -> images (N, C, H, W) float32, near [−1, 1] but not limited."""
        w = self.map(latent, label)  # (N, w_dim)
        if self.training:
            self.track(w, label)
        return self.synthesis(self.broadcast(w))  # type: ignore[no-any-return]

    def map(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) -> w (N, w_dim)."""
        return self.mapping(z, self.condition(label))  # type: ignore[no-any-return, operator]

    @abstractmethod
    def track(self, w: Tensor, label: Tensor | None) -> None:
        """Let the mapping network's statistics see a training batch w (N, w_dim)."""

    @abstractmethod
    def truncate(self, w: Tensor, psi: float, cutoff: int | None = None, label: Tensor | None = None) -> Tensor:
        """Points nearer to the mean of w, (N, w_dim) or (N, L, w_dim) -> the same; see `MappingNetwork.truncate`."""

    def condition(self, label: Tensor | None) -> Tensor | None:
        """Labels (N,) int64 or (N, K) -> what the mapping network reads, (N, K); None where it reads none."""
        if not self.classes:
            return None
        if label is None:
            raise UsageError("a conditional generator was given no labels", hint="pass label=(N,) int64")
        return as_condition(label, self.classes)

    def broadcast(self, w: Tensor) -> Tensor:
        """w (N, w_dim) -> ws (N, L, w_dim), the same for every layer."""
        return w[:, None].expand(-1, self.synthesis.inputs, -1)

    def to_space(self, latent: Latent, space: str, label: Tensor | None = None) -> Latent:
        """The same points in a later space, in the order z, w, w+.

        Raises
        ------
        UsageError : there is no such space, or it comes before the one that the points are in.
        """
        order = list(self.latents)
        if space not in order or latent.space not in order or order.index(space) < order.index(latent.space):
            raise UsageError(
                f"there is no way from latent space {latent.space!r} to {space!r}",
                hint=f"each of {', '.join(order)} leads to those after it",
            )
        values, at = latent.values, latent.space
        if at == "z" != space:
            values, at = self.map(values, label), "w"
        if at == "w" != space:
            values = self.broadcast(values)
        return Latent(values, space)

    def from_space(self, latent: Latent, label: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) of points in any of the spaces; `w_avg` stays.

        Raises
        ------
        UsageError : there is no such space.
        """
        return self.synthesis(self.to_space(latent, "w+", label).values)  # type: ignore[no-any-return]

    def moved(self, latent: Latent, move: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) of the same points whose content is moved at the input of the synthesis network.

        Parameters
        ----------
        move : (3, 3), where a place (x, y, 1) goes, in shorter sides of the image from its middle, y down.
        """
        return self.synthesis(self.to_space(latent, "w+", label).values, move)  # type: ignore[no-any-return]


@network(
    "stylegan3-generator",
    paper="Karras et al. 2021 (StyleGAN3), section 3 and appendices C, F and G",
    tiny={
        "z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "layers": 4, "margin": 2,
        "mapping": {"layers": 2},
    },
)  # fmt: skip
class StyleGAN3Generator(AliasFreeGenerator):
    """Alias-free style-based generator: its images move with its input, by parts of a pixel.

    Images of any channel count and any sides from 16 pixels. Configuration T (translation) is the default; R (rotation)
    is `kernel: 1, radial: true` with twice the channels, `channel_base: 65536, channel_max: 1024`.

    Spaces: z (z_dim,), drawn; w (w_dim,); w+ (L, w_dim), L = layers + 2. Each follows from the one before.

    In training, `w_avg` follows the mean of w, and every layer the mean square of its input, which it divides by.

    Parameters
    ----------
    spec : what to make.
    z_dim, w_dim : length of z, drawn from N(0, 1), and of w.
    channel_base, channel_max : a layer of cutoff f has channel_base / 2f channels, at most channel_max.
    layers : how many, without the input and the one to image channels.
    kernel : side of the convolutions' kernels.
    radial : filter without a preferred direction where the band allows, in two dimensions at once.
    margin : pixels that maps extend beyond the image on each side.
    conditioning : "mapping" lets the mapping network see the class; None ignores labels.
    mapping : layers, widths and learning rate of the mapping network, see `MappingNetwork`.
    average_decay : of `w_avg`, a training pass.
    magnitude_decay : of the layers' mean squares, a training pass; 1 leaves them at 1. An update of both networks
        has two passes; the authors, who count one, take 0.5^(batch / 20000).
    output_scale : of the image.
    clamp : outputs of layers are limited to [−clamp, clamp], which half precision needs; published: 256.
    bands : how cutoff frequencies grow, and the filters' lengths.

    Raises
    ------
    BadValue : a side below 16 pixels, labels asked for and not there, too few layers, no stopband above the cutoff.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        z_dim: Count = 512,
        w_dim: Count = 512,
        channel_base: Count = 32768,
        channel_max: Count = 512,
        layers: Count = 14,
        kernel: Count = 3,
        radial: bool = False,
        margin: Annotated[int, Ge(0)] = 10,
        conditioning: Literal["mapping"] | None = None,
        mapping: MappingOptions = SHORT_MAPPING,
        average_decay: Decay = 0.998,
        magnitude_decay: Annotated[float, Ge(0), Le(1)] = 0.999,
        output_scale: Positive = 0.25,
        clamp: Positive | None = None,
        bands: BandOptions = USUAL_BANDS,
    ) -> None:
        options = SynthesisOptions(
            channel_base, channel_max, kernel, radial, margin, output_scale, clamp, magnitude_decay, bands
        )
        check_layout(spec, layers, bands)
        grown = grow((bands.first_cutoff, bands.first_stopband), spec, options, layers)
        synthesis = Synthesis(w_dim, steps_of(grown, bands.critical), options)
        super().__init__(spec, z_dim, w_dim, conditioning, synthesis)
        self.mapping = MappingNetwork(z_dim, w_dim, classes=self.classes, beta=average_decay, **asdict(mapping))

    def track(self, w: Tensor, label: Tensor | None) -> None:
        self.mapping.track(w)

    def truncate(self, w: Tensor, psi: float, cutoff: int | None = None, label: Tensor | None = None) -> Tensor:
        return self.mapping.truncate(w, psi, cutoff)
