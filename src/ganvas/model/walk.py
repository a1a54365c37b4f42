"""Walks through a latent space, as moving pictures."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ganvas.errors import DataError, MissingCapability, UsageError
from ganvas.files import pictures
from ganvas.files.files import write_bytes
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
        raise MissingCapability("a walk is made of images", hint="ganvas sample draws points")
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
    """Write a `.gif`, or an `.mp4` where ffmpeg is there, whole or not at all; returns how many frames it has.

    Raises
    ------
    UsageError : another ending, or no ffmpeg.
    """
    kind = file.suffix.lower()
    if kind == ".gif":
        shown = [Image.fromarray(frame) for frame in frames]
        buffer = io.BytesIO()
        shown[0].save(buffer, "GIF", save_all=True, append_images=shown[1:], duration=round(1000 / fps), loop=0)
        write_bytes(file, buffer.getvalue())
        return len(shown)
    check_place(file)
    first = next(frames)
    height, width = (side - side % 2 for side in first.shape[:2])  # yuv420p halves both sides
    temporary = file.with_name(f".{file.stem}.tmp.mp4")
    line = [
        "ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
        "-r", str(fps), "-i", "-", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(temporary),
    ]  # fmt: skip
    count = 0
    try:
        with subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as encoder:
            assert encoder.stdin is not None and encoder.stderr is not None
            frame: np.ndarray | None = first
            try:
                while frame is not None:
                    encoder.stdin.write(np.ascontiguousarray(frame[:height, :width]).data)
                    count += 1
                    frame = next(frames, None)
                encoder.stdin.close()
            except BrokenPipeError:
                pass  # what it says is read below
            said = encoder.stderr.read().decode(errors="replace").strip()
        if encoder.returncode:
            raise DataError(f"ffmpeg could not write it: {said.splitlines()[-1] if said else ''}", where=str(file))
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def check_place(file: Path) -> None:
    """Refuse a place that a walk cannot be written to, before any frame is made.

    Raises
    ------
    UsageError : another ending than .gif and .mp4, no ffmpeg for the latter, or no such folder.
    """
    kind = file.suffix.lower()
    if kind not in (".gif", ".mp4"):
        raise UsageError(f"{file} is no moving picture", where="--walk", hint="give FILE.gif or FILE.mp4")
    if kind == ".mp4" and shutil.which("ffmpeg") is None:
        raise UsageError("ffmpeg is not installed", where="--walk", hint="install ffmpeg, or give FILE.gif")
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent}", where="--walk", hint="make it first")
