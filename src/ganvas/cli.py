"""The command line: verbs only. Exit codes: 0 done, 2 a user's mistake, 130 interrupted and saved, 1 a bug of ours.

Imports of anything heavy stand inside the verbs, so that `ganvas --help` and `ganvas list` answer at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from ganvas.errors import GanvasError, RecipeError, UsageError

if TYPE_CHECKING:
    from ganvas.types import Dataset

Command = TypeVar("Command", bound=Callable[..., Any])


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code."""
    try:
        cli.main(args=list(arguments), prog_name="ganvas", standalone_mode=False)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except GanvasError as error:
        say(str(error))
        return 2
    except (KeyboardInterrupt, click.exceptions.Abort):
        say("stopped; nothing was saved")
        return 130
    except BrokenPipeError:  # `ganvas list | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        if type(error).__name__ == "Interrupted":
            return 130
        import traceback

        traceback.print_exc()
        say("This is a bug of ours. Please report it with the lines above and the command that you typed.")
        return 1
    return 0


def say(text: str) -> None:
    """To people: standard error."""
    click.echo(text, err=True)


def tell(text: str) -> None:
    """The result itself: standard output."""
    click.echo(text)


def parts_option(command: Command) -> Command:
    def load(context: click.Context, parameter: click.Parameter, files: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG001
        from ganvas import parts

        for file in files:
            parts.add_file(file)
        return files

    return click.option(
        "--parts", "parts_files", multiple=True, metavar="FILE.py", callback=load, expose_value=False, is_eager=True,
        help="A Python file with parts of your own; may be given more than once.",
    )(command)  # fmt: skip


json_option = click.option("--json", "as_json", is_flag=True, help="JSON alone on standard output.")
device_option = click.option("--device", metavar="NAME", help="Such as cpu or cuda:1. [default: a GPU if there is one]")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ganvas", prog_name="ganvas")
def cli() -> None:
    """Generative image models from recipes of named parts."""


# --------------------------------------------------------------------------------------------------- train


@cli.command()
@click.argument("words", nargs=-1, metavar="[RECIPE] [KEY=VALUE]...")
@click.option("--out", metavar="DIR", help="The run folder. [default: a new runs/RECIPE]")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint of the run folder.")
@click.option("--allow-changes", is_flag=True, help="Resume although the recipe or the data have changed.")
@device_option
@parts_option
@json_option
def train(
    words: tuple[str, ...], out: str | None, resume: bool, allow_changes: bool, device: str | None, as_json: bool
) -> None:
    """Train a recipe: `ganvas train digits train.steps=500`.

    RECIPE is a shipped name (ganvas list recipes), a .yaml file or a run folder; without one it is `digits`.
    """
    names = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    if len(names) > 1:
        raise UsageError(
            f"{names[1]!r} is neither the recipe nor key=value", where="ganvas train", hint="one recipe, then key=value"
        )
    source = names[0] if names else None
    if source is None and resume and out and (Path(out) / "recipe.yaml").is_file():
        source = out
    from ganvas.recipe import Recipe

    recipe = Recipe.load(source, overrides)
    recipe.resolve()  # every mistake in it is told before torch has to be loaded for long work
    from ganvas import run as running
    from ganvas.engine.trainer import Interrupted
    from ganvas.progress import Progress

    folder = running.run_folder(recipe.name, out, resume=resume)
    try:
        model = running.train(
            recipe, out=folder, resume=resume, allow_changes=allow_changes, device=device, watcher=Progress()
        )
    except Interrupted as stop:
        say(f"Stopped and saved at step {stop.step}. Go on with: ganvas train --resume --out {folder}")
        raise
    pictures = sorted((folder / "samples").glob("*.png"))
    found = {
        "run": str(folder), "step": model.step, "model": str(folder / "model.safetensors"),
        "samples": str(pictures[-1]) if pictures else None, "report": str(folder / "report.html"),
        "scores": str(folder / "scores.jsonl") if (folder / "scores.jsonl").is_file() else None,
    }  # fmt: skip
    if as_json:
        tell(json.dumps(found))
        return
    from ganvas.files import read_rows

    rows = [row for row in read_rows(folder / "scores.jsonl") if row.get("step") == model.step]
    if rows:
        say(score_table(rows))
    for name in ("samples", "report", "scores", "model"):
        if found[name]:
            say(f"{name:8} {found[name]}")


# --------------------------------------------------------------------------------------------------- sample


@cli.command()
@click.argument("run_path", metavar="RUN")
@click.option("--n", "count", type=click.IntRange(1), help="How many. [default: a full grid]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--label", type=int, help="A class by its number. [default: all of them in turn]")
@click.option("--truncation", type=click.FloatRange(0, min_open=True), help="Keep latents within ± this: less variety.")
@click.option("--sampler", metavar="NAME", help="Another sampler than the recipe's (ganvas list samplers).")
@click.option("--out", metavar="grid.png|FOLDER|FILE.npz", help="[default: RUN/samples/seed-SEED.png]")
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Images at once.")
@device_option
@parts_option
@json_option
def sample(
    run_path: str, count: int | None, seed: int, label: int | None, truncation: float | None, sampler: str | None,
    out: str | None, batch: int, device: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Draw images from a trained model; no data set is needed.

    RUN is a run folder or a model.safetensors.
    """
    from ganvas import drawing
    from ganvas.model import Model
    from ganvas.numerics import pick_device

    target = drawing.Target.of(out, run_path, seed)
    model = Model.load(run_path, device=pick_device(device))
    classes = model.num_classes
    n = count or 8 * (min(classes, 20) or 10)
    labels = [label] * n if label is not None else [i % classes for i in range(n)] if classes else None
    images = model.sample(n, seed=seed, label=labels, truncation=truncation, sampler=sampler, batch=batch)
    target.write(images, labels, columns=min(classes, 20) if classes and label is None else None)
    if as_json:
        tell(json.dumps({"out": str(target.path), "n": n, "seed": seed, "label": label}))
    else:
        say(f"{n} images in {target.path}")


# --------------------------------------------------------------------------------------------------- eval


@cli.command("eval")
@click.argument("target", metavar="RUN|IMAGES")
@click.option("--against", metavar="IMAGES|DATA", help="What to compare with. [default: the protocol's reference]")
@click.option("--protocol", metavar="NAME|FILE", help="[default: the run's own, else folder-default]")
@click.option("--size", type=click.IntRange(1), help="Resize and crop images of a folder to this many pixels.")
@device_option
@parts_option
@json_option
def evaluate(
    target: str, against: str | None, protocol: str | None, size: int | None, device: str | None, as_json: bool
) -> None:
    """Score a trained model, or any folder, zip or array of images.

    `ganvas eval runs/digits`; `ganvas eval fakes/ --against reals/`.
    """
    from ganvas import bench
    from ganvas.model import Model
    from ganvas.numerics import pick_device

    is_model = (Path(target) / "model.safetensors").is_file() or target.endswith(".safetensors")
    model = Model.load(target, device=pick_device(device)) if is_model else None
    own = ((model.recipe["eval"] or {}).get("protocol") if model else None) or "folder-default"
    rules = bench.load_protocol(protocol or own)
    if against is not None:
        judge = bench.Judge.of(rules, images_at(against, size, "--against"))
    else:
        judge = bench.judge_for(rules, model.recipe["data"] if model else None)
    rows = judge.score_model(model) if model else judge.score_images(images_at(target, size, "ganvas eval"))
    if model:
        rows = [{"step": model.step, **row} for row in rows]
        if Path(target).is_dir():
            from ganvas.files import append_rows

            append_rows(Path(target) / "scores.jsonl", rows)
    tell(json.dumps(rows, indent=2)) if as_json else tell(score_table(rows))
    for note in sorted({note for row in rows for note in row["notes"]}):
        say(f"note: {note}")


def images_at(place: str, size: int | None, where: str) -> Dataset:
    """The data set that a path, or the name of one that needs no path, means."""
    from ganvas import parts
    from ganvas.recipe import check_node

    path = Path(place)
    name = "folder" if path.is_dir() else {".zip": "zip", ".npy": "arrays", ".npz": "arrays"}.get(path.suffix.lower())
    if name is None and place in {part.name for part in parts.every("dataset")}:
        node: dict[str, Any] = {"use": place}
    elif name is None or not path.exists():
        raise UsageError(
            f"there are no images at {place}", where=where, hint="give a folder, a zip, an .npy or .npz file"
        )
    else:
        node = {"use": name, "path": place}
    if size is not None:
        node["size"] = size
    images: Dataset = parts.build("dataset", check_node("dataset", node))
    return images


def score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Scores for people: value, interval, and how they were made."""
    lines = []
    for row in rows:
        arrow = "lower is better" if row["lower_is_better"] else "higher is better"
        around = f"[{row['low']:.4g}, {row['high']:.4g}]" if row["low"] is not None else ""
        lines.append(f"  {row['metric']:22} {row['value']:>10.4g}  {around:22} {arrow}")
    first = rows[0]
    head = f"{first['protocol']}: {first['n_fake']} images against {first['n_real']}, features of {first['extractor']}"
    return "\n".join([head, *lines, f"  interval: {first['interval']}"])


# --------------------------------------------------------------------------------------------------- list


@cli.command("list")
@click.argument("kind", required=False)
@click.argument("pattern", required=False)
@parts_option
@json_option
def list_(kind: str | None, pattern: str | None, as_json: bool) -> None:
    """List parts, recipes or systems: `ganvas list objectives`, `ganvas list networks gan`, `ganvas list recipes`.

    PATTERN is any piece of a name or summary.
    """
    from ganvas import catalogue, parts

    if kind in ("recipes", "recipe"):
        entries = catalogue.recipes()
    elif kind in ("systems", "system"):
        entries = catalogue.systems()
    else:
        entries = [catalogue.describe(part) for part in parts.every(parts.kind_of(kind) if kind else None)]
    if pattern:
        wanted = pattern.lower()
        entries = [entry for entry in entries if wanted in json.dumps(entry, ensure_ascii=False).lower()]
    if as_json:
        tell(json.dumps(entries, indent=1, ensure_ascii=False))
        return
    if not entries:
        say(f"nothing matches; ganvas list {kind or ''} shows everything".replace("  ", " "))
    heading = None
    width = max((len(entry.get("name", entry.get("id", ""))) for entry in entries), default=0)
    for entry in entries:
        if not kind and entry["kind"] != heading:
            heading = entry["kind"]
            tell(f"\n{parts.SHELVES[heading]}" if heading else "")
        paper = f"  ({entry['paper']})" if entry.get("paper") else ""
        tell(f"{entry.get('name', entry.get('id', '')):{width}}  {entry.get('summary', entry.get('title', ''))}{paper}")


# --------------------------------------------------------------------------------------------------- show


@cli.command()
@click.argument("kind")
@click.argument("name", required=False)
@parts_option
@json_option
def show(kind: str, name: str | None, as_json: bool) -> None:
    """Everything about one part or recipe: `ganvas show regularizer r1`, `ganvas show recipe digits`.

    `ganvas show recipe --json` is the JSON Schema of a whole recipe.
    """
    from ganvas import catalogue, parts, recipe, yaml12

    if kind in ("recipe", "recipes"):
        if name is None:
            schema = recipe.json_schema()
            tell(json.dumps(schema, indent=1) if as_json else "\n".join(catalogue.recipe_keys()))
            return
        resolved = recipe.Recipe.load(name).resolve()
        tell(json.dumps(resolved, indent=1) if as_json else yaml12.write(resolved).rstrip())
        return
    kind = parts.kind_of(kind)
    if name is None:
        raise UsageError(f"which {kind}?", where="ganvas show", hint=f"ganvas list {parts.SHELVES[kind]}")
    part = parts.find(kind, name)
    details = catalogue.details(part)
    tell(json.dumps(details, indent=1, ensure_ascii=False) if as_json else catalogue.as_text(details))


# --------------------------------------------------------------------------------------------------- check, diff


@cli.command()
@click.argument("words", nargs=-1, required=True, metavar="RECIPE... [KEY=VALUE]...")
@parts_option
@json_option
def check(words: tuple[str, ...], as_json: bool) -> None:
    """Build recipes at tiny size and take one step, without writing a file; every mistake is told at once."""
    from ganvas.recipe import DEFAULT, Recipe

    names = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    outcome: list[dict[str, Any]] = []
    for name in names or [DEFAULT]:
        notes: list[str] = []
        problems: list[str] = []
        try:
            recipe = Recipe.load(name, overrides)
            recipe.resolve()
            from ganvas import run as running

            running.check(recipe, notes.append)
        except RecipeError as error:
            problems = [str(each) for each in error.problems]
        except GanvasError as error:
            problems = [str(error)]
        outcome.append({"recipe": name, "ok": not problems, "problems": problems, "notes": notes})
    if as_json:
        tell(json.dumps(outcome, indent=1))
    for each in outcome:
        for problem in each["problems"]:
            say(problem)
        for note in each["notes"]:
            say(f"note: {note}")
        if not as_json:
            tell(f"{each['recipe']}: {'ok' if each['ok'] else str(len(each['problems'])) + ' to mend'}")
    if not all(each["ok"] for each in outcome):
        raise click.exceptions.Exit(2)


@cli.command()
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@parts_option
@json_option
def diff(one: str, other: str, as_json: bool) -> None:
    """What differs between two recipes or runs, defaults filled in."""
    from ganvas.recipe import Recipe, differences

    changed = differences(Recipe.load(one).resolve(), Recipe.load(other).resolve())
    if as_json:
        tell(json.dumps({key: {"a": a, "b": b} for key, (a, b) in changed.items()}, indent=1))
        return
    width = max((len(key) for key in changed), default=0)
    for key, (a, b) in changed.items():
        tell(f"{key:{width}}  {a!r} -> {b!r}")
    if not changed:
        say("no difference")


if __name__ == "__main__":
    main()
