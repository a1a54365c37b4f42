"""Images: (C, H, W) in [-1, 1], 8 bits a value in their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from ganvas.errors import DataError
from ganvas.files import pictures
from ganvas.nn.eight_bit import eight_bit, from_bytes
from ganvas.parts import modality
from ganvas.types import Modality

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@modality("image")
class Image(Modality):
    """Pictures (C, H, W) float32 in [-1, 1], rounded to 8 bits as PNG files round them.

    One channel is grey, three are RGB, four RGBA. Data of other numbers of channels train and are scored as any others;
    a sheet shows the first three and says so, and no picture file can hold them: write them as an array, FILE.npz.
    """

    axes = ("channel", "height", "width")
    suffixes = (".png",)
    protocol = "folder-default"

    def rounded(self, data: Tensor) -> Tensor:
        """(N, C, H, W) uint8."""
        return eight_bit(data)

    def restored(self, rounded: Tensor) -> Tensor:
        """(N, C, H, W) float32 in [-1, 1]."""
        return from_bytes(rounded)

    def show(self, data: Tensor, columns: int | None = None) -> Picture:
        """A sheet with thin gaps between the images."""
        return pictures.grid(data, columns)

    def arrays(self, data: Tensor) -> dict[str, np.ndarray]:
        """`images` (N, H, W, C) uint8."""
        return {"images": pictures.to_uint8(data)}

    def note(self, shape: tuple[int, ...]) -> str:
        """Pictures of other numbers of channels than a picture file has show some of them."""
        if shape[0] in _MODES:
            return ""
        return f"the data have {shape[0]} channels; a picture shows {'the first' if shape[0] == 2 else 'three'} of them"

    def read(self, file: Path, shape: tuple[int, ...]) -> Tensor:
        """One picture file, in the colours of the shape; its size must be that of the shape."""
        if shape[0] not in _MODES:
            raise DataError(f"no picture has {shape[0]} channels", where=str(file), hint="give an array: FILE.npz")
        try:
            with PILImage.open(file) as picture:
                pixels = np.asarray(picture.convert(_MODES[shape[0]]), dtype=np.uint8)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"it is no picture that can be read: {error}", where=str(file)) from None
        values = torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)  # (C, H, W)
        if tuple(values.shape) != shape:
            raise DataError(
                f"it is {values.shape[2]}x{values.shape[1]} (width x height), not {shape[2]}x{shape[1]}",
                where=str(file), hint="resize it first",
            )  # fmt: skip
        return from_bytes(values)

    def write(self, data: Tensor, files: Sequence[Path]) -> None:
        """PNG files."""
        if data.shape[1] not in _MODES:
            raise DataError(
                f"no picture file can hold {data.shape[1]} channels", where=str(files[0]), hint="write --out FILE.npz"
            )
        for pixels, file in zip(pictures.to_uint8(data), files, strict=True):
            pictures.picture(pixels).save(file)
