"""`ganvas profile`."""

from __future__ import annotations

from pathlib import Path

import click

from ganvas.cli.frame import cli, json_option, parts_option, say, tell


@cli.command("profile")
@click.argument("names", nargs=-1, required=True, metavar="RUN|RECIPE|EXTRACTOR...")
@click.option("--net", "role", default="generator", show_default=True, metavar="ROLE", help="Which network of each.")
@click.option("--variants", is_flag=True, help="Beside each: fewer bits, weights, heads, ranks, and what that costs.")
@click.option("--data", metavar="DATA", help="Labelled images that extractors with classes are tried on.")
@click.option("--size", type=click.IntRange(1), metavar="PIXELS", help="Images in files are scaled and cropped to it.")
@click.option("--by", metavar="COLUMN,...", help="Columns of the Pareto front. [default: bytes,macs,p50 and a score]")
@click.option("--out", metavar="DIR", help="Write profile.html and profile.json there, too.")
@parts_option
@json_option
def profile(
    names: tuple[str, ...], role: str, variants: bool, data: str | None, size: int | None, by: str | None,
    out: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Compare what networks cost and are worth.

    Size, MACs, memory, latency and throughput on the CPU, side by side. A run brings its scores; a recipe stands for
    its untrained network; an extractor with classes has its accuracy on --data, under corruptions and in its worst
    class. Rows that no other one beats in all columns of --by are marked.

    \b
    ganvas profile runs/a runs/b
    ganvas profile runs/a --variants
    ganvas profile digit-net --data "{use: digits, split: test}"
    """
    import json

    from ganvas.experiments import cards as report_card

    cards = []
    for name in names:
        cards += report_card.cards_of(name, role=role, variants=variants, data=data, size=size)
    columns = by.split(",") if by else report_card.usual_columns(cards)
    cards = report_card.marked(cards, columns)
    tell(json.dumps(report_card.as_data(cards, columns), indent=1) if as_json else report_card.text(cards, columns))
    if out:
        say(f"page     {report_card.write(cards, columns, Path(out))['html']}")
