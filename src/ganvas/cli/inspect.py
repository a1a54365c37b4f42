"""`ganvas inspect`."""

from __future__ import annotations

import json

import click

from ganvas.cli.frame import cli, device_option, json_option, parts_option, say, tell


@cli.command("inspect")
@click.argument("run_path", metavar="RUN")
@click.option("--protocol", metavar="NAME|FILE", help="[default: the run's own, else that of its modality]")
@click.option("--with", "analyses", multiple=True, metavar="NAME", help="Only this look; may be repeated.")
@device_option
@parts_option
@json_option
def inspect(
    run_path: str, protocol: str | None, analyses: tuple[str, ...], device: str | None, as_json: bool
) -> None:  # fmt: skip
    """Look closely at a run: one report.html to send to a colleague.

    Nearest training images, spectrum, classes, interpolation, t-SNE, best and worst samples, the critic's scores;
    ganvas list analysis says what there is.
    """
    from ganvas.cli.progress import images_bar
    from ganvas.report import inspect as inspection

    with images_bar() as watch:
        file, left_out = inspection.inspect(
            run_path, protocol=protocol, analyses=analyses, device=device, watch=watch
        )  # fmt: skip
    for note in left_out:
        say(f"note: {note}")
    tell(json.dumps({"report": str(file), "notes": left_out}) if as_json else str(file))
