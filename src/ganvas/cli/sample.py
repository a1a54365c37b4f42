"""`ganvas sample`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ganvas.cli.frame import cli, device_option, json_option, parts_option, say, tell
from ganvas.errors import MissingCapability, UsageError

if TYPE_CHECKING:
    from ganvas.model import Model
    from ganvas.types import Condition, Noise


@cli.command()
@click.argument("run_path", metavar="RUN")
@click.option("--n", "count", type=click.IntRange(1), metavar="N", help="How many. [default: a full sheet]")
@click.option("--seed", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="Where chance begins.")
@click.option("--label", metavar="CLASS", help="A class by its name or number. [default: all of them in turn]")
@click.option(
    "--given", multiple=True, metavar="[NAME=]FILE|FOLDER", help="What samples are made of: one for each file."
)
@click.option("--text", multiple=True, metavar="[NAME=]TEXT", help="The text that samples are made for.")
@click.option("--truncation", type=click.FloatRange(0), metavar="X", help="Keep latents within ± X: less variety.")
@click.option("--space", metavar="w", help="Truncate there instead of in the space that is drawn from.")
@click.option("--mix", metavar="FIRST-LAST", help="These layers follow the next image's latent (style mixing).")
@click.option("--noise", type=click.Choice(["random", "const", "none"]), help="What layers add, in style generators.")
@click.option("--walk", metavar="FILE.gif|FILE.mp4", help="A moving picture of a walk from latent to latent.")
@click.option("--sampler", metavar="NAME", help="Another sampler than the recipe's, or '{use: NAME, key: value}'.")
@click.option("--out", metavar="sheet.png|FOLDER|FILE.npz", help="[default: RUN/samples/seed-SEED.png]")
@click.option("--batch", type=click.IntRange(1), metavar="N", default=64, show_default=True, help="Data at once.")
@device_option
@parts_option
@json_option
def sample(
    run_path: str, count: int | None, seed: int, label: str | None, given: tuple[str, ...], text: tuple[str, ...],
    truncation: float | None, space: str | None, mix: str | None, noise: Noise | None, walk: str | None,
    sampler: str | None, out: str | None, batch: int, device: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Draw samples from a trained model; no data set is needed.

    RUN is a run folder or a model.safetensors. The same seed gives the same samples. A model that makes its data of
    something takes it from files of its kind (--given), or from words (--text).

    \b
    ganvas sample runs/digits --n 64 --label 3 --out threes.png
    ganvas sample runs/digits --n 1000 --out fakes/
    ganvas sample runs/enlarger --given small/ --out large/
    ganvas sample runs/faces --space w --truncation 0.7 --mix 4-8
    ganvas sample runs/faces --walk faces.mp4 --noise none
    """
    from ganvas.cli import output
    from ganvas.model import Model
    from ganvas.recipe import yaml12
    from ganvas.report.sheets import inputs_of
    from ganvas.runtime.devices import pick_device

    moved = {"--truncation": truncation, "--space": space, "--mix": mix, "--noise": noise, "--walk": walk}
    options = [option for option, value in moved.items() if value is not None]
    if walk is not None:
        go_for_a_walk(run_path, walk, count, seed, label, space, noise, device, as_json)
        return
    target = output.Target.of(out, run_path, seed)
    style = style_node(space, mix, noise, truncation, sampler)
    model = Model.load(run_path, device=pick_device(device))
    require_latents(model, run_path, options, mapped=style is not None)
    node = style or (yaml12.read(sampler, "--sampler")[0] if sampler else None)  # a name, or a part with its keys
    condition, names = conditions_from(model, given, text, tuple(model.wanted(node)))
    classes = model.num_classes
    n = len(names) if names else count or model.spec.modality.rows * (min(classes, 20) or 10)
    if names and count not in (None, n):
        raise UsageError(f"--n {count}, and {n} files are given", where="--given", hint="leave --n out")
    target.check(model.spec.modality, n)
    wish: Any = label if label is not None else [i % classes for i in range(n)] if classes else None
    data = model.sample(
        n, seed=seed, label=wish, condition=condition, truncation=None if style else truncation, sampler=node,
        batch=batch,
    )  # fmt: skip
    labels = model.labels(n, seed=seed, label=wish)
    target.write(
        data, model.spec.modality, labels=None if labels is None else labels.tolist(), class_names=model.class_names,
        names=names, columns=min(classes, 20) if classes and label is None and not names else None,
        inputs={} if condition is None else inputs_of(condition, model.spec),
    )  # fmt: skip
    if note := model.spec.modality.note(model.spec.shape) if target.form == "sheet" else "":
        say(f"note: {note}")
    if as_json:
        tell(json.dumps({"out": str(target.path), "n": n, "seed": seed, "label": label}))
    else:
        say(f"{n} sample{'s' if n > 1 else ''} in {target.path}")


# --------------------------------------------------------------------------------------------------- what is given


def conditions_from(
    model: Model, given: tuple[str, ...], text: tuple[str, ...], reads: tuple[str, ...]
) -> tuple[Condition | None, list[str] | None]:
    """(what the samples are made for, the names of the files that it was read from); `reads` can be asked for.

    Raises
    ------
    UsageError : a condition that the model does not read, files that are not there, or other numbers of files.
    """
    import torch

    from ganvas.types import Condition

    values: dict[str, torch.Tensor] = {}
    names: list[str] | None = None
    for wish in given:
        name, place = named(wish, model, reads, "--given")
        files = files_of(place)
        spec = model.spec.condition(name)
        if spec.modality is None:
            raise UsageError(f"condition {name!r} is numbers, not files", where="--given", hint="give it from Python")
        values[name] = torch.stack([spec.modality.read(file, spec.shape) for file in files])
        if names is not None and len(names) != len(files):
            raise UsageError(f"{len(files)} files for {name!r}, {len(names)} before", where="--given")
        names = [file.stem for file in files]
    for wish in text:
        name, words = named(wish, model, reads, "--text")
        spec = model.spec.condition(name)
        if spec.modality is None:
            raise UsageError(f"condition {name!r} is no text", where="--text", hint="ganvas sample --help")
        tokens, mask = spec.modality.from_text(words, spec.shape)
        values[name] = tokens[None]
        if f"{name}_mask" in model.spec.conditions:
            values[f"{name}_mask"] = mask[None]
    return (Condition(values) if values else None), names


def named(wish: str, model: Model, reads: tuple[str, ...], option: str) -> tuple[str, str]:
    """(condition, the rest) of `NAME=REST`, or of a rest alone where there is only one condition that it can be."""
    head, equals, rest = wish.partition("=")
    if equals and head in {*reads, *model.spec.conditions}:
        name = head
    else:
        texts = {key for key in reads if (m := model.spec.condition(key).modality) and m.categories}
        data = {key for key in reads if model.spec.condition(key).modality is not None} - texts
        fitting = sorted(texts if option == "--text" else data or texts)
        if equals and head.isidentifier() and not Path(wish).exists() and option == "--given":
            raise UsageError(
                f"this model does not read {head!r}; it reads {', '.join(reads) or 'nothing'}", where=option,
                hint=f"{option} {fitting[0]}={rest}" if len(fitting) == 1 else "leave it out",
            )  # fmt: skip
        if len(fitting) != 1:
            known = ", ".join(reads) or "nothing"
            raise UsageError(
                f"this model reads {known}: {wish!r} could be {' or '.join(fitting) or 'none of them'}", where=option,
                hint=f"{option} NAME={wish}" if fitting else "leave it out",
            )  # fmt: skip
        name, rest = fitting[0], wish
    if name not in reads:
        raise UsageError(f"this model does not read {name!r}", where=option, hint="leave it out")
    return name, rest


def files_of(place: str) -> list[Path]:
    """One file, or the files of a folder in the order of their names."""
    path = Path(place)
    if path.is_file():
        return [path]
    files = (
        sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
        if path.is_dir()
        else []
    )
    if not files:
        raise UsageError(f"there are no files at {place}", where="--given", hint="give a file, or a folder of files")
    return files


# --------------------------------------------------------------------------------------------------- style, walks


def require_latents(model: Model, run_path: str, options: list[str], *, mapped: bool) -> None:
    """Refuse options that move latents where the model draws none, or none of a space w if `mapped`.

    Raises
    ------
    MissingCapability : says what the model samples by, and gives a command that works.
    """
    import shlex

    from ganvas.recipe import yaml12

    if not options or (model.latents and (not mapped or "w+" in model.latents)):
        return
    command = f"ganvas sample {shlex.quote(run_path)}"
    if model.latents:
        raise MissingCapability(
            f"it needs a generator that maps its latents to a space w; this one has {', '.join(model.latents)}",
            where=", ".join(options), hint=f"{command} --truncation 0.7",
        )  # fmt: skip
    sampler = {key: value for key, value in model.recipe.get("sampler", {}).items() if value is not None}
    keys = ", ".join(f"{key}: {yaml12.write(value).strip()}" for key, value in sampler.items())
    raise MissingCapability(
        f"it moves latents, and this model has none: it is a {', '.join(model.nets)}"
        + (f", sampled by {sampler['use']!r}, whose keys take their place" if sampler else ""),
        where=", ".join(options), hint=f"{command} --sampler '{{{keys}}}'" if sampler else command,
    )  # fmt: skip


def style_node(
    space: str | None, mix: str | None, noise: Noise | None, truncation: float | None, sampler: str | None
) -> dict[str, Any] | None:
    """The sampler `style` as these options mean it; None where none of them asks for it."""
    if space is None and mix is None and noise is None:
        return None
    if sampler is not None:
        raise UsageError(
            "--sampler is given, too", where="--space, --mix, --noise", hint="give the sampler its keys instead"
        )
    if space not in (None, "w"):
        raise UsageError(f"nothing can be truncated in {space!r}", where="--space", hint="--space w")
    node: dict[str, Any] = {"use": "style", "psi": 1.0 if truncation is None else truncation, "noise": noise}
    if mix is not None:
        first, dash, last = mix.partition("-")
        if not (first.isdigit() and (last.isdigit() or not dash)):
            raise UsageError(f"{mix!r} is no range of layers", where="--mix", hint="such as 4-8, counted from 0")
        node["mix"] = [int(first), int(last or first)]
    return node


def go_for_a_walk(
    run_path: str, file: str, count: int | None, seed: int, label: str | None, space: str | None, noise: Noise | None,
    device: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write a closed walk: as many latents as `--n` says, 30 frames from each to the next, at 30 frames a second."""
    from ganvas.model import Model, walk
    from ganvas.runtime.devices import pick_device

    walk.check_place(Path(file))
    model = Model.load(run_path, device=pick_device(device))
    require_latents(model, run_path, ["--walk"], mapped=False)
    frames = walk.walk(
        model, stations=count or 6, frames=30, seed=seed, label=label, space=space, noise=noise, rows=2, columns=4
    )  # fmt: skip
    written = walk.save(frames, Path(file), fps=30)
    tell(json.dumps({"out": file, "frames": written})) if as_json else say(f"{written} frames in {file}")
