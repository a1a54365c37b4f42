"""`ganvas export`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ganvas.cli.frame import cli, json_option, parts_option, say, tell
from ganvas.errors import UsageError


@cli.command()
@click.argument("run_path", metavar="RUN")
@click.option("--onnx", "as_onnx", is_flag=True, help="The generator as an ONNX file.")
@click.option("--to", "family", metavar="NAME", help="A state dict in the keys of biggan or stylegan2-ada.")
@click.option("--net", "role", metavar="ROLE", default="generator", show_default=True, help="Which one, with biggan.")
@click.option("--out", metavar="FILE", help="[default: RUN/model.onnx or RUN/NAME.pt]")
@parts_option
@json_option
def export(run_path: str, as_onnx: bool, family: str | None, role: str, out: str | None, as_json: bool) -> None:
    """Write a model for other software.

    RUN is a run folder or a model.safetensors.

    \b
    ganvas export runs/digits --onnx
    ganvas export runs/imagenet --to biggan --out G_ema.pth
    """
    from ganvas.interop.official import export_official
    from ganvas.interop.onnx_file import export_onnx
    from ganvas.model import Model

    if as_onnx == (family is not None):
        raise UsageError("what to write is not clear", where="ganvas export", hint="give --onnx, or --to NAME")
    run = Path(run_path)
    usual = "model.onnx" if as_onnx else f"{family}.pt"
    target = Path(out) if out else (run if run.is_dir() else run.parent) / usual
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}", where="--out", hint=f"mkdir -p {target.parent}")
    model = Model.load(run)
    facts = export_onnx(model, target) if family is None else export_official(model, family, target, role=role)
    if as_json:
        tell(json.dumps(facts))
        return
    for name, network in facts.get("networks", {}).items():
        say(f"{name}: {network['class']}({', '.join(f'{key}={value!r}' for key, value in network['kwargs'].items())})")
    if "deviation" in facts:
        say(f"its images are those of the model, to {facts['deviation']:.0e} of their spread")
    tell(str(target))
