"""The keys that every image data set shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

Pixels = Annotated[int, Gt(0)]


@dataclass(frozen=True)
class PixelOptions:
    """How images are brought to one form.

    Parameters
    ----------
    size : pixels of a side, or (height, width); None: as the data are, which must then have one size.
    fit : how another aspect ratio is met: "crop" the centre after the short side fits, "pad" by repeating the border
        pixels after the long side fits, or "stretch".
    channels : 1 grey, 3 RGB, 4 RGBA; None: RGB where any image has colour, else grey. Transparency becomes white paper
        where the alpha channel is dropped, as it is unless 4 is asked for. Of a file with several pages or frames the
        first is read, and a warning tells how many there are.
    flip : mirror each image left to right with probability 1/2 whenever it is read.
    """

    size: Pixels | tuple[Pixels, Pixels] | None = None
    fit: Literal["crop", "pad", "stretch"] = "crop"
    channels: Literal[1, 3, 4] | None = None
    flip: bool = False

    @property
    def height_width(self) -> tuple[int, int] | None:
        """`size` as (height, width)."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def promised(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """The shape (C, H, W) that images of the given one come out with."""
        return (self.channels or channels, *(self.height_width or (height, width)))


@dataclass(frozen=True)
class ImageOptions(PixelOptions):
    """How images are brought to one form, and how many of them.

    Parameters
    ----------
    size, fit, channels, flip : see `PixelOptions`.
    limit : at most so many images: a fixed choice, as even over the classes as can be, in which a smaller limit
        chooses a subset of a larger one's. None: all.
    """

    limit: Annotated[int, Ge(2)] | None = None


AS_THEY_ARE = ImageOptions()
PIXELS_AS_THEY_ARE = PixelOptions()
