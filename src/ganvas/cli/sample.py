"""`ganvas sample`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ganvas.cli.frame import cli, device_option, json_option, parts_option, say, tell
from ganvas.errors import UsageError

if TYPE_CHECKING:
    from ganvas.types import Noise


@cli.command()
@click.argument("run_path", metavar="RUN")
@click.option("--n", "count", type=click.IntRange(1), metavar="N", help="How many. [default: a full grid]")
@click.option("--seed", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="Where chance begins.")
@click.option("--label", type=int, metavar="N", help="A class by its number. [default: all of them in turn]")
@click.option("--truncation", type=click.FloatRange(0), metavar="X", help="Keep latents within ± X: less variety.")
@click.option("--space", metavar="w", help="Truncate there instead of in the space that is drawn from.")
@click.option("--mix", metavar="FIRST-LAST", help="These layers follow the next image's latent (style mixing).")
@click.option("--noise", type=click.Choice(["random", "const", "none"]), help="What layers add, in style generators.")
@click.option("--walk", metavar="FILE.gif|FILE.mp4", help="A moving picture of a walk from latent to latent.")
@click.option("--sampler", metavar="NAME", help="Another sampler than the recipe's, or '{use: NAME, key: value}'.")
@click.option("--out", metavar="grid.png|FOLDER|FILE.npz", help="[default: RUN/samples/seed-SEED.png]")
@click.option("--batch", type=click.IntRange(1), metavar="N", default=64, show_default=True, help="Images at once.")
@device_option
@parts_option
@json_option
def sample(
    run_path: str, count: int | None, seed: int, label: int | None, truncation: float | None, space: str | None,
    mix: str | None, noise: Noise | None, walk: str | None, sampler: str | None, out: str | None, batch: int,
    device: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Draw images from a trained model; no data set is needed.

    RUN is a run folder or a model.safetensors. The same seed gives the same images.

    \b
    ganvas sample runs/digits --n 64 --label 3 --out threes.png
    ganvas sample runs/digits --n 1000 --out fakes/
    ganvas sample runs/faces --space w --truncation 0.7 --mix 4-8
    ganvas sample runs/faces --walk faces.mp4 --noise none
    """
    from ganvas.cli import output
    from ganvas.model import Model
    from ganvas.recipe import yaml12
    from ganvas.runtime.devices import pick_device

    if walk is not None:
        go_for_a_walk(run_path, walk, count, seed, label, space, noise, device, as_json)
        return
    target = output.Target.of(out, run_path, seed)
    style = style_node(space, mix, noise, truncation, sampler)
    model = Model.load(run_path, device=pick_device(device))
    classes = model.num_classes
    n = count or 8 * (min(classes, 20) or 10)
    labels = [label] * n if label is not None else [i % classes for i in range(n)] if classes else None
    # A single label goes as it is: an error about it should not repeat it n times.
    wish = labels if label is None else label
    node = style or (yaml12.read(sampler, "--sampler")[0] if sampler else None)  # a name, or a part with its keys
    images = model.sample(
        n, seed=seed, label=wish, truncation=None if style else truncation, sampler=node, batch=batch
    )  # fmt: skip
    target.write(images, labels, columns=min(classes, 20) if classes and label is None else None)
    if as_json:
        tell(json.dumps({"out": str(target.path), "n": n, "seed": seed, "label": label}))
    else:
        say(f"{n} images in {target.path}")


def style_node(
    space: str | None, mix: str | None, noise: Noise | None, truncation: float | None, sampler: str | None
) -> dict[str, Any] | None:
    """The sampler `style` as these options mean it; None where none of them asks for it."""
    if space is None and mix is None and noise is None:
        return None
    if sampler is not None:
        raise UsageError(
            "--sampler is given, too", where="--space, --mix, --noise", hint="give the sampler its keys instead"
        )
    if space not in (None, "w"):
        raise UsageError(f"nothing can be truncated in {space!r}", where="--space", hint="--space w")
    node: dict[str, Any] = {"use": "style", "psi": 1.0 if truncation is None else truncation, "noise": noise}
    if mix is not None:
        first, dash, last = mix.partition("-")
        if not (first.isdigit() and (last.isdigit() or not dash)):
            raise UsageError(f"{mix!r} is no range of layers", where="--mix", hint="such as 4-8, counted from 0")
        node["mix"] = [int(first), int(last or first)]
    return node


def go_for_a_walk(
    run_path: str, file: str, count: int | None, seed: int, label: int | None, space: str | None, noise: Noise | None,
    device: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write a closed walk: as many latents as `--n` says, 30 frames from each to the next, at 30 frames a second."""
    from pathlib import Path

    from ganvas.model import Model
    from ganvas.model import walk as walking
    from ganvas.runtime.devices import pick_device

    walking.check_place(Path(file))
    model = Model.load(run_path, device=pick_device(device))
    frames = walking.walk(
        model, stations=count or 6, frames=30, seed=seed, label=label, space=space, noise=noise, rows=2, columns=4
    )  # fmt: skip
    made = walking.save(frames, Path(file), fps=30)
    tell(json.dumps({"out": file, "frames": made})) if as_json else say(f"{made} frames in {file}")
