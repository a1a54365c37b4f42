"""`ganvas scale`."""

from __future__ import annotations

from pathlib import Path

import click

from ganvas.cli.frame import cli, json_option, parts_option, say, tell
from ganvas.errors import UsageError


@cli.command("scale")
@click.argument("names", nargs=-1, required=True, metavar="STUDY|RUN...")
@click.option("--metric", metavar="NAME", help="A score, or a column of log.jsonl. [default: the first score]")
@click.option("--next", "ahead", multiple=True, metavar="FLOPS|RECIPE", help="Compute to predict; may be repeated.")
@click.option("--every-run", is_flag=True, help="Fit all runs, not only those that none beats at as much compute.")
@click.option("--out", metavar="DIR", help="Where the page goes. [default for a study: runs/STUDY]")
@parts_option
@json_option
def scale(
    names: tuple[str, ...], metric: str | None, ahead: tuple[str, ...], every_run: bool, out: str | None, as_json: bool
) -> None:
    """Fit a scaling law to runs or a study's cells.

    E(C) = a (C + d)^(-b) + c, where C is the FLOPs of a training and E what it came to. Intervals are by bootstrap; the
    law of the other runs is tried on the largest. Of a score that higher is better, E is what it lacks to its best.

    \b
    ganvas bench scaling-digits
    ganvas scale scaling-digits --next 1e13
    ganvas scale runs/small runs/middle runs/large ... --metric generator.pixels-l2
    """
    import json

    from ganvas.evaluation.evaluate import is_model
    from ganvas.experiments import scaling, study
    from ganvas.recipe.recipe import Recipe
    from ganvas.training.folder import RUNS

    def compute(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            recipe = Recipe.load(text)
            return scaling.Counter()(recipe, recipe.resolve()["train"]["steps"])

    flops = [compute(words) for words in ahead]
    if any(not 0 < value < float("inf") for value in flops):
        raise UsageError(f"{' '.join(ahead)!r} is no compute", where="--next", hint="give FLOPs, such as 1e15")
    if is_model(names[0]):
        title, folder = "Scaling law", Path(out) if out else None
        points, label = scaling.points_of_runs([Path(name) for name in names], metric, say)
    else:
        if len(names) > 1:
            raise UsageError(f"{names[1]!r} is one too many", where="ganvas scale", hint="one study, or several runs")
        plan = study.load(names[0])
        title, folder = plan.name, Path(out) if out else RUNS / plan.name
        points, label = scaling.points_of_study(plan, folder, metric, say)
    result = scaling.report(points, label, ahead=flops, every_run=every_run)
    tell(json.dumps(scaling.as_data(result), indent=1) if as_json else scaling.text(result))
    if folder is not None:
        say(f"page     {scaling.write(result, title, folder)['html']}")
