"""Write the generated blocks of docs/reference/*.md from the code: `python scripts/make_reference.py`.

A block stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything around it is written by hand.
`tests/docs/test_reference.py` fails while a page differs from what this script would write.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

import ganvas
from ganvas import cli, errors, parts, types
from ganvas.evaluation.protocol import Measure, Protocol
from ganvas.parts import values
from ganvas.recipe import catalogue, sources
from ganvas.recipe.recipe import Recipe
from ganvas.recipe.schema import Ema, Eval, OptimOptions, Schema, Span, Train
from ganvas.recipe.trained import Weights

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
BLOCK = re.compile(r"(<!-- generated: (?P<name>[\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
WIDE = 84  # characters of a signature before it is broken into lines

MEANING = {
    "data": "where the images come from: a part of the shelf `data`",
    "networks": "one entry a role of the task; each names a part of the shelf `networks`",
    "task": "what is trained against what: a part of the shelf `tasks`",
    "optim": "how weights learn: a part of the shelf `optimizers`, with the keys of `optim` below beside its own",
    "ema": "a moving average of the weights; where it is absent there is none",
    "schedules": "numbers that move while a run goes on: path in the recipe -> a part of the shelf `schedules`",
    "train": "how long, how much at once, how exactly",
    "eval": "scores while training; where it is absent the run is not scored",
    "sampler": "how the trained model draws; absent: the sampler that the task names",
    "sinks": "places besides `log.jsonl` for rows and pictures: a set of parts",
    "stages": "name -> changes `key=value`: runs that are trained first, each starting from the one before",
    "system": "the catalogue id of the published system that the recipe stands for",
    "summary": "one line for `ganvas list recipes`",
    "source": "whose published numbers these are: an entry of `recipes/sources.yaml`",
    "differs": "path -> why this number is not the source's",
    "train.steps": "rounds of the task's updates; in an adversarial task, steps of the generator",
    "train.batch": "real images of one update",
    "train.seed": "decides first weights, order of the data, latents and random flips",
    "train.precision": "of the forward passes; weights, penalties and optimizer state stay float32",
    "train.accumulate": "micro-batches that a batch is cut into; less memory, the same number of images an update",
    "train.parallel": "where several processes train: each has all weights, or a piece of them (see Clusters)",
    "train.compile": "compile the networks with `torch.compile`",
    "train.channels_last": "memory layout; faster convolutions on many CPUs and GPUs",
    "train.log_every": "steps between rows of `log.jsonl`",
    "train.checkpoint_every": "steps between checkpoints",
    "train.sample_every": "steps between sample grids; null: with each checkpoint",
    "train.keep": "newest checkpoints that stay, besides the best",
    "ema.decay": "share of the old average that a step keeps",
    "ema.buffers": "statistics of batch and spectral norms: averaged with the weights, or copied from the live network",
    "ema.half_life_images": "real images after which half of the old average is left; in place of decay",
    "schedules.PATH.from": "the value where the schedule's factor is 1, which is the beginning",
    "schedules.PATH.to": "the value where the factor is 0, which is the end",
    "ema.start_images": "real images seen before averaging starts; until then the average is the weights themselves",
    "ema.start_steps": "the same in steps, whatever the batch; in place of start_images",
    "ema.rampup_ratio": "the half-life is at most this share of the images seen so far; null: no ramp-up",
    "eval.protocol": "the name of a shipped protocol, or the path of a YAML file",
    "eval.every": "steps between scores; null: at the end alone",
    "optim.schedule": "the schedule of the learning rate: a part of the shelf `schedules`",
    "optim.non_finite": "gradients that are not finite: they are kept, or replaced as in StyleGAN2",
    "optim.clip_norm": "largest global L2 norm of one role's gradient; null: not clipped",
    "optim.roles": "role -> keys of the optimizer for this role alone, such as `{discriminator: {lr: 0.001}}`",
    "networks.ROLE.from": "a run folder or `model.safetensors` whose weights the network starts with",
    "networks.ROLE.net": "the role to take there; null: the same role",
    "networks.ROLE.freeze": "`all`, or the beginnings of parameter names that never learn",
    "regularizers.NAME.weight": "factor of the term in the loss",
    "regularizers.NAME.every": "lazy: run the term each so many steps, with its gain multiplied by as much",
    "protocol.metrics": "what is measured: a set of parts",
    "protocol.extractor": "whose features metrics read: a part of the shelf `features`",
    "protocol.reference": "the data to compare with; null: those that the model was trained on",
    "protocol.training": "what memorisation is judged by; null: the data that the model was trained on",
    "protocol.labels": "the classes that are asked for: those of the reference in its order, or uniform ones",
    "protocol.sampler": "how images are drawn, batch-norm statistics and truncation included; null: as the recipe says",
    "protocol.halves": "random halves of the reference that tell how sure it makes a value; 0: not asked",
    "protocol.source": "where a published protocol was published",
    "metrics.NAME.extractor": "another extractor for this metric alone",
    "protocol.samples": "generated images per sampling seed; null: as many as the reference has",
    "protocol.seeds": "sampling seeds; scores come with an interval over them",
    "protocol.summary": "one line about it",
    "protocol.name": "what score rows call it; absent: the file's name",
}


# --------------------------------------------------------------------------------------------------- types in words


def type_of(each: parts.Field) -> str:
    if each.marker is not None:
        many = "set of " if isinstance(each.marker, parts.Slots) else ""
        return f"{many}{each.marker.kind}"
    if (section := parts.section_of(each.annotation)) is not None:
        return f"section of {', '.join(f'`{key}`' for key in parts.fields_of(section))}"
    return f"`{values.words(each.annotation).replace(' | ', ' or ')}`"  # a bar would end the table's cell


def default_of(each: parts.Field) -> str:
    if each.required:
        return "required"
    if parts.section_of(each.annotation) is not None and each.default is not None:
        return "its own defaults"
    return f"`{json.dumps(values.plain(each.default), ensure_ascii=False)}`"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------- recipe keys


def keys_table(section: type, prefix: str) -> str:
    rows = []
    for key, each in parts.fields_of(section).items():
        name = f"{prefix}{key}"
        rows.append((f"`{key}`", type_of(each), default_of(each), MEANING[name]))
    return table(("key", "value", "default", "meaning"), rows)


SECTIONS: dict[str, tuple[type, str]] = {
    "recipe": (Schema, ""),
    "train": (Train, "train."),
    "optim": (OptimOptions, "optim."),
    "ema": (Ema, "ema."),
    "schedules": (Span, "schedules.PATH."),
    "eval": (Eval, "eval."),
    "networks": (Weights, "networks.ROLE."),
    "regularizers": (types.Term, "regularizers.NAME."),
    "protocol": (Protocol, "protocol."),
    "metrics": (Measure, "metrics.NAME."),
}
"""Block -> its dataclass, and how its keys are called in `MEANING`."""


def recipe_keys() -> dict[str, str]:
    return {name: keys_table(section, prefix) for name, (section, prefix) in SECTIONS.items()}


# --------------------------------------------------------------------------------------------------- command line


_INHERITED = {"help_option_names": cli.cli.context_settings["help_option_names"]}


def command_lines() -> dict[str, str]:
    return {f"cli.{name}": command_text(name, command) for name, command in cli.cli.commands.items()}


def command_text(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"ganvas {name}", **_INHERITED)
    usage = " ".join(command.collect_usage_pieces(context))
    rows = []
    for each in command.get_params(context):
        if isinstance(each, click.Option):
            left, right = each.get_help_record(context) or ("", "")
            rows.append((f"`{left.replace('|', ' or ')}`", " ".join(right.split())))
    help_ = [_paragraph(each) for each in inspect.cleandoc(command.help or "").split("\n\n")]
    return "\n\n".join([f"```text\nganvas {name} {usage}\n```", *help_, table(("flag", "meaning"), rows)])


def _paragraph(text: str) -> str:
    """A paragraph of click's help; one that begins with a backspace keeps its lines."""
    return f"```text\n{text[1:].strip()}\n```" if text.startswith("\b") else " ".join(text.split())


# --------------------------------------------------------------------------------------------------- Python


def python_names() -> dict[str, str]:
    own = {name: getattr(ganvas, name) for name in sorted(ganvas.__all__) if not name.startswith("__")}
    own = {name: thing for name, thing in own.items() if not _is_error(thing)}
    tree = [thing for thing in vars(errors).values() if _is_error(thing)]
    return {
        "python.public": "\n\n".join(described(f"ganvas.{name}", thing) for name, thing in own.items()),
        "python.errors": "\n".join(f"- `{each.__name__}`: {_summary(each)}" for each in tree),
    }


def _is_error(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, errors.GanvasError)


def described(name: str, thing: Any, *, fields: bool = False) -> str:
    """A heading, the signature and the docstring of one public name; of a class also its methods."""
    lines = [f"### `{name}`", ""]
    if inspect.ismodule(thing):
        return "\n".join([*lines, _summary(thing)])
    protocol = getattr(thing, "_is_protocol", False)
    if not protocol:
        lines += ["```text", signature(name.rpartition(".")[2], thing), "```", ""]
    lines.append(prose(inspect.getdoc(thing) or ""))
    methods = sorted(_methods(thing)) if inspect.isclass(thing) else []
    if methods:
        lines += ["Methods:", ""]
    for member, method in methods:
        one_line = re.sub(r"\(\n +", "(", signature(member, method)).replace(",\n)", ")")
        one_line = " ".join(one_line.split())
        short = _summary(method)
        lines.append(f"- `{one_line}`" + (f": {short}" if short else ""))
    if fields and protocol and (annotated := getattr(thing, "__annotations__", {})):
        lines += ["", "Attributes: " + ", ".join(f"`{key}: {value}`" for key, value in annotated.items()) + "."]
    return "\n".join(lines).rstrip()


def _methods(thing: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, member in vars(thing).items():
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        called = name == "__call__" and getattr(thing, "_is_protocol", False)
        if inspect.isfunction(inspect.unwrap(function)) and (called or not name.startswith("_")):
            yield name, inspect.unwrap(function)


def signature(name: str, thing: Callable[..., Any]) -> str:
    """`name(parameters) -> result`, on several lines where it is long; the annotations as they are written."""
    found = inspect.signature(thing)
    pieces: list[str] = []
    for each in found.parameters.values():
        if each.name in ("self", "cls"):
            continue
        if each.kind is each.KEYWORD_ONLY and "*" not in pieces and not any(p.startswith("*") for p in pieces):
            pieces.append("*")
        star = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        kind = "" if each.annotation is each.empty else f": {_annotation(each.annotation)}"
        pieces.append(
            f"{star}{each.name}{kind}" + ("" if each.default is each.empty else f" = {_default(each.default)}")
        )
    back = found.return_annotation
    result = "" if inspect.isclass(thing) or back is found.empty else f" -> {_annotation(back)}"
    short = f"{name}({', '.join(pieces)}){result}"
    if len(short) <= WIDE or not pieces:
        return short
    return f"{name}(\n    " + ",\n    ".join(pieces) + f",\n){result}"


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(value: Any) -> str:
    text = repr(value)
    return "…" if text.startswith("<") else text


def _summary(thing: Any) -> str:
    return " ".join((inspect.cleandoc(thing.__doc__ or "").split("\n\n")[0]).split())


def prose(doc: str) -> str:
    """A docstring as Markdown: sections such as Parameters become lists, `::` blocks become code."""
    out: list[str] = []
    for paragraph in re.split(r"\n\s*\n", doc.strip()):
        lines = paragraph.splitlines()
        if len(lines) > 1 and re.fullmatch(r"-{3,}", lines[1].strip()):
            items: list[str] = []
            for line in lines[2:]:
                if line.startswith(" ") and items:
                    items[-1] += " " + line.strip()
                else:
                    key, colon, text = line.partition(" : ")
                    items.append(f"- `{key}`: {text}" if colon else f"- `{line.strip()}`")
            out.append(f"{lines[0].strip()}:\n\n" + "\n".join(items))
        elif all(line.startswith("    ") for line in lines):
            out.append("```text\n" + "\n".join(line[4:] for line in lines) + "\n```")
        else:
            out.append(" ".join(line.strip() for line in lines).replace("::", ":"))
    return "\n\n".join(out) + "\n"


# --------------------------------------------------------------------------------------------------- built pages


def protocols_page() -> str:
    """The base classes of parts, and how parts are put on shelves."""
    own = [
        described(f"ganvas.types.{name}", thing, fields=True)
        for name, thing in vars(types).items()
        if inspect.isclass(thing) and thing.__module__.startswith(f"{types.__name__}.")
    ]
    shelves = [
        described(f"ganvas.parts.{name}", getattr(parts, name))
        for name in ("Slot", "Slots", "Factory", "Flat", "Entry", "Part", "every", "find", "build", "add_file")
    ]
    return "\n\n".join(
        [
            "# Base classes",
            "Here you look up what a part of each kind must have, and the words that parts, engine and models share. "
            "Images are (N, C, H, W) float32 in [-1, 1]. [Extend](../extend.md) tells how to use it. This page is made "
            "from the code when the guide is built.",
            "## Types",
            *own,
            "## Shelves and markers",
            *shelves,
        ]
    )


def parts_page() -> str:
    """Every part with its keys; made when the guide is built, not kept in the repository."""
    out = [
        "# Parts\n",
        "Everything that a recipe can name. `ganvas show KIND NAME` prints the same for one part, and adds the recipes "
        "that use it. Each class can be imported from where it lies: networks are plain `torch.nn.Module`s that work "
        "in a loop of your own. This page is made from the code when the guide is built.\n",
    ]
    for kind, folder in parts.SHELVES.items():
        found = parts.every(kind)
        if not found:
            continue
        out.append(f"## {folder}\n")
        for part in found:
            out.append(f"### {part.name} {{#{kind}-{part.name}}}\n")
            out.append(prose(part.doc))
            facts = [f"class: `{part.module}.{part.symbol}`"]
            facts += [f"paper: {part.paper}"] if part.paper else []
            facts += [f"system: `{part.system}`"] if part.system else []
            out.append(f"*{'; '.join(facts)}*\n")
            if fields := part.fields():
                rows = [(f"`{key}`", type_of(each), default_of(each)) for key, each in fields.items()]
                out.append(table(("key", "value", "default"), rows) + "\n")
    return "\n".join(out)


def systems_page() -> str:
    """Every published system that works, and what its tests showed."""
    out = [
        "# Systems\n",
        "The published systems that work here. A statement is what a test asserts: *shown*, or *not shown* where the "
        "paper's claim did not hold at toy size and the test asserts what is true instead; with the value that was "
        "measured, and the commit. `make claims` runs all of them again; `ganvas show system ID` prints one.\n",
    ]
    for found in catalogue.systems():
        out.append(f"## {found['title']} {{#{found['id']}}}\n")
        kinds = [name for name in ("parts", "recipes", "studies") if found[name]]
        out += [f"{name}: {', '.join(f'`{each}`' for each in found[name])}\n" for name in kinds]
        if noted := catalogue.claims(found["id"]):
            out.append("\n".join(f"- {catalogue.claim_text(each)}" for each in noted) + "\n")
    return "\n".join(out)


def recipes_page() -> str:
    """Every shipped recipe outside `tiny/`, whose numbers it has, and which not."""
    out = [
        "# Recipes\n",
        "The shipped recipes and the publications whose numbers they have. A table says what a recipe has other than "
        "its source, and why; a dash stands where one of the two has no such key. `ganvas show recipe NAME` prints the "
        "same below the recipe.\n",
    ]
    for entry in catalogue.recipes():
        if entry["name"].startswith("tiny/"):
            continue
        resolved = Recipe.load(entry["name"]).resolve()
        source = sources.source_of(resolved)
        out.append(f"## {entry['name']}\n")
        out.append(f"{entry['summary']}.\n")
        if source is None:
            continue
        out.append(f"Source: {source.where}.\n")
        rows = [
            (f"`{found.path}`", _value(found.ours), _value(found.published), found.reason)
            for found in sources.explained(resolved, source)
        ]
        if rows:
            out.append(table(("key", "here", "source", "why"), rows) + "\n")
    return "\n".join(out)


def _value(value: Any) -> str:
    return "—" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


# --------------------------------------------------------------------------------------------------- the house


def rooms() -> dict[str, str]:
    """Every package with the first sentence of its docstring, outer ones first."""
    root = Path(ganvas.__file__).parent
    rows = [("`errors.py`", _first_line(root / "errors.py"))]
    for file in sorted(root.rglob("__init__.py")):
        place = file.parent.relative_to(root)
        if place.parts:
            rows.append((f"`{place.as_posix()}/`", _first_line(file)))
    rows.append(("`recipes/`", "Shipped recipes; those in `tiny/` train in seconds."))
    rows.append(("`protocols/`", "Shipped protocols: how scores are made."))
    return {"rooms": table(("place under `src/ganvas`", "what lies there"), rows)}


def _first_line(file: Path) -> str:
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    if not doc:
        raise SystemExit(f"{file} has no docstring: say in one sentence what lies there")
    return " ".join(doc.split("\n\n")[0].split())


# --------------------------------------------------------------------------------------------------- pages


def written(text: str, blocks: dict[str, str]) -> str:
    """A page with its generated blocks replaced."""
    return BLOCK.sub(lambda found: f"{found[1]}{blocks[found['name']]}\n{found[3]}", text)


def pages() -> dict[Path, str]:
    """What every page of the reference should hold."""
    blocks = {**recipe_keys(), **command_lines(), **python_names(), **rooms()}
    files = [*sorted(REFERENCE.glob("*.md")), REFERENCE.parent / "design.md"]
    return {page: written(page.read_text(encoding="utf-8"), blocks) for page in files}


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
