"""`ganvas edit`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ganvas.cli.frame import cli, device_option, json_option, parts_option, say, tell
from ganvas.errors import MissingCapability, UsageError


@cli.command()
@click.argument("run_path", metavar="RUN")
@click.argument("edit_name", metavar="EDIT")
@click.option("--strength", "strengths", default="-3,-1.5,0,1.5,3", show_default=True, metavar="X,X,…", help="Columns.")
@click.option("--n", "count", type=click.IntRange(1), metavar="N", default=4, show_default=True, help="Rows.")
@click.option("--seed", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="Where chance begins.")
@click.option("--label", metavar="CLASS", help="A class by its name or number. [default: drawn]")
@click.option("--out", metavar="sheet.png", help="[default: RUN/samples/EDIT-SEED.png]")
@device_option
@parts_option
@json_option
def edit(
    run_path: str, edit_name: str, strengths: str, count: int, seed: int, label: str | None, out: str | None,
    device: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Move latents along an edit, at one strength or several.

    EDIT is a part of the shelf edits, or '{use: NAME, key: value}'.

    \b
    ganvas edit runs/faces ganspace --strength -2,0,2
    ganvas edit runs/faces '{use: ganspace, component: 3}' --n 8
    """
    import torch

    from ganvas import parts
    from ganvas.files import pictures
    from ganvas.model import Model
    from ganvas.recipe import yaml12
    from ganvas.recipe.check import check_node
    from ganvas.runtime.devices import pick_device
    from ganvas.types import Condition, Edit

    try:
        steps = [float(text) for text in strengths.split(",")]
    except ValueError:
        raise UsageError(f"{strengths!r} are no numbers", where="--strength", hint="such as -2,0,2") from None
    node = check_node("edit", yaml12.read(edit_name, "EDIT")[0])
    model = Model.load(run_path, device=pick_device(device))
    if not model.latents:
        raise MissingCapability("an edit moves latents, and this model has none", hint="ganvas list networks")
    move: Edit = parts.build("edit", node)
    state = move.fit(model)
    labels = model.labels(count, seed=seed, label=label)
    latent = model.draw(count, seed=seed, space=move.space or next(iter(model.latents)), label=labels)
    with torch.no_grad():
        columns = [model.synthesize(move(model, latent, state, step), Condition.labelled(labels)) for step in steps]
    data = torch.stack(columns, 1).flatten(0, 1).cpu()  # (N * strengths, ...), a row for each latent
    folder = Path(run_path) if Path(run_path).is_dir() else Path(run_path).parent
    file = Path(out) if out else folder / "samples" / f"{node['use']}-{seed}.png"
    if not file.parent.is_dir() and out:
        raise UsageError(f"there is no folder {file.parent}", where="--out", hint="make it first")
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures.save(model.spec.modality.show(model.spec.modality.limited(data), len(steps)), file)
    if as_json:
        tell(json.dumps({"out": str(file), "edit": node, "strengths": steps, "n": count, "seed": seed}))
    else:
        say(f"{count} samples at strengths {', '.join(f'{step:g}' for step in steps)} in {file}")
