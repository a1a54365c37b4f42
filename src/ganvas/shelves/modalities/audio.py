"""Sound: (channels, samples) in [-1, 1], 16 bits a sample in its files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from annotated_types import Gt
from PIL import Image as PILImage
from torch import Tensor

from ganvas.errors import DataError
from ganvas.files import audio as files
from ganvas.nn.mel import log_mel
from ganvas.parts import modality
from ganvas.types import Modality

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_WIDTH, _WAVE, _SPECTRUM, _GAP = 200, 56, 72, 8  # pixels of a cell
_BANDS = 36  # of the spectrogram, two pixels each
_SECONDS = 0.025  # of a frame, as is usual for speech
_BLACK, _RANGE = -10.0, 8.0  # natural logarithms: what is black, and 70 dB from there to the brightest
_PAPER, _GROUND, _INK, _MIDDLE = (255, 255, 255), (244, 244, 246), (38, 70, 140), (205, 208, 216)
_HEAT = np.array([(10, 8, 30), (70, 20, 110), (170, 40, 100), (240, 110, 40), (255, 230, 130)], dtype=float)
_MOST_PLAYERS = 24


@modality("audio")
class Audio(Modality):
    """Sound (channels, samples) float32 in [-1, 1], rounded to 16 bits as WAV files round it.

    WAV files are read and written without further packages; FLAC and OGG need the extra `audio`.

    Parameters
    ----------
    rate : samples of each channel in a second, Hz.
    """

    axes = ("channel", "time")
    suffixes = files.SUFFIXES
    rows = 2
    protocol = "audio-default"
    rate: int

    def __init__(self, *, rate: Annotated[int, Gt(0)] = 16_000) -> None:
        self.rate = rate

    def node(self) -> dict[str, Any]:
        """The part's name and its rate."""
        return {"use": self.part_name, "rate": self.rate}

    def reading(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Rate, length and channels."""
        return {"rate": self.rate, "channels": shape[0], "samples": shape[1]}

    def rounded(self, data: Tensor) -> Tensor:
        """(N, channels, samples) int16."""
        scaled = (data.float() * files.FULL_SCALE).round()
        return scaled.clamp(-files.FULL_SCALE, files.FULL_SCALE - 1).to(torch.int16)

    def restored(self, rounded: Tensor) -> Tensor:
        """(N, channels, samples) float32 in [-1, 1]."""
        return rounded.float() / files.FULL_SCALE

    def show(self, data: Tensor, columns: int | None = None) -> Picture:
        """Waveforms over the whole scale, each above its log-mel spectrogram, low frequencies at its foot.

        All channels lie over each other in the waveform, and are averaged for the spectrogram.
        """
        sounds = data.detach().float().cpu()
        n = len(sounds)
        columns = columns or max(1, round((n * (_WAVE + _SPECTRUM) / _WIDTH) ** 0.5))
        rows = -(-n // columns)
        height, width = _WAVE + _SPECTRUM + _GAP, _WIDTH + _GAP
        sheet = np.full((rows * height, columns * width, 3), _PAPER, dtype=np.uint8)
        spectra = self._spectra(sounds.mean(1))  # (N, _SPECTRUM, _WIDTH, 3)
        for i, sound in enumerate(sounds.numpy()):
            top, left = i // columns * height, i % columns * width
            sheet[top : top + _WAVE, left : left + _WIDTH] = _waveform(sound)
            sheet[top + _WAVE : top + _WAVE + _SPECTRUM, left : left + _WIDTH] = spectra[i]
        return PILImage.fromarray(sheet[:-_GAP, :-_GAP])

    def _spectra(self, sounds: Tensor) -> np.ndarray:
        """Pictures (N, _SPECTRUM, _WIDTH, 3) uint8 of sounds (N, samples); the scale is the same for all."""
        window = max(16, min(2 * (int(_SECONDS * self.rate) // 2), 2 * (sounds.shape[1] // 2)))
        hop = max(1, sounds.shape[1] // _WIDTH)
        levels = log_mel(sounds, self.rate, window=window, hop=hop, bands=_BANDS)  # (N, bands, frames)
        heat = ((levels - _BLACK) / _RANGE).clamp(0, 1)
        high = torch.nn.functional.interpolate(heat[:, None], size=(_SPECTRUM, _WIDTH), mode="bilinear")[:, 0]
        place = high.flip(1).numpy() * (len(_HEAT) - 1)  # (N, _SPECTRUM, _WIDTH), low frequencies last
        below = np.minimum(place.astype(int), len(_HEAT) - 2)
        share = (place - below)[..., None]
        pictures: np.ndarray = (_HEAT[below] * (1 - share) + _HEAT[below + 1] * share).round().astype(np.uint8)
        return pictures

    def player(self, data: Tensor) -> str:
        """An <audio> element for each sound; the first 24 where there are more."""
        sounds = self.rounded(data.detach()[:_MOST_PLAYERS]).cpu().numpy()
        pieces = []
        for number, sound in enumerate(sounds, start=1):
            content = base64.b64encode(files.wav(sound, self.rate)).decode()
            source = f'src="data:audio/wav;base64,{content}"'
            pieces.append(f'<audio controls preload="none" title="sound {number}" {source}></audio>')
        if len(data) > _MOST_PLAYERS:
            pieces.append(f"<p>The first {_MOST_PLAYERS} of {len(data)}, row by row.</p>")
        return "".join(pieces)

    def read(self, file: Path, shape: tuple[int, ...]) -> Tensor:
        """One sound file; its rate, channels and length must be those of the data."""
        sound = files.read(file)
        if sound.rate != self.rate:
            raise DataError(
                f"it has {sound.rate} samples a second, not {self.rate}", where=str(file),
                hint=f"resample it first, or set data.rate={sound.rate}",
            )  # fmt: skip
        if sound.values.shape != shape:
            (channels, samples), (needed, length) = sound.values.shape, shape
            raise DataError(
                f"it has {channels} channels of {samples:,} samples, not {needed} of {length:,}", where=str(file),
                hint="cut it, or pad it with silence, first",
            )  # fmt: skip
        return torch.from_numpy(sound.values)

    def write(self, data: Tensor, files_: Sequence[Path]) -> None:
        """WAV files, or FLAC or OGG where their names end so."""
        for sound, file in zip(self.rounded(data).cpu().numpy(), files_, strict=True):
            files.write(file, sound, self.rate)


def _waveform(sound: np.ndarray) -> np.ndarray:
    """A picture (_WAVE, _WIDTH, 3) uint8 of (channels, samples): the range of values in each column."""
    picture = np.full((_WAVE, _WIDTH, 3), _GROUND, dtype=np.uint8)
    picture[_WAVE // 2] = _MIDDLE
    edges = np.linspace(0, sound.shape[1], _WIDTH + 1).astype(int)
    place = ((1 - np.clip(sound, -1, 1)) / 2 * (_WAVE - 1)).round().astype(int)  # -1 below, 1 above
    for column, (start, stop) in enumerate(pairwise(edges)):
        # The first sample of the next column is looked at, too, so that the curve has no gaps.
        piece = place[:, min(start, sound.shape[1] - 1) : max(stop, start + 1) + 1]
        picture[piece.min() : piece.max() + 1, column] = _INK
    return picture
