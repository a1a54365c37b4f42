"""`ganvas eval`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ganvas.cli.frame import cli, device_option, json_option, parts_option, say, score_table, tell
from ganvas.errors import UsageError


@cli.command("eval")
@click.argument("targets", nargs=-1, required=True, metavar="RUN...|IMAGES")
@click.option(
    "--against", metavar="IMAGES|DATA|STATS", help="What to compare with. [default: the protocol's reference]"
)
@click.option("--protocol", metavar="NAME|FILE", help="[default: the run's own, else that of its modality]")
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME", help="These instead of the protocol's; may be repeated."
)
@click.option("--extractor", metavar="NAME", help="Another than the protocol's, or '{use: NAME, key: value}'.")
@click.option("--samples", type=click.IntRange(2), metavar="N", help="How many images a model is asked for.")
@click.option(
    "--size", type=click.IntRange(1), metavar="N", help="Resize and crop images of a folder to this many pixels."
)
@click.option("--best-of", "best", is_flag=True, help="The checkpoint that scored best in training; rows say so.")
@click.option("--save-stats", metavar="FILE.npz", help="Write the statistics of these images, and score nothing.")
@device_option
@parts_option
@json_option
def evaluate(
    targets: tuple[str, ...], against: str | None, protocol: str | None, metrics: tuple[str, ...],
    extractor: str | None, samples: int | None, size: int | None, best: bool, save_stats: str | None,
    device: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Score a trained model, or any folder, zip or array of images.

    Several runs of one recipe with other training seeds make one table, with intervals over these seeds.

    \b
    ganvas eval runs/digits
    ganvas eval fakes/ --against reals/
    ganvas eval reals/ --save-stats reals.npz      then: ganvas eval fakes/ --against reals.npz
    """
    from ganvas.cli.progress import images_bar
    from ganvas.evaluation import evaluate as scoring

    if save_stats is not None:
        if len(targets) != 1 or against or metrics or best:
            raise UsageError("statistics are of one set, and score nothing", where="--save-stats")
        with images_bar() as watch:
            facts = scoring.save_statistics(
                targets[0], Path(save_stats), protocol=protocol, extractor=extractor, samples=samples, size=size,
                device=device, watch=watch,
            )  # fmt: skip
        tell(json.dumps({"out": save_stats, **facts}) if as_json else f"{facts['count']} images in {save_stats}")
        return
    with images_bar() as watch:
        rows = scoring.evaluate(
            *targets, against=against, protocol=protocol, metrics=metrics, extractor=extractor, samples=samples,
            size=size, best=best, device=device, watch=watch,
        )  # fmt: skip
    tell(json.dumps(rows, indent=2) if as_json else score_table(rows))
    for alarm in dict.fromkeys(row["alarm"] for row in rows if row["alarm"]):
        say(f"alarm: {alarm}")
    for note in sorted({note for row in rows for note in row["notes"]}):
        say(f"note: {note}")
