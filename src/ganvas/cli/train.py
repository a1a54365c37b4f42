"""`ganvas train`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ganvas.cli.frame import cli, device_option, json_option, parts_option, say, score_table, tell
from ganvas.errors import ResumeMismatch, UsageError

_BEGUN = ("recipe.yaml", "resolved.yaml", "checkpoints", "samples")  # one of them is there once a run has begun


@cli.command()
@click.argument("words", nargs=-1, metavar="[RECIPE] [KEY=VALUE]...")
@click.option("--out", metavar="DIR", help="The run folder. [default: a new runs/RECIPE]")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint of the run folder.")
@click.option("--allow-changes", is_flag=True, help="Resume although the recipe or the data have changed.")
@click.option("--dry-run", is_flag=True, help="Tell parameters, FLOPs, memory and time instead; write nothing.")
@click.option("--profile", is_flag=True, help="Write where a step goes into profile/ of the run folder.")
@device_option
@parts_option
@json_option
def train(
    words: tuple[str, ...], out: str | None, resume: bool, allow_changes: bool, dry_run: bool, profile: bool,
    device: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Train a recipe into a run folder.

    RECIPE is a shipped name (ganvas list recipes), a .yaml file or a run folder; without one it is `digits`. KEY=VALUE
    changes it: a value is YAML, a part's name replaces the part, ~ drops the key.

    \b
    ganvas train digits train.steps=500 optim.lr=2e-4
    ganvas train digits task.objective=wasserstein task.regularizers.gradient-penalty.weight=10
    ganvas train --resume --out runs/digits
    torchrun --nproc-per-node 4 --no-python ganvas train sngan-cifar10 --out runs/together
    ganvas train sngan-cifar10 --dry-run
    """
    names = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    if len(names) > 1:
        raise UsageError(
            f"{names[1]!r} is neither the recipe nor key=value", where="ganvas train", hint="one recipe, then key=value"
        )
    source = names[0] if names else None
    if source is None and resume and out:
        if not (Path(out) / "recipe.yaml").is_file():  # or a typing error would train the default recipe
            raise ResumeMismatch(f"there is no run at {out}", where="--resume", hint="give the run's folder as --out")
        source = out
    from ganvas.recipe.recipe import Recipe
    from ganvas.recipe.remarks import remarks

    recipe = Recipe.load(source, overrides)
    recipe.resolve()  # every mistake in it is told before torch has to be loaded for long work
    for sentence in remarks(Recipe.load(source), recipe) if overrides else ():
        say(f"note: {sentence}")
    if dry_run:
        if resume or profile:
            raise UsageError(
                "--dry-run trains nothing that could be resumed or profiled", where="ganvas train", hint="leave it out"
            )
        from ganvas.training import forecast

        predicted = forecast.forecast(recipe, device=device, say=say)
        tell(json.dumps(predicted.plain()) if as_json else forecast.table(predicted))
        return
    from ganvas.cli.progress import Progress
    from ganvas.engine.distributed import agreed, joined
    from ganvas.engine.trainer import Interrupted
    from ganvas.runtime import ranks
    from ganvas.training import train as running
    from ganvas.training.folder import run_folder

    with joined(device) as own_device:
        folder = agreed(lambda: run_folder(recipe.name, out, resume=resume))
        lead = ranks.rank() == 0
        if resume and not any((folder / name).exists() for name in _BEGUN):
            raise ResumeMismatch(
                f"there is no run at {folder}", where="--resume",
                hint="leave --resume out to begin one, or give the run's folder as --out",
            )  # fmt: skip
        try:
            model = running.train(
                recipe, out=folder, resume=resume, allow_changes=allow_changes, device=own_device,
                watcher=Progress() if lead else None, profile=profile,
            )  # fmt: skip
        except Interrupted as stop:
            if lead:
                say(f"Stopped and saved at step {stop.step}. Go on with: ganvas train --resume --out {folder}")
            raise
        except KeyboardInterrupt:
            if lead:
                say(what_is_saved(folder))
            raise
    if not lead:
        return
    pictures = sorted((folder / "samples").glob("*.png"))
    facts = {
        "run": str(folder), "step": model.step, "model": str(folder / "model.safetensors"),
        "samples": str(pictures[-1]) if pictures else None, "report": str(folder / "report.html"),
        "scores": str(folder / "scores.jsonl") if (folder / "scores.jsonl").is_file() else None,
    }  # fmt: skip
    if as_json:
        tell(json.dumps(facts))
        return
    from ganvas.files.files import read_rows

    rows = [row for row in read_rows(folder / "scores.jsonl") if row.get("step") == model.step]
    if rows:
        say(score_table(rows))
    for name in ("samples", "report", "scores", "model"):
        if facts[name]:
            say(f"{name:8} {facts[name]}")


def what_is_saved(folder: Path) -> str:
    """What a run that was stopped at once has left, and how to go on, in a sentence."""
    from ganvas.engine.checkpoint import Checkpoints

    steps = Checkpoints(folder / "checkpoints", keep=1).steps()
    if not steps:
        return "Nothing was saved: there is no checkpoint yet."
    return f"What is saved ends at step {steps[-1]}. Go on with: ganvas train --resume --out {folder}"
