"""`ganvas.evaluate`: score trained models or any images, against other images or the statistics of them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np

from ganvas import parts
from ganvas.errors import CheckpointError, DataError, UsageError
from ganvas.evaluation import evidence
from ganvas.evaluation.judge import Judge, check_modality, judge_for, training_set, unflipped
from ganvas.evaluation.protocol import load_protocol
from ganvas.files.files import append_rows, read_rows
from ganvas.files.statistics import read_statistics, write_statistics
from ganvas.model import Model
from ganvas.recipe import yaml12
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import differences
from ganvas.runtime.devices import pick_device
from ganvas.stats.intervals import around
from ganvas.types import Dataset, DataSpec, Modality

Target = str | Path


def evaluate(
    *targets: Target,
    against: str | Path | None = None,
    protocol: str | Path | None = None,
    metrics: Sequence[str] = (),
    extractor: str | None = None,
    samples: int | None = None,
    size: int | None = None,
    best: bool = False,
    device: str | None = None,
    watch: evidence.Watch = evidence.unwatched,
) -> list[dict[str, Any]]:
    """Score one run, several runs of one recipe, or one set of images; a row for each value.

    Parameters
    ----------
    targets : run folders or model files; or a folder, zip, .npy or .npz of images, or a data set's name. Several runs
        must differ in their training seed alone: their rows have an interval over training seeds.
    against : images, a data set, or a file of statistics (`read_statistics`); None takes the protocol's reference, else
        what the model was trained on.
    protocol : a shipped name or a file; None takes the run's own, else that of the data's modality.
    metrics : these instead of the protocol's, by name or as `{use: NAME, KEY: VALUE}`.
    extractor : this instead of the protocol's, in the same way.
    samples : images that a model is asked for, instead of the protocol's number.
    size : images that come in files are scaled and cropped to so many pixels.
    best : take the checkpoint that scored best in training; rows say of how many it was chosen.
    device : for the model; None takes the first accelerator, else the CPU.

    Rows of a run are added to its `scores.jsonl`.

    Raises
    ------
    UsageError : no such images or run, or several targets that are not runs of one recipe.
    RecipeError : the protocol or a part has a mistake.
    DataError : images, features or statistics that cannot be compared.
    """
    if not targets:
        raise UsageError("nothing to score", hint="give a run, or a folder of images")
    models = [is_model(target) for target in targets]
    if len(targets) > 1 and not all(models):
        raise UsageError("several targets must all be runs", hint="score sets of images one at a time")
    if not all(models):
        if best:
            raise UsageError("only a run has a best checkpoint", where=str(targets[0]))
        node = node_at(targets[0], size, "ganvas eval")  # before anything else is looked for
        given = None if protocol is None else rules_of(protocol, metrics, extractor, samples)
        data = opened(node)
        rules = given or rules_of(data.spec.modality.protocol, metrics, extractor, samples)
        judge = judge_of(rules, against, None, size, watch, data.spec)
        return judge.score_images(data)
    if size is not None and against is None:
        raise UsageError("nothing here has a size to change", where="--size", hint="it is for folders of images")
    loaded = [Model.load(best_of(target)[0] if best else target, device=pick_device(device)) for target in targets]
    same_but_for_seed(targets, loaded)
    usual = (loaded[0].recipe["eval"] or {}).get("protocol") or loaded[0].spec.modality.protocol
    judge = judge_of(
        rules_of(protocol or usual, metrics, extractor, samples), against, loaded[0].recipe["data"], size, watch,
        loaded[0].spec,
    )  # fmt: skip
    scored = []
    for target, model in zip(targets, loaded, strict=True):
        chosen = best_of(target)[1] if best else "last"
        rows = [{"step": model.step, "selection": chosen, **row} for row in judge.score_model(model)]
        if Path(target).is_dir():
            rows = stored(Path(target) / "scores.jsonl", rows)
        scored.append(rows)
    return scored[0] if len(scored) == 1 else over_runs(scored, judge)


def stored(file: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, which are added to a run's file; where that cannot be written, a note on each says so."""
    try:
        append_rows(file, rows)
    except CheckpointError as error:
        unstored = f"the scores are not stored: {error.where}: {error.problem}"
        return [{**row, "notes": [*row["notes"], unstored]} for row in rows]
    return rows


def save_statistics(
    target: Target,
    file: Path,
    *,
    protocol: str | Path | None = None,
    extractor: str | None = None,
    samples: int | None = None,
    size: int | None = None,
    device: str | None = None,
    watch: evidence.Watch = evidence.unwatched,
) -> Mapping[str, Any]:
    """Write mean and covariance of a set's features to an .npz that pytorch-fid and clean-fid read, too.

    Returns what was written: count, extractor and its provenance.
    """
    if file.suffix != ".npz":
        raise UsageError(f"{file} is no .npz", where="--save-stats", hint="give a name that ends in .npz")
    if is_model(target):
        model = Model.load(target, device=pick_device(device))
        usual = (model.recipe["eval"] or {}).get("protocol") or model.spec.modality.protocol
        rules = rules_of(protocol or usual, (), extractor, samples)
        n = rules["samples"] or 10_000
        source = evidence.of_model(model, n, rules["seeds"][0], model.conditions(n, seed=0), rules["sampler"])
    else:
        data = opened(node_at(target, size, "ganvas eval"))
        rules = rules_of(protocol or data.spec.modality.protocol, (), extractor, samples)
        source = evidence.of_dataset(data, rules["samples"])
    net = parts.extractor_for(parts.build("extractor", rules["extractor"]), source.modality)
    moments = evidence.gather(source, {"": net}, {"": frozenset({"moments"})}, watch)[""].moments
    assert moments is not None
    facts = {"extractor": net.name, **dict(net.provenance)}
    write_statistics(file, moments, facts)
    return {"count": moments.count, **facts}


# --------------------------------------------------------------------------------------------------- what is meant


def rules_of(
    protocol: str | Path, metrics: Sequence[str] = (), extractor: str | None = None, samples: int | None = None
) -> dict[str, Any]:
    """A protocol with other metrics, extractor or count where they are given."""
    rules = load_protocol(protocol)
    if extractor is not None:
        rules["extractor"] = check_node("extractor", yaml12.read(extractor, "--extractor")[0])
    if metrics:
        chosen = {}
        for text in metrics:
            wish = yaml12.read(text, "--metric")[0]
            listed = rules["metrics"].get(wish) if isinstance(wish, str) else None
            node = listed or {**check_node("metric", wish), "extractor": None}
            chosen[wish if listed else node["use"]] = node
        rules["metrics"] = chosen
    if samples is not None:
        rules["samples"] = samples
    return rules


def judge_of(
    rules: Mapping[str, Any],
    against: str | Path | None,
    trained_on: Mapping[str, Any] | None,
    size: int | None,
    watch: evidence.Watch,
    scored: DataSpec,
) -> Judge:
    """A judge of these rules, against what was asked for; files are read as the data that are scored."""
    if against is None:
        return judge_for(rules, trained_on, watch)
    training = training_set(rules, trained_on)
    if is_statistics(Path(against)):
        moments, facts = read_statistics(Path(against))
        judge = Judge(rules, moments, training, reference_is=str(facts.get("sha256", Path(against).name)), watch=watch)
        for net in judge.extractors.values():
            check_same_extractor(facts, net.name, net.provenance, str(against))
        return judge
    try:
        reference = opened(node_at(against, size, "--against", scored))
    except DataError as error:
        error.problem = f"nothing to compare {scored.modality.called()} data with: {error.problem}"
        raise
    check_modality(scored, reference, rules["name"])
    return Judge(rules, reference, training, watch=watch)


def check_same_extractor(facts: Mapping[str, str], name: str, provenance: Mapping[str, str], where: str) -> None:
    """Refuse statistics that say they were made with another extractor; a file that says nothing is taken as it is."""
    now = {"extractor": name, **provenance}
    other = {key: (facts[key], now.get(key)) for key in ("extractor", "layer", "resizer") if key in facts}
    unlike = {key: pair for key, pair in other.items() if pair[0] != pair[1]}
    if unlike:
        unequal = "; ".join(f"{key} {before!r}, not {after!r}" for key, (before, after) in unlike.items())
        raise DataError(
            f"these statistics were made otherwise: {unequal}", where=where,
            hint=f"score with --extractor {facts['extractor']}" if "extractor" in unlike else "make them again",
        )  # fmt: skip


def is_model(target: Target) -> bool:
    """Whether a path means a run or a model file; a run without a model yet is no folder of images either."""
    path = Path(target)
    return path.suffix == ".safetensors" or any(
        (path / name).is_file() for name in ("model.safetensors", "resolved.yaml")
    )


def is_statistics(path: Path) -> bool:
    """Whether a file holds statistics of features rather than images."""
    if path.suffix in (".pt", ".pth"):
        return path.is_file()
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with np.load(path, allow_pickle=False) as file:
            return "mu" in file.files
    except (OSError, ValueError, BadZipFile):
        return False  # the reader of images will say what is wrong with it


def node_at(place: Target, size: int | None, where: str, like: DataSpec | None = None) -> dict[str, Any]:
    """The data set that a path, a data set's name or its recipe node means.

    Files at a path are read as such data as `like` describes; without it, as the endings of their names say.

    Raises
    ------
    UsageError : there is nothing at the path, it is a run, or its files may be of several kinds.
    RecipeError : a mistake in the recipe node.
    """
    text, path = str(place), Path(place)
    known = text in {part.name for part in parts.every("dataset")}
    if is_model(place) and not known:
        raise UsageError("it is a run, not images", where=text, hint=f"draw some: ganvas sample {text} --out FOLDER")
    node: Any
    if text.startswith("{") and not path.exists():
        node = yaml12.read(text, where)[0]
    elif known and (is_model(place) or not path.is_dir()):  # a run is often called like its data
        node = {"use": text}
    else:
        kind = kind_at(path, where) if like is None else like.modality.called()
        node = reader_of(path, kind)
        if node is None:
            files = "a folder, a zip, an .npy or .npz file" if kind == _IMAGE else "a folder of their files"
            raise UsageError(
                f"there are no {'images' if kind == _IMAGE else f'{kind} data'} at {place}", where=where,
                hint=f"give {files}, or a data set: ganvas list data",
            )  # fmt: skip
        if like is not None:
            node |= like.modality.reading(like.shape)
    if size is not None and isinstance(node, dict):
        node["size"] = size
    return check_node("dataset", node)


def opened(node: Mapping[str, Any]) -> Dataset:
    """The data set of a node, as it is scored; an error tells how to say the keys that it asks for.

    Raises
    ------
    DataError : it cannot be read.
    """
    try:
        return unflipped(node)
    except DataError as error:
        if "path" in node:
            error.hint = _DATA_KEY.sub(lambda match: _as_typed(node, *match.groups()), error.hint)
        raise


_DATA_KEY = re.compile(r"(?:set )?data\.(\w+)=([^\s,;:()]+)")  # as recipes are changed


def _as_typed(node: Mapping[str, Any], key: str, value: str) -> str:
    """What `ganvas eval` takes in the place of `data.KEY=VALUE`."""
    if key == "size":
        return f"--size {value}"
    if key == "use":
        said: dict[str, Any] = {"use": value, "path": node["path"]}
    else:
        said = {"use": node["use"], "path": node["path"], key: yaml12.resolve(value)}
    return (
        "give the images as '{"
        + ", ".join(f"{name}: {yaml12.write(entry).strip()}" for name, entry in said.items())
        + "}'"
    )


_IMAGE = "image"  # the modality that several data sets read, by the form of their files


def reader_of(path: Path, kind: str) -> dict[str, Any] | None:
    """The node of the data set that reads all of the files at a path as data of a modality; None where none does."""
    if not path.exists():
        return None
    if kind == _IMAGE:
        forms = {".zip": "zip", ".npy": "arrays", ".npz": "arrays"}
        name = "folder" if path.is_dir() else forms.get(path.suffix.lower())
        return {"use": name, "path": str(path)} if name else None
    keys = {part.name: part for part in parts.every("dataset")}[kind].fields() if kind in _kinds_in_files() else {}
    if not keys:
        return None
    return {"use": kind, "path": str(path), **({"split": "all"} if "split" in keys else {})}


def _kinds_in_files() -> dict[str, tuple[str, ...]]:
    """modality -> the endings of its files, of those that a data set of the same name reads from a path."""
    readers = {part.name: part for part in parts.every("dataset")}
    return {
        part.name: cast("type[Modality]", part.load()).suffixes
        for part in parts.every("modality")
        if part.name in readers and "path" in readers[part.name].fields()
    }


def kind_at(path: Path, where: str) -> str:
    """The modality of the files in a folder, or of one file, by the ending that most of them have; else images.

    Raises
    ------
    UsageError : the ending is that of several modalities.
    """
    files = [path] if path.is_file() else [*path.glob("*"), *path.glob("*/*")] if path.is_dir() else []
    endings = Counter(file.suffix.lower() for file in files if file.is_file() and not file.name.startswith("."))
    known = {ending: count for ending, count in endings.items() if ending != ".json"}
    usual = max(known, key=lambda ending: known[ending], default="")
    fitting = [kind for kind, suffixes in _kinds_in_files().items() if usual in suffixes]
    if len(fitting) > 1:
        raise UsageError(
            f"{usual} files may be {' or '.join(fitting)} data", where=where,
            hint=f"say which they are: '{{use: {fitting[0]}, path: {path}}}'",
        )  # fmt: skip
    return fitting[0] if fitting else _IMAGE


# --------------------------------------------------------------------------------------------------- several runs


def best_of(run: Target) -> tuple[Path, str]:
    """The model file that scored best in training, and of how many it was chosen by what.

    Raises
    ------
    UsageError : the run was not scored while it trained.
    """
    file = Path(run) / "model-best.safetensors"
    scores = read_rows(Path(run) / "scores.jsonl", "step", "metric", "protocol")
    rows = [row for row in scores if row.get("selection") is None]
    if not file.is_file() or not rows:
        raise UsageError("it has no best checkpoint", where=str(run), hint="train with eval.every set")
    steps = {row["step"] for row in rows}
    return file, f"best of {len(steps)} checkpoints by {rows[0]['metric']} of protocol {rows[0]['protocol']}"


def same_but_for_seed(targets: Sequence[Target], models: Sequence[Model]) -> None:
    """Refuse runs of unlike recipes: their mean would be a number about nothing."""
    for target, model in zip(targets[1:], models[1:], strict=True):
        unlike = differences(_plain(models[0].recipe), _plain(model.recipe))
        unlike.pop("train.seed", None)
        if unlike or model.step != models[0].step:
            unequal = ", ".join(list(unlike)[:3]) or f"step {models[0].step} and {model.step}"
            raise UsageError(
                f"it is not a run of the same recipe as {targets[0]} (other {unequal})", where=str(target),
                hint="put unlike runs into a table: ganvas bench RUN RUN",
            )  # fmt: skip


def _plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(recipe))
    return plain


def over_runs(scored: Sequence[Sequence[Mapping[str, Any]]], judge: Judge) -> list[dict[str, Any]]:
    """One row a value, its interval over training seeds."""
    limits: dict[str, tuple[float, float]] = {}
    for entry in judge.entries.values():
        limits.update({entry.names[key]: entry.metric.limits[key] for key in entry.names})
    rows = []
    for same in zip(*scored, strict=True):
        values = [float(row["value"]) for row in same]
        error = stdev(values) / math.sqrt(len(values))
        low, high = around(fmean(values), [(error, len(values) - 1)], limits[same[0]["metric"]])
        rows.append(
            {
                **same[0], "value": fmean(values), "low": low, "high": high,
                "interval": f"95 % t-interval: {len(values)} training seeds", "error_of_training": error,
                "values": values,
            }
        )  # fmt: skip
    return rows
