"""What extractors around a frozen network share: how images become its input, and how batches go through it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ganvas.files.published import WeightsFile
from ganvas.shelves.features import pixels
from ganvas.shelves.features.resample import NAMES, Resizer, resample
from ganvas.types import Extractor

_WHITE = 1.0
_AT_ONCE = 1 << 22  # values of input that go through a network together: 15 images of 299 x 299


@dataclass(frozen=True)
class Intake:
    """How images in [-1, 1] become a network's input.

    They are rounded to 8 bits, so that an image scores as the file that holds it; with another number of channels than
    the network's they are composited on white (2 or 4 channels) and made RGB or grey. Any aspect ratio is stretched to
    `size`.

    Parameters
    ----------
    size : (H, W) of the network's input; None: as they are.
    resizer : see `resample`.
    mean, std : of each channel of the network's input, for values in [0, 255].
    """

    size: tuple[int, int] | None
    resizer: Resizer
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """(N, any C, any H, any W) in [-1, 1] -> (N, C, *size), normalised."""
        return self.fitted(self.values(images).round().clamp(0, 255))

    def unrounded(self, images: Tensor) -> Tensor:
        """As a call, but neither rounded nor cut, so that it can be learnt through."""
        return self.fitted(self.values(images))

    def values(self, images: Tensor) -> Tensor:
        return (pixels.with_channels(images.float(), len(self.mean), _WHITE) + 1) * 127.5

    def fitted(self, x: Tensor) -> Tensor:
        if self.size is not None:
            x = resample(x, self.size, self.resizer)
        return (x - x.new_tensor(self.mean)[:, None, None]) / x.new_tensor(self.std)[:, None, None]

    def __str__(self) -> str:
        colours = {1: "grey", 3: "RGB"}.get(len(self.mean), f"{len(self.mean)} channels")
        if self.size is None:
            return f"none, on white, {colours}"
        return f"{NAMES[self.resizer]} to {self.size[0]}x{self.size[1]}, on white, {colours}"


class FrozenNetwork(Extractor):
    """An extractor around a network in eval mode, which goes wherever the images are.

    Parameters
    ----------
    name : the part's.
    net : gets what `intake` makes of images.
    classes : how many classes its logits know; 0: no logits.
    layer : which activations the features are, in words.
    weights : the file that the network's weights come from.
    """

    teaches = True

    def __init__(
        self, name: str, net: nn.Module, intake: Intake, *, classes: int, layer: str, weights: WeightsFile
    ) -> None:
        self.name = name
        self.classes = classes
        self.provenance: Mapping[str, str] = {
            "sha256": weights.sha256,
            "layer": layer,
            "resizer": str(intake),
            "source": weights.source,
        }
        self.net = net.eval().requires_grad_(False)
        self.intake = intake

    @abstractmethod
    def embed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(features (N, D), logits (N, classes) or None) of the network's input."""

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(features (N, D), logits (N, classes) or None) of images (N, C, H, W) in [-1, 1], on their device, float32.

        Raises
        ------
        UsageError : `images` is not a stack of images.
        """
        pixels.check(images)
        self.net.to(images.device)
        height, width = self.intake.size or images.shape[2:]
        piece_size = max(1, _AT_ONCE // (len(self.intake.mean) * height * width))
        # Half the digits of a float32 would do for training, but scores are compared between machines.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            done = [self.embed(self.intake(piece)) for piece in torch.split(images, piece_size)]
        features = torch.cat([vectors for vectors, _ in done]).float()
        logits = [scores for _, scores in done if scores is not None]
        return features, torch.cat(logits).float() if logits else None

    def differentiable(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """As a call, but of images that are not rounded to 8 bits, all at once, and with gradients to them.

        Raises
        ------
        UsageError : `images` is not a stack of images.
        """
        pixels.check(images)
        self.net.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            features, logits = self.embed(self.intake.unrounded(images))
        return features.float(), None if logits is None else logits.float()
