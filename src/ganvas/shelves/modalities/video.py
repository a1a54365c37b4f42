"""Moving pictures: (channels, frames, height, width) in [-1, 1], 8 bits a value in their files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from annotated_types import Gt
from PIL import Image as PILImage
from torch import Tensor

from ganvas.errors import DataError
from ganvas.files import pictures
from ganvas.files import video as files
from ganvas.nn.eight_bit import eight_bit, from_bytes
from ganvas.parts import modality
from ganvas.types import Modality

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_IN_STRIP = 8  # frames of a film that are shown, at most
_MOST_PLAYERS = 24
_GREY, _GAP = 128, 16  # what is between rows of films, and how many pixels of it
_EMPTY = _GREY / 127.5 - 1  # where a film is missing


@modality("video")
class Video(Modality):
    """Films (channels, frames, height, width) float32 in [-1, 1], rounded to 8 bits as picture files round them.

    One channel is grey, three are RGB. GIF files are read and written without further packages; they hold grey films as
    they are, and of a colour film at most 256 colours in a frame. MP4 needs the extra `video` and is lossy. Data of
    other numbers of channels train and are scored as any others, and are written as an array, FILE.npz.

    Parameters
    ----------
    rate : frames in a second.
    """

    axes = ("channel", "time", "height", "width")
    suffixes = files.SUFFIXES
    rows = 1
    rate: float

    def __init__(self, *, rate: Annotated[float, Gt(0)] = 25.0) -> None:
        self.rate = rate

    def node(self) -> dict[str, Any]:
        """The part's name and its rate."""
        return {"use": self.part_name, "rate": self.rate}

    def reading(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Channels, frames and their size; of whatever rate the films are."""
        return {"channels": shape[0], "frames": shape[1], "size": list(shape[2:])}

    def unlike(self, other: Modality) -> dict[str, tuple[Any, Any]]:
        """The kind alone: files say rates in whole hundredths of a second, or not at all."""
        return {key: values for key, values in super().unlike(other).items() if key != "rate"}

    def rounded(self, data: Tensor) -> Tensor:
        """(N, C, T, H, W) uint8."""
        return eight_bit(data.flatten(0, 1)).view(data.shape)

    def restored(self, rounded: Tensor) -> Tensor:
        """(N, C, T, H, W) float32 in [-1, 1]."""
        return from_bytes(rounded)

    def arrays(self, data: Tensor) -> dict[str, np.ndarray]:
        """`videos` (N, T, H, W, C) uint8."""
        return {"videos": self._frames(data)}

    def show(self, data: Tensor, columns: int | None = None) -> Picture:
        """Film strips of up to eight frames of a film, evenly from its first to its last.

        Each film has a row, and time goes from left to right. With `columns`, so many films lie beside each other and
        time goes down; of several rows of films, each shows up to four frames.
        """
        n, _, T = data.shape[:3]
        shown = min(T, _IN_STRIP if n <= (columns or n) else _IN_STRIP // 2)
        chosen = torch.linspace(0, T - 1, shown).round().long()
        frames = data.detach().cpu()[:, :, chosen].transpose(1, 2)  # (N, shown, C, H, W)
        if columns is None:
            return pictures.grid(frames.flatten(0, 1), shown)
        rows = []
        for start in range(0, n, columns):
            films = frames[start : start + columns]
            empty = torch.full((columns - len(films), *films.shape[1:]), _EMPTY)
            rows.append(pictures.grid(torch.cat([films, empty]).transpose(0, 1).flatten(0, 1), columns))
        return _below_each_other(rows)

    def note(self, shape: tuple[int, ...]) -> str:
        """A strip has some of the frames and at most three channels."""
        left_out = []
        if shape[1] > _IN_STRIP:
            left_out.append(f"{_IN_STRIP} or fewer of their {shape[1]} frames")
        if shape[0] not in files.CHANNELS:
            left_out.append(f"some of their {shape[0]} channels")
        return f"a picture of the films shows {' and '.join(left_out)}" if left_out else ""

    def player(self, data: Tensor) -> str:
        """A moving <img> for each film; the first 24 where there are more, and small ones enlarged."""
        pieces = []
        for number, film in enumerate(self._frames(data.detach()[:_MOST_PLAYERS]), start=1):
            shown = pictures.shown_channels(film)
            shown = shown[..., :3]
            factor = -(-64 // max(shown.shape[1:3]))  # as large as a sheet's cells
            shown = shown.repeat(factor, axis=1).repeat(factor, axis=2)
            content = base64.b64encode(files.gif(shown, self.rate)).decode()
            pieces.append(f'<img alt="film {number}" src="data:image/gif;base64,{content}">')
        return "".join(pieces)

    def read(self, file: Path, shape: tuple[int, ...]) -> Tensor:
        """One GIF or MP4 file of just so many frames of this size, at whatever rate, in the colours of the shape."""
        if shape[0] not in files.CHANNELS:
            raise DataError(f"no film has {shape[0]} channels", where=str(file), hint="give an array: FILE.npz")
        frames = files.read(file).frames  # (T, H, W, 3)
        if frames.shape[:3] != shape[1:]:
            raise DataError(
                f"it has {len(frames)} frames of {frames.shape[2]}x{frames.shape[1]} (width x height), not {shape[1]} "
                f"of {shape[3]}x{shape[2]}",
                where=str(file), hint="cut and resize it first",
            )  # fmt: skip
        if shape[0] == 1:
            frames = np.stack([np.asarray(PILImage.fromarray(frame).convert("L")) for frame in frames])[..., None]
        return from_bytes(torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2))))

    def write(self, data: Tensor, files_: Sequence[Path]) -> None:
        """GIF files, or MP4 where their names end so."""
        for frames, file in zip(self._frames(data), files_, strict=True):
            files.write(file, frames, self.rate)

    def _frames(self, data: Tensor) -> np.ndarray:
        """(N, T, H, W, C) uint8."""
        return self.rounded(data).permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()


def _below_each_other(sheets: Sequence[Picture]) -> Picture:
    """Pictures of one width and kind as one."""
    if len(sheets) == 1:
        return sheets[0]
    height = sum(sheet.height + _GAP for sheet in sheets) - _GAP
    ground = _GREY if sheets[0].mode == "L" else (_GREY,) * len(sheets[0].getbands())
    picture = PILImage.new(sheets[0].mode, (sheets[0].width, height), ground)
    top = 0
    for sheet in sheets:
        picture.paste(sheet, (0, top))
        top += sheet.height + _GAP
    return picture
