"""Walks through a latent space, as moving pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganvas.errors import MissingCapability, UsageError
from ganvas.files import pictures, video
from ganvas.model import HasLatents, Model
from ganvas.nn.paths import lerp, slerp
from ganvas.runtime.devices import derive_seed
from ganvas.types import Latent, Noise, SpacedGenerator


def walk(
    model: Model,
    *,
    stations: int,
    frames: int,
    seed: int,
    label: int | str | None = None,
    space: str | None = None,
    noise: Noise | None = None,
    rows: int = 1,
    columns: int = 1,
) -> Iterator[np.ndarray]:
    """Frames (H, W, C) uint8 of a closed walk through `stations` latents, `frames` from each to the next.

    Great circles in a space with a normal prior, straight lines in any other. A frame shows rows x columns walks, each
    with latents of its own; their classes stay the same, and so does the noise of layers, so that nothing flickers.

    Parameters
    ----------
    noise : what layers add, see `SpacedGenerator.noised`; None: as the generator usually does.

    Raises
    ------
    MissingCapability : no such space, data that are no images, or noise of a generator that adds none.
    """
    model.require(HasLatents)
    if model.spec.modality.axes != ("channel", "height", "width"):
        raise MissingCapability(
            f"a walk is made of images, and this model makes {model.spec.modality.called()} data",
            hint="leave --walk out: ganvas sample RUN",
        )
    space = space or next(iter(model.latents))
    draw = images_with(model, noise, seed)
    many = rows * columns
    labels = model.labels(many, seed=seed, label=label)
    every = None if labels is None else labels.repeat(stations)
    ends = model.draw(stations * many, seed=seed, space=space, label=every).values
    ends = ends.view(stations, many, *ends.shape[1:])  # (stations, walks, *shape)
    between = slerp if model.latents[space].prior == "normal" else lerp
    for station in range(stations):
        start, stop = ends[station], ends[(station + 1) % stations]
        for frame in range(frames):
            share = torch.full((many,), frame / frames, device=start.device)
            with torch.inference_mode():
                images = draw(Latent(between(start, stop, share), space), labels)
            images = images.clamp(-1, 1).cpu()
            yield np.asarray(pictures.grid(images, columns).convert("RGB"))


def images_with(model: Model, noise: Noise | None, seed: int) -> Callable[[Latent, Tensor | None], Tensor]:
    """What makes images of latents, with the same noise in each call.

    Raises
    ------
    MissingCapability : noise is asked for, and the generator adds none.
    """
    if noise is None:
        return model.synthesize
    network = model.generator
    if not isinstance(network, SpacedGenerator) or not network.noisy:
        raise MissingCapability("this generator's layers add no noise", hint="leave --noise out")

    def draw(latent: Latent, label: Tensor | None) -> Tensor:
        again = torch.Generator(model.device).manual_seed(derive_seed(seed, "noise"))
        return network.noised(latent, label, noise=again if noise == "random" else noise).float()

    return draw


def save(frames: Iterator[np.ndarray], file: Path, *, fps: int) -> int:
    """Write frames to a `.gif`, or to an `.mp4` where av or ffmpeg is there; returns how many there were.

    Sides that are odd lose a row or column, since films of even sides are shown by more programs.

    Raises
    ------
    UsageError : see `check_place`.
    """
    check_place(file)
    return video.write(file, (frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames), fps)


def check_place(file: Path) -> None:
    """Refuse a place that a walk cannot be written to, before any frame is made.

    Raises
    ------
    UsageError : another ending than .gif and .mp4, or no such folder.
    MissingExtra : MP4, and there is neither av nor ffmpeg.
    """
    if file.suffix.lower() not in video.SUFFIXES:
        raise UsageError(f"{file} is no moving picture", where="--walk", hint="give FILE.gif or FILE.mp4")
    video.check_suffix(file)
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent}", where="--walk", hint="make it first")
