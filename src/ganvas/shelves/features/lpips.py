"""LPIPS as a feature space: the squared distance of two images' features is their LPIPS distance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from ganvas.errors import CheckpointError, UsageError
from ganvas.files.published import USUAL, GivenWeights, Published, WeightsFile, find, read_state
from ganvas.parts import Flat, extractor
from ganvas.shelves.features.frozen import FrozenNetwork, Intake
from ganvas.shelves.features.resample import Resizer

_SMALLEST = 32  # pixels of a side below which some layer of some network has no place left
_EPS = 1e-10  # of the authors' unit normalisation
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of their scaling layer, for values in [-1, 1]


class Fire(nn.Module):
    """SqueezeNet's block: few channels, then two kernels of them side by side (Iandola et al. 2016, figure 1)."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(h), self.expand3x3(h)], 1).relu()  # (N, 2 * expand, H, W)


def _alexnet() -> nn.Sequential:
    pool = nn.MaxPool2d(3, 2)
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), pool, nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), pool,
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers[:-1])


def _squeezenet() -> nn.Sequential:
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool, Fire(64, 16, 64), Fire(128, 16, 64), pool, Fire(128, 32, 128),
        Fire(256, 32, 128), pool, Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    )  # fmt: skip


@dataclass(frozen=True)
class Trunk:
    """A network that LPIPS looks into: which of its layers, how wide they are, and where its weights are published."""

    taps: Sequence[int]  # numbers in torchvision's `features`
    widths: Sequence[int]
    weights: Published
    linear: Published


def _torchvision(file: str) -> Published:
    return Published((file,), f"https://download.pytorch.org/models/{file}")


def _linear(net: str, begins: str) -> Published:
    # Named by its hash here, so that it is checked; the authors call it v0.1/<net>.pth.
    address = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1"
    return Published((f"lpips-v0.1-{net}-{begins}.pth",), f"{address}/{net}.pth")


TRUNKS: Mapping[str, Trunk] = {
    "alex": Trunk(
        (1, 4, 7, 9, 11), (64, 192, 384, 256, 256),
        _torchvision("alexnet-owt-7be5be79.pth"), _linear("alex", "df73285e"),
    ),
    "vgg": Trunk(
        (3, 8, 15, 22, 29), (64, 128, 256, 512, 512),
        _torchvision("vgg16-397923af.pth"), _linear("vgg", "a78928a0"),
    ),
    "squeeze": Trunk(
        (1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512),
        _torchvision("squeezenet1_1-b8a52dc0.pth"), _linear("squeeze", "4a5350f2"),
    ),
}  # fmt: skip

_BUILD = {"alex": _alexnet, "vgg": _vgg16, "squeeze": _squeezenet}


@extractor("lpips", paper="Zhang et al. 2018, eq. 1")
class LPIPS(FrozenNetwork):
    """Activations scaled so that the squared distance of two images' features is their LPIPS distance (version 0.1).

    Features are long: 31,872 values for AlexNet at 64 pixels. Take it for pairs and for diversity, not for covariances.

    Parameters
    ----------
    net : the network that is looked into. "alex" is what most papers report, "vgg" what most train with.
    side : pixels that images are resized to; None: as they are, at least 32, which is how paired tasks report it.
    resizer : see `resample`.
    source : of the network, torchvision's own file; see `GivenWeights`.
    linear : the authors' weights of its channels; None: the usual places.

    Raises
    ------
    CheckpointError : weights are missing, damaged, or those of another network.
    """

    def __init__(
        self,
        *,
        net: Literal["alex", "vgg", "squeeze"] = "alex",
        side: Annotated[int, Ge(_SMALLEST)] | None = 64,
        resizer: Resizer = "clean",
        source: Annotated[GivenWeights, Flat()] = USUAL,
        linear: Path | None = None,
    ) -> None:
        trunk = TRUNKS[net]
        network_file = find(trunk.weights, source, part="lpips")
        linear_file = find(trunk.linear, GivenWeights(linear), part="lpips")
        network = _filled(_BUILD[net](), network_file, trunk.weights)
        # The distance weighs squares of differences: the root of a weight goes to each of the two images.
        self._roots = [w.sqrt() for w in _channel_weights(linear_file, trunk)]
        self._taps = tuple(trunk.taps)
        self._layers = network
        # (x / 127.5 - 1 - shift) / scale, of x in [0, 255]
        intake = Intake(
            (side, side) if side else None,
            resizer,
            mean=tuple(127.5 * (1 + shift) for shift in _SHIFT),
            std=tuple(127.5 * scale for scale in _SCALE),
        )
        both = hashlib.sha256((network_file.sha256 + linear_file.sha256).encode()).hexdigest()
        weights = WeightsFile(
            network_file.path,
            both,
            f"{network_file.source} (sha256 {network_file.sha256[:8]}), "
            f"{linear_file.source} (sha256 {linear_file.sha256[:8]})",
        )
        super().__init__(
            "lpips", network, intake, classes=0, layer=f"{net}, {len(self._taps)} layers, weighted", weights=weights
        )

    def embed(self, x: Tensor) -> tuple[Tensor, None]:
        """(features (N, D), None) of x (N, 3, H, W); D grows with H and W."""
        if min(x.shape[2:]) < _SMALLEST:
            raise UsageError(
                f"LPIPS needs images of at least {_SMALLEST} pixels, not {x.shape[2]}x{x.shape[3]}",
                where="lpips.side", hint="side: 64",
            )  # fmt: skip
        vectors = []
        roots = iter(self._roots)
        for number, layer in enumerate(self._layers):
            x = layer(x)
            if number in self._taps:
                unit = x / (x.square().sum(1, keepdim=True).sqrt() + _EPS)  # (N, C, H', W')
                places = x.shape[2] * x.shape[3]
                root = next(roots).to(x)[:, None, None] / places**0.5
                vectors.append((root * unit).flatten(1))
        return torch.cat(vectors, 1), None


def _filled(net: nn.Sequential, file: WeightsFile, published: Published) -> nn.Sequential:
    state = read_state(file.path)
    tensors = {name: state.get(f"features.{name}") for name in net.state_dict()}
    try:
        net.load_state_dict({name: value for name, value in tensors.items() if value is not None})
    except RuntimeError as error:
        raise CheckpointError(
            f"its weights are not those of {published.files[0]}: {str(error).splitlines()[-1].strip()}",
            where=str(file.path), hint=f"get {published.url}",
        ) from None  # fmt: skip
    return net


def _channel_weights(file: WeightsFile, trunk: Trunk) -> list[Tensor]:
    """w_l (C_l,) of each layer, none of them negative."""
    state = read_state(file.path)
    weights = [state.get(f"lin{number}.model.1.weight") for number in range(len(trunk.widths))]
    if any(
        w is None or w.shape != (1, width, 1, 1) or bool((w < 0).any())
        for w, width in zip(weights, trunk.widths, strict=True)
    ):
        raise CheckpointError(
            f"it does not hold one weight, 0 or more, for each of {', '.join(map(str, trunk.widths))} channels",
            where=str(file.path), hint=f"get {trunk.linear.url}",
        )  # fmt: skip
    return [w.flatten() for w in weights if w is not None]
