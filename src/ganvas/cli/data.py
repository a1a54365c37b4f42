"""`ganvas data`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from ganvas.cli.frame import cli, json_option, parts_option, say, tell

SHOWN = 64  # of the data, on the sheet


@cli.command("data")
@click.argument("place", metavar="PATH|DATA")
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", metavar="FILE.png", help="Write a sheet of what a network will see.")
@parts_option
@json_option
def data(place: str, changes: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Say what lies at a path, and show what a network will see.

    How many data are found, used and left out and why, their sizes, modes and classes.

    PATH is a folder, a zip, an .npy or .npz file, or a data set's name (ganvas list data). KEY=VALUE are the keys of
    the data set, as a recipe has them below `data`.

    \b
    ganvas data photos/ --out seen.png
    ganvas data photos/ data.size=64 data.corrupt=skip
    """
    import warnings

    from ganvas import parts
    from ganvas.evaluation.data_at import data_at

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        node, dataset = data_at(place, changes)
    notes = list(dict.fromkeys(str(warning.message) for warning in caught))
    from ganvas.types import Census, Dataset

    census = dataset.census or Census(len(dataset), len(dataset), word="datum")
    if out is not None:
        import numpy as np

        from ganvas.files import pictures

        if isinstance(dataset, Dataset):
            chosen = np.unique(np.linspace(0, len(dataset) - 1, min(SHOWN, len(dataset))).astype(np.int64))
            seen = dataset.batch(chosen, np.random.default_rng(0)).data
        else:
            seen = next(iter(dataset.walk(min(SHOWN, len(dataset))))).data
        pictures.save(dataset.spec.modality.show(seen), Path(out))
    shape = "x".join(map(str, dataset.spec.shape))
    if as_json:
        facts = {"data": node, "shape": dataset.spec.shape, **dataclasses.asdict(census), "notes": notes, "out": out}
        tell(json.dumps(parts.values.plain(facts)))
        return
    tell(f"{place}: {census.line()}")
    tell(f"a network sees {dataset.spec.modality.called()} data {shape} ({', '.join(dataset.spec.modality.axes)})")
    for note in notes:
        say(f"note: {note}")
    if out is not None:
        say(f"sheet    {out}")
