"""The pair of Projected GAN: a critic on frozen features, and its variants of FastGAN's generator.

Sauer et al. 2021, "Projected GANs Converge Faster", sections 3.2 and 5; details are those of the authors' code. A
frozen network P turns an image into maps of several resolutions, frozen random convolutions mix them across channels
and scales, and one small critic judges each. P learns nothing, but gradients pass through it to the generator.

The authors take an EfficientNet that was trained on ImageNet. Here P is any network of timm, any critic of ours, or,
where nothing is at hand, random convolutions. Their augmentation is `augment: diffaug`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue, CheckpointError, UsageError
from ganvas.files.files import model_file, read_weights
from ganvas.files.published import load_extra, read_state
from ganvas.nn.init import Init, layer_init
from ganvas.nn.projection import FeatureMixer, Frozen, LevelCritic, LevelCritics
from ganvas.parts import Factory, network
from ganvas.shelves.networks.gan.fastgan import (
    MULTIPLES,
    First,
    Noise,
    UpBlock,
    excited,
    gates_of,
    multiplied,
    pyramid_sizes,
)
from ganvas.shelves.networks.gan.pyramid import require_classes, require_images
from ganvas.types import Critic, DataSpec, Generator, LatentSpec, OwnHead, Scores

Positive = Annotated[int, Gt(0)]

MOST_LEVELS = 4
LEAST_MAP = 4  # pixels of the shorter side of the coarsest map
TIMM_SIZE = 224  # smaller images are enlarged to this
BOTTOM = 8  # a critic halves its map until it has about so many pixels


def untouched(module: nn.Module) -> nn.Module:
    """torch's own first values."""
    return module


# ---------------------------------------------------------------------------------------------------- the generator


class ClassNorm(nn.Module):
    """Batch norm with gain and bias that are affine in the vector of the class, spectrally normalised."""

    def __init__(self, channels: int, dim: int, init: Init) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = init(nn.Linear(dim, channels))
        self.bias = init(nn.Linear(dim, channels))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, C, h, w) and (N, dim) -> (N, C, h, w)."""
        return torch.addcmul(self.bias(y)[:, :, None, None], self.norm(x), 1 + self.gain(y)[:, :, None, None])


class ConditionalUpBlock(nn.Module):
    """`UpBlock` with norms that see the class; a doubled one weighs the noise after both convolutions alike."""

    def __init__(self, in_: int, out: int, size: tuple[int, int], init: Init, *, doubled: bool, dim: int) -> None:
        super().__init__()
        self.doubled = doubled
        self.conv1 = init(nn.Conv2d(in_, 2 * out, 3, padding=1, bias=False))
        self.norm1 = ClassNorm(2 * out, dim, init)
        if doubled:
            self.noise = Noise(size)
            self.conv2 = init(nn.Conv2d(out, 2 * out, 3, padding=1, bias=False))
            self.norm2 = ClassNorm(2 * out, dim, init)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, in, h, w) and (N, dim) -> (N, out, 2h, 2w)."""
        h = self.conv1(F.interpolate(x, scale_factor=2.0))  # (N, 2 out, 2h, 2w)
        h = F.glu(self.norm1(self.noise(h) if self.doubled else h, y), 1)
        return F.glu(self.norm2(self.noise(self.conv2(h)), y), 1) if self.doubled else h


@network(
    "projected-gan-generator", system="projected-gan", paper="Sauer et al. 2021, section 5",
    tiny={"width": 4, "z_dim": 8},
)  # fmt: skip
class ProjectedGANGenerator(Generator):
    """FastGAN's generator as Projected GAN has it: every block doubled or, `lite`, none, latents on a sphere, classes.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 1024
    pixels. Nothing bounds the values.

    Parameters
    ----------
    spec : what to make.
    width : channels of the map of 128 pixels; 4 pixels have 16 times as many, 1024 an eighth.
    z_dim : length of the latent vector, drawn from N(0, 1) and scaled to a mean square of 1.
    lite : one convolution a block and no noise, instead of two with noise.
    conditioning : "batch-norm" lets all norms after the first see a learnt vector of the class; None ignores labels.

    Raises
    ------
    BadValue : a size that cannot be halved so often, labels asked for and not there.
    """

    bounded = False

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Positive = 128,
        z_dim: Positive = 256,
        lite: bool = False,
        conditioning: Literal["batch-norm"] | None = None,
    ) -> None:
        super().__init__()
        sizes = pyramid_sizes(spec)
        require_classes(conditioning, spec)
        self.latents = {"z": LatentSpec((z_dim,), "normal")}
        self.conditional = conditioning is not None
        init = layer_init(untouched, spectral_norm=True)
        channels = multiplied(width, MULTIPLES[: len(sizes)])
        self.first = First(z_dim, channels[0], sizes[0], init, nn.BatchNorm2d)
        self.blocks = nn.ModuleList()
        for i in range(1, len(sizes)):
            a, b = channels[i - 1], channels[i]
            self.blocks.append(
                ConditionalUpBlock(a, b, sizes[i], init, doubled=not lite, dim=z_dim)
                if self.conditional
                else UpBlock(a, b, sizes[i], init, doubled=not lite, norm=nn.BatchNorm2d)
            )
        self.gates = gates_of(channels, init)
        self.to_image = init(nn.Conv2d(channels[-1], spec.channels, 3, padding=1))
        if self.conditional:
            self.embed = nn.Embedding(spec.num_classes, z_dim)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) and label (N,) int64 -> images (N, C, H, W)."""
        if self.conditional and label is None:
            raise UsageError("a conditional generator was given no labels", hint="pass label=(N,) int64")
        y = (self.embed(label),) if self.conditional else ()  # (N, z_dim)
        z = latent * (latent.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        *_, last = excited(self.first(z), self.blocks, self.gates, lambda block, h: block(h, *y))
        image: Tensor = self.to_image(last)  # (N, C, H, W)
        return image


# ---------------------------------------------------------------------------------------------------- features


class RandomPyramid(nn.Module):
    """Untrained convolutions: a map of half the resolution per level, with twice the channels of the one before."""

    def __init__(self, channels: int, levels: int, width: int = 32) -> None:
        super().__init__()
        widths = [channels, *(width << i for i in range(levels))]
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(b, b, 3, stride=2, padding=1),
                nn.LeakyReLU(0.2),
            )
            for a, b in pairwise(widths)
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> (N, width · 2^i, H / 2^(i+1), W / 2^(i+1)) of each level i."""
        maps = [images]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps[1:]


class OwnPyramid(nn.Module):
    """A network of ours as pyramid: of every resolution that it goes through, what its last module there gives."""

    def __init__(self, net: nn.Module, spec: DataSpec) -> None:
        super().__init__()
        self.net = net
        self.seen: dict[str, Tensor] = {}
        hooks = [module.register_forward_hook(self._note(name)) for name, module in net.named_modules() if name]
        self._run(torch.zeros(1, *spec.shape))
        by_size = {tuple(x.shape[2:]): name for name, x in self.seen.items()}  # the last name of each size stays
        sizes = sorted((size for size in by_size if LEAST_MAP <= min(size) < min(spec.shape[1:])), reverse=True)
        self.names = [by_size[size] for size in sizes][-MOST_LEVELS:]
        for hook in hooks:
            hook.remove()
        for name in self.names:
            net.get_submodule(name).register_forward_hook(self._note(name))

    def _note(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                self.seen.pop(name, None)
                self.seen[name] = output

        return note

    def _run(self, images: Tensor) -> None:
        self.seen.clear()
        label = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        self.net.eval()(images, label)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> maps of falling resolution."""
        self._run(images)
        maps = [self.seen[name] for name in self.names]
        self.seen.clear()
        return maps


class TimmPyramid(nn.Module):
    """A network of timm as pyramid: the ends of its last four stages. Images in [-1, 1] go in as they are.

    Raises
    ------
    MissingExtra : the package timm is not installed.
    BadValue : timm has no such model, or the data have neither one nor three channels.
    """

    def __init__(self, name: str, spec: DataSpec) -> None:
        super().__init__()
        timm = load_extra("timm", package="timm", extra="timm", part="projected-gan-discriminator")
        if spec.channels not in (1, 3):
            raise BadValue(f"timm's networks read RGB, and these data have {spec.channels} channels", key="timm")
        try:
            self.net = timm.create_model(name, pretrained=False)
        except RuntimeError as error:
            raise BadValue(f"timm has no {name!r}: {error}", key="timm", hint="timm=tf_efficientnet_lite0") from None

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 1 or 3, H, W) -> four maps, of a 4th, 8th, 16th and 32nd of the resolution in most networks."""
        if min(images.shape[2:]) < TIMM_SIZE:
            images = F.interpolate(images, TIMM_SIZE, mode="bilinear")
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        maps: list[Tensor] = self.net.forward_intermediates(images, indices=MOST_LEVELS, intermediates_only=True)
        return maps


def state_of(weights: Path, net: nn.Module) -> dict[str, Tensor]:
    """The tensors for `net` in a file of weights, or in a run folder or model file of ours.

    Raises
    ------
    CheckpointError : the file cannot be read, or no network in it fits.
    """
    run = weights.is_dir() or weights.name == "model.safetensors"
    state = read_weights(model_file(weights)) if run else read_state(weights)
    names = set(net.state_dict())
    for role in ("", *sorted({f"{name.split('.')[0]}." for name in state})):
        tensors = {name.removeprefix(role): value for name, value in state.items() if name.startswith(role)}
        if names <= tensors.keys():
            return {name: tensors[name] for name in names}
    missing = sorted(names - state.keys())[:3]
    raise CheckpointError(
        f"its weights are not those of the backbone: there is no {', '.join(missing)}", where=str(weights),
        hint="name the architecture that they were trained in",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- the critic


@network(
    "projected-gan-discriminator",
    system="projected-gan",
    paper="Sauer et al. 2021, section 3.2",
    tiny={"backbone": None, "timm": None, "weights": None, "width": 8, "critic_widths": (8, 8, 8, 8)},
)
class ProjectedGANDiscriminator(Critic):
    """Critics on frozen features of several resolutions, mixed by frozen random convolutions.

    Images of any size and channel count that the frozen network reads; for random convolutions, sides that are
    divisible by 2^k, k = min(4, floor(log2(min(H, W) / 4))), from 8 pixels.

    Parameters
    ----------
    spec : what to score.
    backbone : a critic of ours whose maps are the features; without it and `timm` they are those of random
        convolutions.
    timm : the name of a network of timm; its images are enlarged to 224 pixels, and not normalised, as the authors do.
    weights : the backbone's: a run folder or `model.safetensors` of ours, another .safetensors file, or a PyTorch file
        of tensors alone. They are read once and saved with the model. Without them, the first values stay.
    width : channels of the finest mixed map.
    expand : each coarser mixed level has twice the channels of the finer one; else all have `width`.
    mixing : "scales" mixes across channels and from coarse maps to fine ones; "channels" only the first; "none"
        neither.
    levels : on how many of the maps, from the finest on, a critic stands; at most there are maps.
    critic_widths : channels of the critics' maps of 8, 16, 32, ... pixels.
    separable : critics with separable convolutions; the authors' with StyleGAN2's generator.
    patch : critics that halve their map once and judge small patches.
    conditioning : "projection" takes the inner product with a learnt vector of the class; None ignores labels.

    Raises
    ------
    BadValue : both `backbone` and `timm`, weights of neither, no map of 4 pixels, labels asked for and not there.
    MissingExtra : the package timm is not installed.
    CheckpointError : weights that cannot be read or do not fit.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        backbone: Annotated[Callable[..., nn.Module], Factory("network")] | None = None,
        timm: str | None = None,
        weights: Path | None = None,
        width: Positive = 64,
        expand: bool = True,
        mixing: Literal["scales", "channels", "none"] = "scales",
        levels: Annotated[int, Gt(0), Le(MOST_LEVELS)] = MOST_LEVELS,
        critic_widths: tuple[Positive, ...] = (512, 256, 128, 64, 64, 32, 16, 8),
        separable: bool = False,
        patch: bool = False,
        conditioning: Literal["projection"] | None = None,
    ) -> None:
        super().__init__()
        require_images(spec)
        require_classes(conditioning, spec)
        pyramid = pyramid_of(spec, backbone, timm)
        self.weights = weights
        self.filled = self.fill(pyramid, weights)
        self.features = Frozen(pyramid)
        maps = self.features(torch.zeros(1, *spec.shape))
        if not maps:
            raise BadValue(
                f"the frozen network has no map of {LEAST_MAP} or more pixels", key="backbone", hint="data.size=32"
            )
        self.mixer: Frozen | None = None
        if mixing != "none":
            mixer = FeatureMixer([x.shape[1] for x in maps], width=width, expand=expand, scales=mixing == "scales")
            self.mixer = Frozen(mixer)
            maps = self.mixer(maps)
        classes = spec.num_classes if conditioning else 0
        most = MOST_LEVELS if mixing == "scales" else MOST_LEVELS - 1  # the authors', whatever the image's size
        self.critics = LevelCritics(
            [
                level_critic(x, critic_widths, most - i, classes=classes, separable=separable, patch=patch)
                for i, x in enumerate(maps[: min(levels, len(maps))])
            ]
        )
        self.head = OwnHead()

    def fill(self, pyramid: nn.Module, weights: Path | None) -> bool:
        """Give the frozen network its weights; False where their file is gone, as it may be for a saved model."""
        if weights is None:
            return True
        if isinstance(pyramid, RandomPyramid):
            raise BadValue("random convolutions have no weights to read", key="weights", hint="name backbone or timm")
        if not weights.exists():
            return False
        pyramid.net.load_state_dict(state_of(weights, pyramid.net))  # type: ignore[union-attr, arg-type]
        return True

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.filled = True  # a saved model brings its frozen weights along

    def project(self, data: Tensor) -> Sequence[Tensor]:
        """Images (N, C, H, W) -> the maps that the critics judge, from the finest on."""
        if not self.filled:
            raise BadValue(f"there are no weights at {self.weights}", key="weights", hint="give their path")
        maps: Sequence[Tensor] = self.features(data)
        return maps if self.mixer is None else self.mixer(maps)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits of all places (N, P), means (N,), features."""
        if label is None and self.critics.levels[0].embed is not None:
            raise UsageError("a conditional critic was given no labels", hint="pass label=(N,) int64")
        logits, features = self.critics(self.project(data), label)
        pieces = torch.cat([level.flatten(1) for level in logits], 1)  # (N, P)
        return Scores(pieces.mean(1), features, pieces=pieces)


def pyramid_of(spec: DataSpec, backbone: Callable[..., nn.Module] | None, timm: str | None) -> nn.Module:
    """The network that is to be frozen.

    Raises
    ------
    BadValue : two are named, or images that random convolutions cannot halve.
    """
    if backbone is not None and timm is not None:
        raise BadValue("backbone and timm both name the frozen network", key="timm", hint="timm=~")
    if backbone is not None:
        return OwnPyramid(backbone(spec), spec)
    if timm is not None:
        return TimmPyramid(timm, spec)
    shortest = min(spec.height, spec.width)
    k = min(MOST_LEVELS, int(math.log2(shortest / LEAST_MAP))) if shortest >= 2 * LEAST_MAP else 0
    if k == 0 or spec.height % 2**k or spec.width % 2**k:
        raise BadValue(
            f"images of {spec.height}x{spec.width} cannot be halved to maps of {LEAST_MAP} pixels", hint="data.size=32"
        )
    return RandomPyramid(spec.channels, k)


def level_critic(
    x: Tensor, widths: Sequence[int], most: int, *, classes: int, separable: bool, patch: bool
) -> LevelCritic:
    """The critic of a map like `x`, which halves it until about 8 pixels are left, but at most so often.

    Raises
    ------
    BadValue : too few widths.
    """
    side = min(x.shape[2:])
    halvings = min(max(0, round(math.log2(side / BOTTOM))), 1 if patch else most)
    if halvings > len(widths):
        raise BadValue(
            f"a map of {side} pixels is halved {halvings} times, and there are {len(widths)} widths",
            key="critic_widths", hint="give one for each of 8, 16, 32, ... pixels",
        )  # fmt: skip
    kernel = tuple(min(4, length >> halvings) for length in x.shape[2:])
    channels = [x.shape[1], *widths[:halvings][::-1]]
    return LevelCritic(channels, kernel=(kernel[0], kernel[1]), classes=classes, separable=separable, patch=patch)
