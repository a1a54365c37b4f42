"""`ganvas search`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click

from ganvas.cli.frame import cli, json_option, parts_option, say, tell
from ganvas.errors import UsageError


@cli.command("search")
@click.argument("recipe")
@click.argument("space_name", metavar="SPACE")
@click.option("--on", default="local", show_default=True, metavar="PLACE", help="Where to train: local, ray or slurm.")
@click.option("--with", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the place; may be repeated.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Trainings at a time.")
@click.option("--out", metavar="DIR", help="Where trials and results go. [default: runs/SPACE]")
@click.option("--storage", metavar="URL|FILE", help="Where sessions meet. [default: search.db in --out]")
@parts_option
@json_option
def search_(
    recipe: str, space_name: str, on: str, settings: tuple[str, ...], jobs: int, out: str | None, storage: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Search a recipe's keys for what scores best.

    Several objectives give a Pareto front. SPACE is a shipped name or a .yaml file. Stopped and run again, the search
    goes on; run twice at a time with one --storage, on one machine or several, it is shared. Needs the extra `search`.

    \b
    ganvas search digits digits --jobs 2
    ganvas search my.yaml space.yaml --storage postgresql://user@host/name
    """
    from ganvas.experiments import places
    from ganvas.experiments.search import pareto, session, space
    from ganvas.training.folder import RUNS

    plan = space.load(recipe, space_name)
    session.check_installed()
    folder = Path(out) if out else RUNS / plan.plan.name
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", where="--out", hint="give a folder")
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(asked) if asked.isdigit() else None
    call = places.Call(folder, jobs, threads, places.RETRIES)
    with contextlib.closing(places.place_named(on, settings, call)) as place:
        if storage is None:
            folder.mkdir(parents=True, exist_ok=True)
        store = session.open_store(plan, storage or str(folder / "search.db"))
        try:
            trials = session.execute(
                plan, store, folder, place, tell=lambda done, total, text: say(f"{done} of {total}  {text}")
            )
        except places.Interrupted as stop:
            say(f"Stopped with {stop.done} of {stop.total} done; what ran is saved. The same command goes on.")
            raise
    importances = store.importances()
    files = pareto.write(plan, trials, importances, folder)
    if as_json:
        tell(files.data.read_text(encoding="utf-8"))
        return
    say(pareto.tally(plan, trials))
    tell(pareto.markdown(plan, trials))
    for file in files.recipes:
        say(f"recipe   {file}")
    say(f"page     {files.page}")
