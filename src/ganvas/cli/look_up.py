"""`ganvas list`, `show`, `check` and `diff`: what there is, and what is wrong with a recipe."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

import click

from ganvas.cli.frame import cli, json_option, parts_option, say, tell
from ganvas.errors import GanvasError, RecipeError, UsageError


@cli.command("list")
@click.argument("kind", required=False)
@click.argument("pattern", required=False)
@parts_option
@json_option
def list_(kind: str | None, pattern: str | None, as_json: bool) -> None:
    """List parts, recipes, protocols or systems.

    KIND is `recipes`, `protocols`, `systems`, or a shelf of parts: `analysis`, `augment`, `conditioning`, `data`,
    `edits`, `features`, `metrics`, `modalities`, `networks`, `objectives`, `optimizers`, `paths`, `regularizers`,
    `samplers`, `schedules`, `sinks`, `tasks`. Without it, all parts. PATTERN is any piece of a name, summary or paper.

    \b
    ganvas list objectives
    ganvas list networks attention
    ganvas list recipes
    ganvas list protocols text
    """
    from ganvas import parts
    from ganvas.recipe import catalogue

    if kind in ("recipes", "recipe"):
        entries = catalogue.recipes()
    elif kind in ("systems", "system"):
        entries = catalogue.systems()
    elif kind in ("protocols", "protocol"):
        entries = catalogue.protocols()
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


@cli.command()
@click.argument("kind")
@click.argument("name", required=False)
@parts_option
@json_option
def show(kind: str, name: str | None, as_json: bool) -> None:
    """Everything about one part, recipe, protocol or system.

    KIND is as for `ganvas list`, or its singular.

    \b
    ganvas show regularizer r1     keys, equation, paper, source, recipes that use it
    ganvas show recipe digits      the recipe with every default filled in, its source, and what it has other than that
    ganvas show recipe             every key that a recipe may have
    ganvas show recipe --json      the same as JSON Schema
    ganvas show protocol digits    what is scored, how often, against what
    ganvas show system dit         its parts and recipes, and what its tests showed
    """
    from ganvas import parts
    from ganvas.recipe import catalogue, yaml12
    from ganvas.recipe.recipe import Recipe

    if kind in ("recipe", "recipes"):
        if name is None:
            from ganvas.recipe.json_schema import json_schema

            tell(json.dumps(json_schema(), indent=1, ensure_ascii=False) if as_json else catalogue.recipe_keys())
            return
        resolved = Recipe.load(name).resolve()
        if as_json:
            tell(json.dumps(resolved, indent=1, ensure_ascii=False))
            return
        tell("\n".join(filter(None, (yaml12.write(resolved).rstrip(), catalogue.source_text(resolved)))))
        return
    if kind in ("system", "systems"):
        if name is None:
            raise UsageError("which system?", where="ganvas show", hint="ganvas list systems")
        system = catalogue.system(name)
        tell(json.dumps(system, indent=1, ensure_ascii=False) if as_json else catalogue.system_text(system))
        return
    if kind in ("protocol", "protocols"):
        if name is None:
            raise UsageError("which protocol?", where="ganvas show", hint="ganvas list protocols")
        from ganvas.evaluation.protocol import load_protocol

        rules = load_protocol(name)
        tell(json.dumps(rules, indent=1, ensure_ascii=False) if as_json else yaml12.write(rules).rstrip())
        return
    kind = parts.kind_of(kind)
    if name is None:
        raise UsageError(f"which {kind}?", where="ganvas show", hint=f"ganvas list {parts.SHELVES[kind]}")
    part = parts.find(kind, name)
    details = catalogue.details(part)
    tell(json.dumps(details, indent=1, ensure_ascii=False) if as_json else catalogue.as_text(details))


@cli.command()
@click.argument("words", nargs=-1, required=True, metavar="RECIPE... [KEY=VALUE]...")
@click.option("--without-data", is_flag=True, help="Random data stand in for those that are not at hand.")
@parts_option
@json_option
def check(words: tuple[str, ...], without_data: bool, as_json: bool) -> None:
    """Find every mistake in recipes, without training.

    Walks training's road at tiny size: data, every update, samples, scores, files, resume. Nothing is left behind.
    KEY=VALUE changes all of them.

    \b
    ganvas check my.yaml
    ganvas check digits task.objective=hinge train.batch=128
    ganvas check biggan-cifar10 --without-data
    """
    from ganvas.recipe.recipe import DEFAULT, Recipe

    names = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    outcome: list[dict[str, Any]] = []
    for name in names or [DEFAULT]:
        notes: list[str] = []
        problems: list[str] = []
        try:
            recipe = Recipe.load(name, overrides)
            recipe.resolve()
            from ganvas.recipe.remarks import remarks
            from ganvas.training import check as checking

            notes += remarks(Recipe.load(name), recipe)
            checking.check(recipe, notes.append, data=not without_data)
        except RecipeError as error:
            problems = [str(problem) for problem in error.problems]
        except GanvasError as error:
            problems = [str(error)]
        outcome.append({"recipe": name, "ok": not problems, "problems": problems, "notes": notes})
    if as_json:
        tell(json.dumps(outcome, indent=1))
    for entry in outcome:
        for problem in entry["problems"]:
            say(problem)
        for note in entry["notes"]:
            say(f"note: {note}")
        if not as_json:
            tell(f"{entry['recipe']}: {'ok' if entry['ok'] else str(len(entry['problems'])) + ' to mend'}")
    if not all(entry["ok"] for entry in outcome):
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
    from ganvas.recipe.recipe import Recipe, differences

    changed = differences(Recipe.load(one).resolve(), Recipe.load(other).resolve())
    if as_json:
        tell(json.dumps({key: {"a": a, "b": b} for key, (a, b) in changed.items()}, indent=1))
        return
    width = max((len(key) for key in changed), default=0)
    for key, (a, b) in changed.items():
        tell(f"{key:{width}}  {json.dumps(a, ensure_ascii=False)} -> {json.dumps(b, ensure_ascii=False)}")
    if not changed:
        say("no difference")
