"""Adaptive discriminator augmentation (Karras et al. 2020, Training GANs with limited data; appendix B).

Eighteen transformations in the paper's order, each done to an image with probability p, real and generated ones alike.
As long as p < 1 the distribution of the images can be told from that of the augmented ones, so the generator does not
learn the augmentation. All random numbers are drawn by `Ada.draw`; `apply` is a pure function of images and draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from ganvas.nn import draws
from ganvas.nn.warp import filter_separable, rotation, scaling, translation, warp
from ganvas.nn.wavelets import band_filters
from ganvas.parts import augment
from ganvas.shelves.augment.controller import OverfitController, refuse_idle
from ganvas.types import Augment, Knob, Turn

Transform = Literal[
    "xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac", "brightness", "contrast", "lumaflip", "hue",
    "saturation", "imgfilter", "noise", "cutout",
]  # fmt: skip
Pipe = Literal["blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"]
Draws = Mapping[str, Tensor]

GROUPS: Mapping[str, tuple[str, ...]] = {
    "b": ("xflip", "rotate90", "xint"),  # pixel blitting
    "g": ("scale", "rotate", "aniso", "xfrac"),  # general geometry
    "c": ("brightness", "contrast", "lumaflip", "hue", "saturation"),
    "f": ("imgfilter",),
    "n": ("noise",),
    "k": ("cutout",),
}
_PIPES = {
    "blit": "b", "geom": "g", "color": "c", "filter": "f", "noise": "n", "cutout": "k",
    "bg": "bg", "bgc": "bgc", "bgcf": "bgcf", "bgcfn": "bgcfn", "bgcfnc": "bgcfnk",
}  # fmt: skip
_EXPECTED_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # of natural images in the four bands (appendix B)
_BANDS = len(_EXPECTED_POWER)


@augment("ada", paper="Karras et al. 2020 (ADA), appendix B", system="stylegan2-ada")
class Ada(Augment):
    """Up to 18 transformations per image, each with a probability p that adapts to the critic's overfitting.

    Where the channels are not three, there is no hue; luma is the mean of the channels everywhere.

    Parameters
    ----------
    pipe : groups by name (b blitting, g geometry, c colour, f filter, n noise, c cutout), or a list of transformations.
    p : the probability at the start.
    adapt : false keeps p where it is.
    target : r_t = E[sign(D_train)] that p is steered by.
    interval : critic updates between adjustments of p.
    speed_kimg : thousands of real images in which p can go from 0 to 1.

    Raises
    ------
    BadValue : p is 0 and does not adapt.
    """

    def __init__(
        self,
        *,
        pipe: Pipe | tuple[Transform, ...] = "bgc",
        p: Annotated[float, Ge(0), Le(1)] = 0.0,
        adapt: bool = True,
        target: Annotated[float, Ge(-1), Le(1)] = 0.6,
        interval: Annotated[int, Gt(0)] = 4,
        speed_kimg: Annotated[float, Gt(0)] = 500.0,
    ) -> None:
        refuse_idle("ada", p, adapt)
        names = (name for group in _PIPES[pipe] for name in GROUPS[group]) if isinstance(pipe, str) else pipe
        self.transforms = frozenset(names)
        self.controller = OverfitController(p=p, adapt=adapt, target=target, interval=interval, speed_kimg=speed_kimg)

    @property
    def p(self) -> float:
        return self.controller.p

    def knobs(self) -> dict[str, Knob]:
        """p, where it does not steer itself."""
        return {} if self.controller.adapt else {"p": partial(setattr, self.controller, "p")}

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) of any range -> (N, C, H, W); the images themselves where p is 0."""
        if self.p == 0:
            return images
        # Half precision is no good for coordinates, nor for 50 taps of a filter.
        with torch.autocast(images.device.type, enabled=False):
            images = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
            return apply(images, self.draw(images))

    # ------------------------------------------------------------------ what is drawn

    def draw(self, images: Tensor) -> dict[str, Tensor]:
        """The parameters of every transformation of the pipe for each image, or those that change nothing (1 - p)."""
        N = len(images)
        like: dict[str, Any] = {"device": images.device, "dtype": images.dtype}

        def rand(*shape: int) -> Tensor:
            return draws.uniform("augment", (N, *shape), like=images)

        def randn(*shape: int) -> Tensor:
            return draws.normal("augment", (N, *shape), like=images)

        def angle() -> Tensor:
            return (2 * rand() - 1) * math.pi

        def gated(value: Tensor, nothing: float = 0.0, p: float = self.p) -> Tensor:
            done = rand(*[1] * (value.dim() - 1)) < p
            return torch.where(done, value, nothing)

        # One of two rotations with p_rot each is a rotation with probability p.
        p_rot = 1 - math.sqrt(1 - self.p)
        ways: dict[str, Callable[[], Tensor]] = {
            "xflip": lambda: gated((2 * rand()).floor()),
            "rotate90": lambda: gated((4 * rand()).floor()),
            "xint": lambda: gated(0.125 * (2 * rand(2) - 1)),
            "scale": lambda: gated((0.2 * randn()).exp2(), 1),
            "rotate": lambda: gated(angle(), p=p_rot),
            "rotate_after": lambda: gated(angle(), p=p_rot),
            "aniso": lambda: gated((0.2 * randn()).exp2(), 1),
            "xfrac": lambda: gated(0.125 * randn(2)),
            "brightness": lambda: gated(0.2 * randn()),
            "contrast": lambda: gated((0.5 * randn()).exp2(), 1),
            "lumaflip": lambda: gated((2 * rand()).floor()),
            "hue": lambda: gated(angle()),
            "saturation": lambda: gated(randn().exp2(), 1),
            "imgfilter": lambda: torch.where(rand(_BANDS) < self.p, randn(_BANDS).exp2(), 1.0),
            "noise": lambda: gated(0.1 * randn(1, 1, 1).abs()) * draws.normal("augment", images.shape, like=images),
            "cutout": lambda: gated(torch.full((N,), 0.5, **like)),
            "cutout_centre": lambda: rand(2),
        }
        also = {"rotate_after": "rotate", "cutout_centre": "cutout"}
        return {name: ways[name]() for name in ways if also.get(name, name) in self.transforms}

    # ------------------------------------------------------------------ what is learnt

    def observe(self, turn: Turn) -> None:
        """Adjust p to the critic's scores of the real images."""
        self.controller.observe(turn)

    def state_dict(self) -> dict[str, Any]:
        return self.controller.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state)


# ---------------------------------------------------------------------------------------------------- what is done


def apply(images: Tensor, draws: Draws) -> Tensor:
    """Transform images as drawn, in the paper's order; what is not in `draws` is not done.

    Parameters
    ----------
    images : (N, C, H, W).
    draws : by name and (N,) unless said otherwise: `xflip` 0 or 1, `rotate90` quarter turns, `xint` and `xfrac` (N, 2)
        parts of width and height, `scale`, `aniso` and `contrast` and `saturation` factors, `rotate` and `rotate_after`
        and `hue` radians, `brightness` a summand, `lumaflip` 0 or 1, `imgfilter` (N, 4) gains, `noise` (N, C, H, W),
        `cutout` a part of the side and `cutout_centre` (N, 2) parts of width and height.
    """
    if any(name in draws for name in (*GROUPS["b"], *GROUPS["g"])):
        images = warp(images, geometry(draws, images))
    if any(name in draws for name in GROUPS["c"]):
        images = recolour(images, draws)
    if "imgfilter" in draws:
        images = filter_separable(images, amplified(draws["imgfilter"]))
    if "noise" in draws:
        images = images + draws["noise"]
    if "cutout" in draws:
        images = images * outside_cutout(draws["cutout"], draws["cutout_centre"], images)
    return images


def geometry(draws: Draws, images: Tensor) -> Tensor:
    """The inverse of all blits and geometric transformations of (N, C, H, W) images, (N, 3, 3) in pixels."""
    N, _, H, W = images.shape
    one = images.new_ones(N)
    G_inv = torch.eye(3, device=images.device, dtype=images.dtype).expand(N, 3, 3)
    if "xflip" in draws:
        G_inv = G_inv @ scaling(1 - 2 * draws["xflip"], one)
    if "rotate90" in draws:
        G_inv = G_inv @ rotation(math.pi / 2 * draws["rotate90"])
    if "xint" in draws:
        x, y = draws["xint"].unbind(1)
        G_inv = G_inv @ translation(-(x * W).round(), -(y * H).round())
    if "scale" in draws:
        G_inv = G_inv @ scaling(1 / draws["scale"], 1 / draws["scale"])
    if "rotate" in draws:
        G_inv = G_inv @ rotation(draws["rotate"])
    if "aniso" in draws:
        G_inv = G_inv @ scaling(1 / draws["aniso"], draws["aniso"])
    if "rotate_after" in draws:
        G_inv = G_inv @ rotation(draws["rotate_after"])
    if "xfrac" in draws:
        x, y = draws["xfrac"].unbind(1)
        G_inv = G_inv @ translation(-x * W, -y * H)
    return G_inv


def recolour(images: Tensor, draws: Draws) -> Tensor:
    """Brightness, contrast, luma flip, hue and saturation of (N, C, H, W) as one affine map of the channels."""
    N, C = images.shape[:2]
    like: dict[str, Any] = {"device": images.device, "dtype": images.dtype}
    eye = torch.eye(C, **like)
    luma = torch.full((C, C), 1 / C, **like)  # v vᵀ, with v the grey axis of length 1
    A, b = eye.expand(N, C, C), images.new_zeros(N, C, 1)

    def strength(name: str) -> Tensor:
        return draws[name][:, None, None]

    if "brightness" in draws:
        b = b + strength("brightness")
    if "contrast" in draws:
        A, b = A * strength("contrast"), b * strength("contrast")
    if "lumaflip" in draws:
        flip = eye - 2 * luma * strength("lumaflip")  # Householder: mirror at the plane across the grey axis
        A, b = flip @ A, flip @ b
    if "hue" in draws and C == 3:
        # Rodrigues' rotation about v: cos θ I + sin θ [v]× + (1 - cos θ) v vᵀ.
        cross = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], **like) / math.sqrt(3)
        cos, sin = strength("hue").cos(), strength("hue").sin()
        turn = cos * eye + sin * cross + (1 - cos) * luma
        A, b = turn @ A, turn @ b
    if "saturation" in draws:
        stretch = luma + (eye - luma) * strength("saturation")
        A, b = stretch @ A, stretch @ b
    return (A @ images.flatten(2) + b).reshape(images.shape)


def amplified(gains: Tensor) -> Tensor:
    """Filters (N, K) that amplify four octaves by (N, 4) gains, each gain at constant expected power."""
    power = gains.new_tensor(_EXPECTED_POWER)
    t = torch.where(torch.eye(_BANDS, device=gains.device, dtype=torch.bool), gains[:, :, None], 1.0)  # one band a row
    t = t / (power * t.square()).sum(2, keepdim=True).sqrt()
    g = t.prod(1)  # (N, 4)
    return g @ band_filters(_BANDS).to(gains)


def outside_cutout(size: Tensor, centre: Tensor, images: Tensor) -> Tensor:
    """(N, 1, H, W): 0 in a rectangle of `size` times the sides about `centre`, 1 elsewhere."""
    H, W = images.shape[2:]
    like: dict[str, Any] = {"device": images.device, "dtype": images.dtype}
    x = (torch.arange(W, **like) + 0.5) / W
    y = (torch.arange(H, **like) + 0.5) / H
    outside_x = (x - centre[:, :1]).abs() >= size[:, None] / 2  # (N, W)
    outside_y = (y - centre[:, 1:]).abs() >= size[:, None] / 2  # (N, H)
    return (outside_x[:, None, None, :] | outside_y[:, None, :, None]).to(images.dtype)
