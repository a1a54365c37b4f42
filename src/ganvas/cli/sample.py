"""`ganvas sample`."""

from __future__ import annotations

import json

import click

from ganvas.cli.frame import cli, device_option, json_option, parts_option, say, tell


@cli.command()
@click.argument("run_path", metavar="RUN")
@click.option("--n", "count", type=click.IntRange(1), metavar="N", help="How many. [default: a full grid]")
@click.option("--seed", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="Where chance begins.")
@click.option("--label", type=int, metavar="N", help="A class by its number. [default: all of them in turn]")
@click.option(
    "--truncation", type=click.FloatRange(0, min_open=True), metavar="X", help="Keep latents within ± X: less variety."
)
@click.option("--sampler", metavar="NAME", help="Another sampler than the recipe's, or '{use: NAME, key: value}'.")
@click.option("--out", metavar="grid.png|FOLDER|FILE.npz", help="[default: RUN/samples/seed-SEED.png]")
@click.option("--batch", type=click.IntRange(1), metavar="N", default=64, show_default=True, help="Images at once.")
@device_option
@parts_option
@json_option
def sample(
    run_path: str, count: int | None, seed: int, label: int | None, truncation: float | None, sampler: str | None,
    out: str | None, batch: int, device: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Draw images from a trained model; no data set is needed.

    RUN is a run folder or a model.safetensors. The same seed gives the same images.

    \b
    ganvas sample runs/digits --n 64 --label 3 --out threes.png
    ganvas sample runs/digits --n 1000 --out fakes/
    """
    from ganvas import drawing, yaml12
    from ganvas.model import Model
    from ganvas.numerics import pick_device

    target = drawing.Target.of(out, run_path, seed)
    model = Model.load(run_path, device=pick_device(device))
    classes = model.num_classes
    n = count or 8 * (min(classes, 20) or 10)
    labels = [label] * n if label is not None else [i % classes for i in range(n)] if classes else None
    # A single label goes as it is: an error about it should not repeat it n times.
    wish = labels if label is None else label
    node = yaml12.read(sampler, "--sampler")[0] if sampler else None  # a name, or a part with its keys
    images = model.sample(n, seed=seed, label=wish, truncation=truncation, sampler=node, batch=batch)
    target.write(images, labels, columns=min(classes, 20) if classes and label is None else None)
    if as_json:
        tell(json.dumps({"out": str(target.path), "n": n, "seed": seed, "label": label}))
    else:
        say(f"{n} images in {target.path}")
