"""How loud sound is in each band of frequencies, and how much that changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.nn.mel import log_mel, mel_filters
from ganvas.parts import extractor
from ganvas.types import Extractor, Modality

_SECONDS = 0.025  # of a frame; one begins every 10 ms, as is usual for speech
_STEP = 0.010
_AT_ONCE = 1 << 22  # samples that are looked at together


@extractor("log-mel", paper="Young et al., The HTK Book, eq. 5.13 (mel scale)")
class LogMel(Extractor):
    """Mean and standard deviation over time of log-mel bands: 2 x bands features of sound, no logits.

    Frames of 25 ms, one every 10 ms, of the mean of all channels. The features hear timbre and loudness, and nothing of
    the order of sounds; no weights are needed, and scores are to be compared only with each other.

    Parameters
    ----------
    bands : triangular filters at equal distances on the mel scale from 0 Hz to half the rate.

    Attributes
    ----------
    provenance : sha256 of the filters, the frames and the rate.
    """

    name = "log-mel"
    classes = 0
    modalities: ClassVar[tuple[str, ...]] = ("audio",)

    def __init__(self, *, bands: Annotated[int, Gt(0)] = 40) -> None:
        self.bands = bands
        self._set_rate(16_000)

    def _set_rate(self, rate: float) -> None:
        self.rate = rate
        self.window = max(16, 2 * round(_SECONDS * rate / 2))
        self.hop = max(1, round(_STEP * rate))
        filters = mel_filters(rate, self.window, self.bands)
        self.provenance: Mapping[str, str] = {
            "sha256": hashlib.sha256(filters.numpy().astype("<f4").tobytes()).hexdigest(),
            "layer": f"mean and standard deviation over time of {self.bands} log-mel bands",
            "resizer": f"{rate:g} Hz, frames of {self.window} samples, one every {self.hop}",
            "source": "computed, no weights",
        }

    def suited(self, modality: Modality) -> LogMel:
        """One for sound of this rate."""
        if modality.rate in (None, self.rate):
            return self
        suited = LogMel(bands=self.bands)
        suited._set_rate(float(modality.rate or self.rate))
        return suited

    def __call__(self, data: Tensor) -> tuple[Tensor, None]:
        """(features (N, 2 x bands) float32, None) of sound (N, channels, samples) in [-1, 1].

        Raises
        ------
        UsageError : the data are no stack of sounds.
        """
        if data.dim() != 3 or not data.numel() or not data.is_floating_point():
            raise UsageError(
                f"this extractor takes sound (N, channels, samples) of floats in [-1, 1], not {tuple(data.shape)} of "
                f"{data.dtype}",
                hint="add the missing axis, or divide 16-bit numbers by 32768",
            )
        with torch.inference_mode():
            pieces = torch.split(data.float().mean(1), max(1, _AT_ONCE // data.shape[2]))
            return torch.cat([self._features(piece) for piece in pieces]), None

    def _features(self, sound: Tensor) -> Tensor:
        levels = log_mel(sound, self.rate, window=self.window, hop=self.hop, bands=self.bands)  # (N, bands, frames)
        std, mean = torch.std_mean(levels, dim=2, correction=0)
        return torch.cat([mean, std], dim=1)
