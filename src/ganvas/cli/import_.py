"""`ganvas import`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ganvas.cli.frame import cli, json_option, say, tell
from ganvas.errors import UsageError


@cli.command("import")
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--from", "family", required=True, metavar="NAME", help="The code base that wrote it, as below.")
@click.option("--out", metavar="FILE.safetensors", help="[default: beside it, CHECKPOINT.safetensors]")
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE",
    help="An argument of the official network that the file does not tell; may be repeated.",
)  # fmt: skip
@json_option
def import_(checkpoint: str, family: str, out: str | None, options: tuple[str, ...], as_json: bool) -> None:
    """Turn a published checkpoint into a model of Ganvas.

    NAME is stylegan2-ada, stylegan3, stylegan-xl, biggan, studiogan, styleswin, r3gan, fastgan, vitgan, ladagan or
    transgan. Nothing in the file is run, whatever it holds.

    \b
    ganvas import ffhq.pkl --from stylegan2-ada
    ganvas import G_ema.pth --from biggan --out models/biggan.safetensors
    """
    from ganvas.interop.checkpoints import import_checkpoint

    file = Path(checkpoint)
    target = Path(out) if out else file.with_suffix(".safetensors")
    if target.suffix != ".safetensors":
        raise UsageError(f"{target} is no .safetensors", where="--out", hint="give a name that ends in .safetensors")
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}", where="--out", hint=f"mkdir -p {target.parent}")
    model = import_checkpoint(file, family, _read(options))
    model.save(target)
    for note in model.notes:
        say(f"note: {note}")
    if as_json:
        networks = {
            role: {
                "use": network.node["use"], "parameters": model.parameters[role], "repo": model.official[role].repo,
                "class": model.official[role].cls, "entry": model.entries[role],
            }
            for role, network in model.imported.items()
        }  # fmt: skip
        spec = {"shape": list(model.spec.shape), "num_classes": model.spec.num_classes}
        tell(json.dumps({"out": str(target), "networks": networks, **spec, "notes": list(model.notes)}))
        return
    for role, network in model.imported.items():
        say(f"{role}: {network.node['use']}, {model.parameters[role]:,} parameters")
    tell(str(target))


def _read(options: tuple[str, ...]) -> dict[str, object]:
    """KEY=VALUE, the value in YAML."""
    from ganvas.recipe import yaml12

    given: dict[str, object] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{text!r} is no KEY=VALUE", where="--option", hint="such as --option BN_eps=0.0001")
        given[key] = yaml12.read(value, f"--option {key}")[0]
    return given
