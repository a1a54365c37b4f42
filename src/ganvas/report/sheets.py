"""Sheets of samples: what they were made of stands in rows above them, and a line says which rows are what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ganvas.types import Condition, DataSpec, Modality

_LINE = 13  # pixels of a line of text in Pillow's own font
_PAPER = 255
_IMAGE = ("channel", "height", "width")


def inputs_of(condition: Condition, spec: DataSpec) -> dict[str, Tensor]:
    """The conditions that can stand on a sheet beside images (C, H, W), each as (N, C, H, W); none beside other data.

    `data` stand there as they are, whatever they are. Images of another size are enlarged by repeating pixels, so that
    a person sees how little was given; grey and colour become what the data are.
    """
    found = {"data": condition["data"]} if "data" in condition else {}
    for name, values in condition.items():
        modality = spec.condition(name).modality
        if name != "data" and modality is not None and modality.axes == spec.modality.axes == _IMAGE:
            found[name] = _as_large(values, spec)
    return found


def _as_large(images: Tensor, spec: DataSpec) -> Tensor:
    """Images (N, c, h, w) in the channels and at the size of the data, (N, C, H, W)."""
    size = (spec.height, spec.width)
    enlarged = torch.nn.functional.interpolate(images.float(), size=size, mode="nearest")
    if images.shape[1] == spec.channels:
        return enlarged
    return enlarged.mean(1, keepdim=True).expand(-1, spec.channels, -1, -1)


def interleaved(sets: Sequence[Tensor], columns: int) -> Tensor:
    """Sets of data (N, ...): `columns` of the first, then their like of each other set, and so on with the next."""
    pieces = [slice(start, start + columns) for start in range(0, len(sets[0]), columns)]
    return torch.cat([data[piece] for piece in pieces for data in sets])


def sheet(samples: Tensor, inputs: Mapping[str, Tensor], modality: Modality, columns: int | None = None) -> Image.Image:
    """A picture of samples (N, ...) in rows below those of what they were made of, (N, ...) each by name.

    Without `columns` it is about square.
    """
    if not inputs:
        return modality.show(samples, columns)
    n = len(samples)
    columns = min(columns or round((n * (1 + len(inputs))) ** 0.5), n)
    missing = -n % columns  # a row that is not full is filled up, or the next ones would not stand below each other
    sets = [torch.cat([values, _nothing(values, missing)]) for values in (*inputs.values(), samples.cpu())]
    picture = modality.show(interleaved(sets, columns), columns)
    return captioned(picture, f"rows in turn: {', '.join(inputs)} (given), output")


def _nothing(like: Tensor, count: int) -> Tensor:
    """Data (count, ...) of zeros, which are grey in images."""
    return like.new_zeros(count, *like.shape[1:])


def captioned(picture: Image.Image, text: str) -> Image.Image:
    """The picture below a line of text, as wide as both need."""
    font = ImageFont.load_default_imagefont()
    colour = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
    width = max(colour.width, round(font.getbbox(text)[2]))
    whole = Image.new(colour.mode, (width, colour.height + _LINE), (_PAPER,) * len(colour.getbands()))
    ImageDraw.Draw(whole).text((0, 0), text, fill=(0,) * len(colour.getbands()), font=font)
    whole.paste(colour, (0, _LINE))
    return whole
