"""The bundled classifier of 8 x 8 digits: real features and class logits without any download.

Trained by `scripts/train_digit_net.py` on the training split of scikit-learn's digits; the file's metadata says how.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Mapping
from importlib.resources.abc import Traversable

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from ganvas.errors import CheckpointError
from ganvas.parts import extractor
from ganvas.shelves.features import pixels
from ganvas.types import Extractor

WEIGHTS: Traversable = importlib.resources.files("ganvas.shelves.features") / "digit_net.safetensors"
"""The weights inside the package."""

_BLACK = -1.0


class DigitClassifier(nn.Module):
    """Three convolutions and two linear layers: (N, 1, 8, 8) in [-1, 1] -> features (N, 64), logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * 4 * 4, 64)
        self.classify = nn.Linear(64, 10)
        self.drop = nn.Dropout(0.3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        # Leaky units: a feature that is 0 on all data would make every covariance singular.
        h = F.leaky_relu(self.conv1(images), 0.1)  # (N, 32, 8, 8)
        h = F.leaky_relu(self.conv2(h), 0.1)  # (N, 32, 8, 8)
        h = F.avg_pool2d(h, 2)  # (N, 32, 4, 4)
        h = F.leaky_relu(self.conv3(h), 0.1)  # (N, 64, 4, 4)
        features = F.leaky_relu(self.hidden(self.drop(h.flatten(1))), 0.1)  # (N, 64)
        return features, self.classify(self.drop(features))  # (N, 64), (N, 10)


@extractor("digit-net")
class DigitNet(Extractor):
    """A small classifier of 8 x 8 digits, bundled: 64 features and 10 logits.

    Images of any size and channel count are composited on black (2 or 4 channels), turned grey (ITU-R BT.601 luma for
    RGB, the mean for other counts) and resampled to 8 x 8 by antialiased bilinear interpolation. An (N, 1, 8, 8) image
    reaches the network unchanged. Features are the activations that enter the last layer.

    Attributes
    ----------
    provenance : sha256 of the weights' file, the layer, the resizer and where the weights come from.

    Raises
    ------
    CheckpointError : the weights' file is missing, damaged, or holds another network.
    """

    teaches = True

    name = "digit-net"
    classes = 10
    class_names = tuple("0123456789")

    def __init__(self) -> None:
        self._net, sha256 = read_weights(WEIGHTS)
        self.provenance: Mapping[str, str] = {
            "sha256": sha256,
            "layer": "input of the last linear layer, 64 values",
            "resizer": "on black, BT.601 grey, bilinear antialiased 8x8",
            "source": "scripts/train_digit_net.py on the training split of scikit-learn's digits",
        }

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(features (N, 64), logits (N, 10)) of images (N, C, H, W) in [-1, 1]: float32, on the images' device.

        Raises
        ------
        UsageError : `images` is not a stack of images.
        """
        pixels.check(images)
        net = self._net.to(images.device)
        with torch.inference_mode():
            parts = [net(self._prepare(piece.float())) for piece in pixels.batched(images)]
            return torch.cat([features for features, _ in parts]), torch.cat([logits for _, logits in parts])

    def differentiable(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As a call, with gradients to the images, all of which go through at once.

        Raises
        ------
        UsageError : `images` is not a stack of images.
        """
        pixels.check(images)
        with torch.autocast(images.device.type, enabled=False):
            features, logits = self._net.to(images.device)(self._prepare(images.float()))
        return features, logits

    @staticmethod
    def _prepare(images: Tensor) -> Tensor:
        return pixels.square(pixels.grey(pixels.over(images, _BLACK)), 8)


def read_weights(file: Traversable) -> tuple[DigitClassifier, str]:
    """The frozen network in a weights file, and the file's sha256.

    Raises
    ------
    CheckpointError : the file is missing, damaged, or holds another network.
    """
    hint = "install ganvas again, or write the file anew with scripts/train_digit_net.py"
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"the digit net's weights cannot be read: {error}", where=str(file), hint=hint) from None
    net = DigitClassifier()
    try:
        net.load_state_dict({name: value.float() for name, value in safetensors.torch.load(raw).items()})
    except (SafetensorError, RuntimeError) as error:
        problem = f"the digit net's weights are damaged: {str(error).splitlines()[0]}"
        raise CheckpointError(problem, where=str(file), hint=hint) from None
    return net.eval().requires_grad_(False), hashlib.sha256(raw).hexdigest()
