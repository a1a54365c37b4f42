"""`ganvas bench`."""

from __future__ import annotations

from pathlib import Path

import click

from ganvas.cli.frame import cli, json_option, parts_option, say, tell
from ganvas.errors import UsageError


@cli.command("bench")
@click.argument("names", nargs=-1, required=True, metavar="STUDY|RUN...")
@click.option("--on", default="local", show_default=True, metavar="PLACE", help="Where to train: local, ray or slurm.")
@click.option("--with", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the place; repeatable.")
@click.option(
    "--jobs", type=click.IntRange(1), metavar="N",
    help="Trainings at a time. [default: 1 on this machine, elsewhere as many as the cluster takes]",
)  # fmt: skip
@click.option(
    "--retries", type=click.IntRange(0), default=2, show_default=True, metavar="N",
    help="How often a training goes on from its last checkpoint when its worker is lost.",
)  # fmt: skip
@click.option("--out", metavar="DIR", help="Where tables go. [default for a study: runs/STUDY]")
@parts_option
@json_option
def bench_(
    names: tuple[str, ...], on: str, settings: tuple[str, ...], jobs: int | None, retries: int, out: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Train a grid of recipes by seeds or take runs, into one table.

    STUDY is a shipped name or a .yaml file. Running it again trains only what is missing or has changed. Scores that
    were made in different ways are refused.

    \b
    ganvas bench losses-on-digits --jobs 2
    ganvas bench losses-on-digits --on slurm --with partition=gpu --with gpus_per_node=1
    ganvas bench runs/a runs/b
    """
    import json
    import os

    from ganvas.evaluation.evaluate import is_model
    from ganvas.experiments import places, study, tables
    from ganvas.training.folder import RUNS

    if is_model(names[0]):
        lines, columns = tables.of_runs([Path(name) for name in names])
        text = tables.markdown(("run",), lines, columns)
        data = {"cells": tables.as_data(("run",), lines, columns)}
        tell(json.dumps(data, indent=1) if as_json else text)
        if out:
            page = tables.html("Scores", "", ("run",), lines, columns)
            say(f"table    {tables.write(Path(out), text, data, page)['html']}")
        return
    if len(names) > 1:
        raise UsageError(f"{names[1]!r} is one too many", where="ganvas bench", hint="one study, or several runs")
    plan = study.load(names[0])
    folder = Path(out) if out else RUNS / plan.name
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(asked) if asked.isdigit() else None
    place = places.place_named(on, settings, places.Call(folder, jobs, threads, retries))
    try:
        failed = study.execute(
            plan, folder, jobs=1, threads=1, place=place, retries=retries,
            tell=lambda done, total, text: say(f"{done} of {total}  {text}"),
        )  # fmt: skip
    except places.Interrupted as stop:
        say(f"Stopped with {stop.done} of {stop.total} done; what ran is saved. The same command goes on.")
        raise
    table_lines = study.lines(plan, folder, failed)
    files = study.write(plan, folder, table_lines)
    tell(files["json"].read_text(encoding="utf-8") if as_json else study.table(plan, table_lines))
    say(f"table    {files['html']}")
