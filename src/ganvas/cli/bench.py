"""`ganvas bench`."""

from __future__ import annotations

from pathlib import Path

import click

from ganvas.cli.frame import cli, json_option, parts_option, say, tell
from ganvas.errors import UsageError


@cli.command("bench")
@click.argument("names", nargs=-1, required=True, metavar="STUDY|RUN...")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Trainings at a time.")
@click.option("--out", metavar="DIR", help="Where tables go. [default for a study: runs/STUDY]")
@parts_option
@json_option
def bench_(names: tuple[str, ...], jobs: int, out: str | None, as_json: bool) -> None:
    """Train a grid of recipes by seeds or take runs, into one table.

    STUDY is a shipped name or a .yaml file. Running it again trains only what is missing or has changed. Scores that
    were made in different ways are refused.

    \b
    ganvas bench losses-on-digits --jobs 2
    ganvas bench runs/a runs/b
    """
    import json
    import os

    from ganvas import study, tables
    from ganvas.run import RUNS
    from ganvas.scoring import is_model

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
    threads = int(asked) if asked.isdigit() else max(1, (os.cpu_count() or 1) // jobs)
    failed = study.execute(
        plan, folder, jobs=jobs, threads=threads, tell=lambda done, total, text: say(f"{done} of {total}  {text}")
    )
    found = study.lines(plan, folder, failed)
    files = study.write(plan, folder, found)
    tell(files["json"].read_text(encoding="utf-8") if as_json else study.table(plan, found))
    say(f"table    {files['html']}")
