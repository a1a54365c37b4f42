"""An untrained convolutional network as extractor: the offline default for images that are not digits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ganvas.parts import extractor
from ganvas.shelves.features import pixels
from ganvas.types import Extractor

_LAYERS = ((3, 32, 1), (32, 32, 2), (32, 64, 2))  # channels in, channels out, stride; all 3 x 3
_SEED = 0
_SLOPE = 0.2
_WHITE = 1.0


@extractor("random-net")
class RandomNet(Extractor):
    """An untrained convolutional network of fixed seed: 256 features of texture and colour, no logits.

    Random features tell real from generated images apart without any weights to download, but they are not those of
    published tables: compare their scores only with each other. Images of any size and channel count are composited on
    white (2 or 4 channels), turned into RGB (grey is copied, other counts are averaged) and resampled to 32 x 32 by
    antialiased bilinear interpolation. Features are the mean and the standard deviation over space of every channel of
    three layers.

    The weights are drawn from PCG64's raw output, which no version of NumPy or PyTorch changes.

    Attributes
    ----------
    provenance : sha256 of the weights, the layers, the resizer and where the weights come from.
    """

    name = "random-net"
    classes = 0

    def __init__(self) -> None:
        self._weights = draw_weights(_SEED)
        self.provenance: Mapping[str, str] = {
            "sha256": hashlib.sha256(b"".join(w.astype("<f4").tobytes() for w in self._weights)).hexdigest(),
            "layer": "mean and standard deviation over space of 32 + 32 + 64 channels",
            "resizer": "on white, RGB, bilinear antialiased 32x32",
            "source": f"untrained, PCG64 seed {_SEED}",
        }

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        """(features (N, 256), None) of images (N, C, H, W) in [-1, 1]: float32, on the images' device.

        Raises
        ------
        UsageError : `images` is not a stack of images.
        """
        pixels.check(images)
        weights = [torch.from_numpy(w).to(images.device) for w in self._weights]
        with torch.inference_mode():
            return torch.cat([self._features(piece.float(), weights) for piece in pixels.batched(images)]), None

    @staticmethod
    def _features(images: Tensor, weights: list[Tensor]) -> Tensor:
        h = pixels.square(pixels.rgb(pixels.over(images, _WHITE)), 32)  # (N, 3, 32, 32)
        pooled = []
        for (_, _, stride), weight, bias in zip(_LAYERS, weights[::2], weights[1::2], strict=True):
            h = F.leaky_relu(F.conv2d(h, weight, bias, stride=stride, padding=1), _SLOPE)
            std, mean = torch.std_mean(h, dim=(2, 3), correction=0)
            pooled += [mean, std]
        return torch.cat(pooled, dim=1)  # (N, 2 * (32 + 32 + 64))


def draw_weights(seed: int) -> list[np.ndarray]:
    """Kernels (out, in, 3, 3) and biases (out,) in turn, float32, the same on every machine.

    Kernels are uniform with the variance that keeps the scale of activations (He et al. 2015); biases are
    uniform in [-0.5, 0.5), so that the units bend at different places.
    """
    bits = np.random.PCG64(seed)
    weights = []
    for inputs, outputs, _ in _LAYERS:
        bound = math.sqrt(3) * math.sqrt(2 / ((1 + _SLOPE**2) * 9 * inputs))
        weights.append((bound * _uniform(bits, outputs * inputs * 9)).reshape(outputs, inputs, 3, 3).astype(np.float32))
        weights.append((0.5 * _uniform(bits, outputs)).astype(np.float32))
    return weights


def _uniform(bits: np.random.PCG64, count: int) -> np.ndarray:
    """Uniform values in [-1, 1) with 53 bits each. `Generator.uniform` may change between versions, raw output not."""
    raw: np.ndarray = bits.random_raw(count) >> np.uint64(11)
    return raw * 2.0**-52 - 1
