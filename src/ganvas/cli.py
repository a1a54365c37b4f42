"""The command line: verbs only. Exit codes: 0 done, 2 a user's mistake, 130 interrupted and saved, 1 a bug of ours.

Imports of anything heavy stand inside the verbs, so that `ganvas --help` and `ganvas list` answer at once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from ganvas.errors import GanvasError, RecipeError, ResumeMismatch, UsageError

if TYPE_CHECKING:
    from ganvas.types import Dataset

# How torch says that a tensor is larger than any memory.
_NO_MEMORY = re.compile("can't allocate memory|Storage size calculation overflowed")

Command = TypeVar("Command", bound=Callable[..., Any])


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    import warnings

    # People want the sentence, not the line of ours that it came from.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code."""
    as_json = "--json" in arguments
    try:
        code = cli.main(args=list(arguments), prog_name="ganvas", standalone_mode=False)
        return code if isinstance(code, int) else 0  # click returns the code of its Exit, and what a command returns
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.exceptions.Abort):
        say("stopped at once; what the last checkpoint holds is safe")
        return leave("Interrupted", "stopped at once; what the last checkpoint holds is safe", 130, as_json)
    except BrokenPipeError:  # `ganvas list | head`
        # Python flushes once more as it leaves; that must find somewhere to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if type(error).__name__ == "Interrupted":  # the engine's; importing it here would load torch
            return leave("Interrupted", str(error), 130, as_json)  # `train` has said how to go on
        mistake = as_mistake(error)
        if mistake is None:
            import traceback

            traceback.print_exc()
            if theirs := part_file_of(error):
                say(f"{type(error).__name__}: {theirs}\n  {error}\n  this is in a part of your own; mend it there")
                return leave(type(error).__name__, f"{theirs}: {error}", 2, as_json)
            say("This is a bug of ours. Please report it with the lines above and the command that you typed.")
            return leave("Bug", f"{type(error).__name__}: {error}", 1, as_json)
        say(str(mistake))
        if as_json:
            told = mistake.problems if isinstance(mistake, RecipeError) else (mistake,)
            rows = [
                {"type": type(each).__name__, "where": each.where, "problem": each.problem, "hint": each.hint}
                for each in told
            ]
            tell(json.dumps({"errors": rows}, indent=1))
        return 2


def leave(kind: str, problem: str, code: int, as_json: bool) -> int:
    """The exit code; with `--json`, standard output says why in the form that mistakes have."""
    if as_json:
        tell(json.dumps({"errors": [{"type": kind, "where": "", "problem": problem, "hint": ""}]}, indent=1))
    return code


def part_file_of(error: Exception) -> str:
    """`file:line` where an error was raised by code of a `--parts` file."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).startswith("ganvas_parts_"):
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def as_mistake(error: Exception) -> GanvasError | None:
    """What a user can do about an error, or None where it is a bug of ours."""
    if isinstance(error, GanvasError):
        return error
    if isinstance(error, click.ClickException):
        text = error.format_message()
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "ganvas"
        return UsageError(text[:1].lower() + text[1:], where=command, hint=f"{command} --help")
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or _NO_MEMORY.search(str(error)):
        return UsageError(
            f"there is not enough memory: {str(error).splitlines()[0] if str(error) else 'none is left'}",
            hint="a smaller train.batch, data.size or network needs less",
        )
    if isinstance(error, OSError):
        return UsageError(
            error.strerror or str(error), where=str(error.filename or ""),
            hint="check the path, its permissions and the space on the disk",
        )  # fmt: skip
    return None


def say(text: str) -> None:
    """To people: standard error."""
    click.echo(text, err=True)


def tell(text: str) -> None:
    """The result itself: standard output."""
    click.echo(text)


def parts_option(command: Command) -> Command:
    def load(context: click.Context, parameter: click.Parameter, files: tuple[str, ...]) -> tuple[str, ...]:
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


class InOrder(click.Group):
    """Lists its commands as they are written here: the way from a recipe to a score."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ganvas", prog_name="ganvas")
def cli() -> None:
    """Generative image models from recipes of named parts.

    \b
    ganvas train                                 the default recipe: handwritten digits, about a minute
    ganvas train folder data.path=photos/        a recipe on your own images
    ganvas sample runs/digits --label 3          images from what was trained
    ganvas eval runs/digits                      how good they are
    """


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
    """Train a recipe into a run folder.

    RECIPE is a shipped name (ganvas list recipes), a .yaml file or a run folder; without one it is `digits`. KEY=VALUE
    changes it: a value is YAML, a part's name replaces the part, ~ drops the key.

    \b
    ganvas train digits train.steps=500 optim.lr=2e-4
    ganvas train digits task.objective=wasserstein task.regularizers.gradient-penalty.weight=10
    ganvas train --resume --out runs/digits
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
@click.option("--n", "count", type=click.IntRange(1), metavar="N", help="How many. [default: a full grid]")
@click.option("--seed", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="Where chance begins.")
@click.option("--label", type=int, metavar="N", help="A class by its number. [default: all of them in turn]")
@click.option(
    "--truncation", type=click.FloatRange(0, min_open=True), metavar="X", help="Keep latents within ± X: less variety."
)
@click.option("--sampler", metavar="NAME", help="Another sampler than the recipe's, or '{use: NAME, key: value}'.")
@click.option("--out", metavar="grid.png|FOLDER|FILE.npz", help="[default: RUN/samples/seed-SEED.png]")
@click.option("--batch", type=click.IntRange(1), metavar="N", default=64, show_default=True, help="Images at once.")
@device_option
@parts_option
@json_option
def sample(
    run_path: str, count: int | None, seed: int, label: int | None, truncation: float | None, sampler: str | None,
    out: str | None, batch: int, device: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Draw images from a trained model; no data set is needed.

    RUN is a run folder or a model.safetensors. The same seed gives the same images.

    \b
    ganvas sample runs/digits --n 64 --label 3 --out threes.png
    ganvas sample runs/digits --n 1000 --out fakes/
    """
    from ganvas import drawing, yaml12
    from ganvas.model import Model
    from ganvas.numerics import pick_device

    target = drawing.Target.of(out, run_path, seed)
    model = Model.load(run_path, device=pick_device(device))
    classes = model.num_classes
    n = count or 8 * (min(classes, 20) or 10)
    labels = [label] * n if label is not None else [i % classes for i in range(n)] if classes else None
    # A single label goes as it is: an error about it should not repeat it n times.
    wish = labels if label is None else label
    node = yaml12.read(sampler, "--sampler")[0] if sampler else None  # a name, or a part with its keys
    images = model.sample(n, seed=seed, label=wish, truncation=truncation, sampler=node, batch=batch)
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
@click.option(
    "--size", type=click.IntRange(1), metavar="N", help="Resize and crop images of a folder to this many pixels."
)
@device_option
@parts_option
@json_option
def evaluate(
    target: str, against: str | None, protocol: str | None, size: int | None, device: str | None, as_json: bool
) -> None:
    """Score a trained model, or any folder, zip or array of images.

    \b
    ganvas eval runs/digits
    ganvas eval fakes/ --against reals/
    """
    from ganvas import bench
    from ganvas.model import Model
    from ganvas.numerics import pick_device

    # A run that has no model yet is still a run, not a folder of images.
    run_files = (Path(target) / name for name in ("model.safetensors", "resolved.yaml"))
    is_model = target.endswith(".safetensors") or any(file.is_file() for file in run_files)
    if not is_model:
        node_at(target, size, "ganvas eval")  # before anything else is looked for
    elif size is not None and against is None:
        raise UsageError("nothing here has a size to change", where="--size", hint="it is for folders of images")
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

    images: Dataset = parts.build("dataset", node_at(place, size, where))
    return images


def node_at(place: str, size: int | None, where: str) -> dict[str, Any]:
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
    return check_node("dataset", node)


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


# --------------------------------------------------------------------------------------------------- bench


@cli.command("bench")
@click.argument("study_name", metavar="STUDY")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Trainings at a time.")
@click.option("--out", metavar="DIR", help="The study's folder. [default: runs/STUDY]")
@parts_option
@json_option
def bench_(study_name: str, jobs: int, out: str | None, as_json: bool) -> None:
    """Train a grid of recipes by seeds into one table of scores.

    STUDY is a shipped name or a .yaml file. Running it again trains only what is missing or has changed.
    """
    import os

    from ganvas import study
    from ganvas.run import RUNS

    plan = study.load(study_name)
    folder = Path(out) if out else RUNS / plan.name
    threads = max(1, (os.cpu_count() or 1) // jobs)
    failed = study.execute(
        plan, folder, jobs=jobs, threads=threads, tell=lambda done, total, text: say(f"{done} of {total}  {text}")
    )
    found = study.cells(plan, folder, failed)
    markdown, numbers = study.write(plan, folder, found)
    if as_json:
        tell(numbers.read_text(encoding="utf-8"))
    else:
        tell(study.table(plan, found))
    say(f"table    {markdown}")


# --------------------------------------------------------------------------------------------------- list


@cli.command("list")
@click.argument("kind", required=False)
@click.argument("pattern", required=False)
@parts_option
@json_option
def list_(kind: str | None, pattern: str | None, as_json: bool) -> None:
    """List parts, recipes or systems.

    KIND is a shelf of parts, `recipes` or `systems`; PATTERN is any piece of a name, summary or paper.

    \b
    ganvas list objectives
    ganvas list networks attention
    ganvas list recipes
    """
    from ganvas import catalogue, parts

    if kind in ("recipes", "recipe"):
        entries = catalogue.recipes()
    elif kind in ("systems", "system"):
        entries = catalogue.systems()
    else:
        entries = [catalogue.describe(part) for part in parts.every(parts.kind_of(kind) if kind else None)]
    if pattern:
        entries = [entry for entry in entries if catalogue.matches(entry, pattern)]
    if as_json:
        tell(json.dumps(entries, indent=1, ensure_ascii=False))
        return
    if not entries:
        say(f"nothing matches; ganvas list{' ' + kind if kind else ''} shows everything")
    width = max((len(entry.get("name") or entry["id"]) for entry in entries), default=0)
    # A terminal gets one line an entry; a pipe gets everything.
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    heading = None
    for entry in entries:
        if not kind and entry["kind"] != heading:
            tell(f"{'' if heading is None else chr(10)}{parts.SHELVES[entry['kind']]}")
            heading = entry["kind"]
        paper = f"  ({entry['paper']})" if entry.get("paper") else ""
        line = f"{entry.get('name') or entry['id']:{width}}  {entry.get('summary') or entry.get('title', '')}{paper}"
        tell(line.rstrip() if len(line) <= room else f"{line[: room - 1]}…")


# --------------------------------------------------------------------------------------------------- show


@cli.command()
@click.argument("kind")
@click.argument("name", required=False)
@parts_option
@json_option
def show(kind: str, name: str | None, as_json: bool) -> None:
    """Everything about one part, recipe or system.

    \b
    ganvas show regularizer r1     keys, equation, paper, source, recipes that use it
    ganvas show recipe digits      the recipe with every default filled in
    ganvas show recipe             every key that a recipe may have
    ganvas show recipe --json      the same as JSON Schema
    """
    from ganvas import catalogue, parts, recipe, yaml12

    if kind in ("recipe", "recipes"):
        if name is None:
            from ganvas.recipe_schema import json_schema

            tell(json.dumps(json_schema(), indent=1, ensure_ascii=False) if as_json else catalogue.recipe_keys())
            return
        resolved = recipe.Recipe.load(name).resolve()
        tell(json.dumps(resolved, indent=1, ensure_ascii=False) if as_json else yaml12.write(resolved).rstrip())
        return
    if kind in ("system", "systems"):
        system = catalogue.system(name or "")
        tell(json.dumps(system, indent=1, ensure_ascii=False) if as_json else yaml12.write(system).rstrip())
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
    """Find every mistake in recipes, without training.

    Builds each at tiny size and takes one step; no file is written. KEY=VALUE changes all of them.
    """
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
    """Say what differs between two recipes or runs.

    Defaults are filled in first; null stands for a key that is not there.
    """
    from ganvas.recipe import Recipe, differences

    changed = differences(Recipe.load(one).resolve(), Recipe.load(other).resolve())
    if as_json:
        tell(json.dumps({key: {"a": a, "b": b} for key, (a, b) in changed.items()}, indent=1))
        return
    width = max((len(key) for key in changed), default=0)
    for key, (a, b) in changed.items():
        tell(f"{key:{width}}  {json.dumps(a, ensure_ascii=False)} -> {json.dumps(b, ensure_ascii=False)}")
    if not changed:
        say("no difference")


if __name__ == "__main__":
    main()
