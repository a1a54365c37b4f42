"""Axes of a latent space that paint one region of the image each (Zhu et al. 2023, "LinkGAN")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from ganvas.errors import BadValue, UsageError
from ganvas.nn import draws
from ganvas.parts import regularizer
from ganvas.types import Generator, Latent, Regularizer, Side, SpacedGenerator, Turn

Share = Annotated[float, Ge(0), Le(1)]
Axes = tuple[Share, Share]
Box = tuple[Share, Share, Share, Share]
_MAPPED = "w"


@dataclass(frozen=True)
class Link:
    """Which axes of the latent belong to which box of the image, both as shares of the whole; see `RegionLink`."""

    axes: Axes
    box: Box


@regularizer("region-link", paper="Zhu et al. 2023 (LinkGAN)", system="linkgan")
class RegionLink(Regularizer):
    """Chosen axes change their region of the image and nothing else, and all other axes change only the rest.

    Each link adds the squared change outside of its box when its own axes are drawn anew, and the squared change inside
    when the others are; each is the mean over the pixels that it is about. Layer noise stays the same for both images.
    The paper links 64 of 512 axes of w to a region.

    Parameters
    ----------
    axes : first and end of each link's axes as shares of all: [[0, 0.125]] are the first eighth. Links share none.
    boxes : as many regions: left, top, right and bottom edge as shares of the image's sides; y points down.
    outside, inside : weights λ of the two changes.
    noise : axes are moved by so much standard normal noise; None: they are those of another latent.
    space : whose axes are linked. None: w where the generator has it, else the space that is drawn.
    batch_shrink : the term looks at the batch's first 1 / batch_shrink, to save memory.

    Raises
    ------
    BadValue : no link, an empty one, two that share axes, or not as many axes as boxes.
    """

    side: Side = "generator"

    def __init__(
        self,
        *,
        axes: tuple[Axes, ...] = ((0.0, 0.125),),
        boxes: tuple[Box, ...] = ((0.0, 0.0, 0.5, 1.0),),
        outside: Annotated[float, Ge(0)] = 1.0,
        inside: Annotated[float, Ge(0)] = 1.0,
        noise: Annotated[float, Gt(0)] | None = None,
        space: str | None = None,
        batch_shrink: Annotated[int, Gt(0)] = 1,
    ) -> None:
        if not axes or len(axes) != len(boxes):
            raise BadValue(
                f"{len(axes)} sets of axes for {len(boxes)} boxes", key="axes",
                hint="give each box its axes: axes: [[0, 0.125]], boxes: [[0, 0, 0.5, 1]]",
            )  # fmt: skip
        links = [Link(pair, box) for pair, box in zip(axes, boxes, strict=True)]
        for link in links:
            left, top, right, bottom = link.box
            if not (link.axes[0] < link.axes[1] and left < right and top < bottom):
                raise BadValue(
                    f"axes {link.axes} or box {link.box} are none", key="axes",
                    hint="axes are [first, end], boxes [left, top, right, bottom], each larger than its partner",
                )  # fmt: skip
        for one, other in pairwise(sorted(axes)):
            if one[1] > other[0]:
                raise BadValue(f"axes {one} and {other} overlap", key="axes", hint="give each region axes of its own")
        self.links = links
        self.outside, self.inside = outside, inside
        self.noise = noise
        self.space = space
        self.batch_shrink = batch_shrink

    def __call__(self, turn: Turn) -> Tensor:
        n = max(1, len(turn.latent) // self.batch_shrink)
        label = None if turn.fake_label is None else turn.fake_label[:n]
        start = self.mapped(turn, Latent(turn.latent.values[:n], turn.latent.space), label)
        if self.noise is None:
            moved = self.mapped(turn, another(turn, n), label).values
        else:
            moved = start.values + self.noise * draws.normal("nearby latent", start.values.shape, like=start.values)
        generator = turn.nets["generator"]
        condition = turn.fake_condition.rows(slice(n))

        def drawn(values: Tensor) -> Tensor:
            at = Latent(values, start.space)
            if isinstance(generator, SpacedGenerator):
                return generator.from_space(at, label)
            return turn.generate(at, condition)

        draw = with_the_same_noise(drawn)
        image = draw(start.values)  # (N, C, H, W)
        total = image.new_zeros(())
        for link in self.links:
            linked = axes_of(link, start.values)
            outside, inside = link_changes(draw, start.values, moved, linked, box_mask(link, image), image=image)
            total = total + self.outside * outside + self.inside * inside
        return total

    def mapped(self, turn: Turn, latent: Latent, label: Tensor | None) -> Latent:
        """The same points in the space whose axes are linked."""
        generator = turn.nets["generator"]
        usual = _MAPPED if _MAPPED in cast("Generator", generator).latents else latent.space
        space = self.space or usual
        if space == latent.space:
            return latent
        if not isinstance(generator, SpacedGenerator):
            raise UsageError(f"this generator cannot be driven from {space!r}", hint="leave space out of region-link")
        return generator.to_space(latent, space, label)


def another(turn: Turn, n: int) -> Latent:
    """n fresh latents of the space that is drawn."""
    generator = cast("Generator", turn.nets["generator"])
    space = turn.latent.space
    return draws.latents(generator.latents[space], space, n, like=turn.latent.values, name="other latent")


def with_the_same_noise(draw: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`draw` with the same random numbers in each call, so that images differ by their latents alone."""
    seed = int(torch.randint(2**31 - 1, ()))

    def again(values: Tensor) -> Tensor:
        with torch.random.fork_rng([values.device] if values.device.type == "cuda" else []):
            torch.manual_seed(seed)
            return draw(values)

    return again


def axes_of(link: Link, like: Tensor) -> Tensor:
    """(D,) bool: the axes of a link among those of latents (N, ..., D); at least one."""
    D = like.shape[-1]
    first = min(round(link.axes[0] * D), D - 1)
    end = max(round(link.axes[1] * D), first + 1)
    axis = torch.arange(D, device=like.device)
    return (first <= axis) & (axis < end)


def box_mask(link: Link, image: Tensor) -> Tensor:
    """(1, 1, H, W): 1 in pixels whose middle is in the box, else 0."""
    H, W = image.shape[2:]
    left, top, right, bottom = link.box
    x = (torch.arange(W, device=image.device) + 0.5) / W
    y = (torch.arange(H, device=image.device) + 0.5) / H
    inside = ((top <= y) & (y < bottom))[:, None] & ((left <= x) & (x < right))
    return inside.to(image.dtype)[None, None]


# Zhu et al. 2023; there sums of squares, here means over the pixels that count
def link_changes(
    draw: Callable[[Tensor], Tensor],
    start: Tensor,
    moved: Tensor,
    linked: Tensor,
    mask: Tensor | Callable[[Tensor], Tensor],
    *,
    image: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(change outside of the region by its own axes, change inside by all others), mean squares.

    Parameters
    ----------
    draw : latents (N, ..., D) -> images (N, C, H, W).
    start, moved : two latents for each image; axes go from the one to the other.
    own : (D,) bool, the region's axes.
    mask : (N or 1, 1, H, W), 1 in the region; or what finds it in the images of `start`, such as a segmenter, through
        which nothing is learnt.
    image : `draw(start)`, where it is at hand.
    """
    image = draw(start) if image is None else image
    with torch.no_grad():
        inside = (mask if isinstance(mask, Tensor) else mask(image.detach())).to(image.dtype)

    def change(values: Tensor, where: Tensor) -> Tensor:
        squares = where * (draw(values) - image).float().square()
        return squares.sum() / (where.expand_as(image).sum() + 1e-12)  # a region may be empty

    return change(torch.where(linked, moved, start), 1 - inside), change(torch.where(linked, start, moved), inside)
