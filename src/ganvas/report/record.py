"""What a run folder holds, read for people: whatever is missing or cut short is simply left out."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganvas.errors import CheckpointError, GanvasError
from ganvas.evaluation.protocol import MADE_BY, columns, load_protocol
from ganvas.files.files import model_metadata, read_rows
from ganvas.files.reading import mapping_of, text_of
from ganvas.recipe import yaml12
from ganvas.recipe.recipe import Recipe, flatten
from ganvas.report import panels
from ganvas.report.panels import Kept

if TYPE_CHECKING:
    from ganvas.model import Model
    from ganvas.types import ConditionSpec

Row = Mapping[str, Any]

_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Record:
    """A run as its folder tells it."""

    folder: Path
    name: str
    recipe_text: str
    resolved_text: str
    resolved: Mapping[str, Any]
    provenance: Mapping[str, Any]
    class_names: tuple[str, ...]
    log: Sequence[Row]
    scores: Sequence[Row]
    samples: Sequence[tuple[int, Path]]  # in the order of their steps
    step: int  # the last one that left a trace
    panels: Sequence[Kept] = ()  # what `ganvas inspect` found
    panel_facts: Mapping[str, Any] = field(default_factory=dict)

    needed: Mapping[str, ConditionSpec] = field(default_factory=dict)  # what samples cannot be made without
    columns_are_classes: bool = True  # of the sheets of samples

    @classmethod
    def read(cls, folder: Path, model: Model | None = None) -> Record:
        """Read a run folder; no weights are loaded.

        `model` is that of the run where it is at hand: it says what its samples are made of.
        """
        provenance = _json(folder / "provenance.json")
        resolved_text = _text(folder / "resolved.yaml")
        log = _rows(folder / "log.jsonl", "step")
        scores = _rows(folder / "scores.jsonl", "metric", "value")
        samples = _by_step((folder / "samples").glob("step-*.png"))
        checkpoints = _by_step((folder / "checkpoints").glob("step-*"))
        sections, facts = panels.read(folder)
        class_names: tuple[str, ...] = ()
        with contextlib.suppress(CheckpointError, KeyError, TypeError):
            class_names = tuple(str(name) for name in model_metadata(folder)["class_names"])
        return cls(
            folder=folder,
            name=str(provenance.get("recipe") or folder.resolve().name),
            recipe_text=_text(folder / "recipe.yaml"),
            resolved_text=resolved_text,
            resolved=_yaml(resolved_text),
            provenance=provenance,
            class_names=class_names,
            log=log,
            scores=scores,
            samples=samples,
            step=max([0, *(row["step"] for row in log), *(step for step, _ in [*samples, *checkpoints])]),
            panels=sections,
            panel_facts=facts,
            needed={} if model is None else needed_by(model),
            columns_are_classes=model is None or model.wanted().keys() == {"label"},
        )

    def setting(self, section: str, key: str) -> Any:
        """A setting of the resolved recipe, or None."""
        return (self.resolved.get(section) or {}).get(key)

    @property
    def steps(self) -> int | None:
        """How many steps the run was to take."""
        steps = self.setting("train", "steps")
        return steps if isinstance(steps, int) else None

    @property
    def finished(self) -> bool:
        return self.steps is not None and self.step >= self.steps and not self.diverged

    @property
    def diverged(self) -> str:
        """Why training ended, where its last step gave something that is no number; else empty."""
        return str(self.log[-1].get("diverged", "")) if self.log else ""

    @property
    def last_scores(self) -> list[Row]:
        """The score rows of the last scored step; of rows for the same number made the same way, the last."""
        scored = [row.get("step", 0) for row in self.scores]
        newest = {(how_made(row), row["metric"]): row for row in self.scores if row.get("step", 0) == max(scored)}
        return list(newest.values())

    @property
    def headline(self) -> list[Row]:
        """The last scores by the run's own protocol, else by the one that was used last."""
        rows = self.last_scores
        by_protocol = [row for row in rows if row.get("protocol") == self.setting("eval", "protocol")]
        return [row for row in rows if how_made(row) == how_made((by_protocol or rows)[-1])]

    def meanings(self, protocol: str) -> dict[str, str]:
        """What each value of a protocol's metrics says, in a sentence."""
        summaries: dict[str, str] = {}
        with contextlib.suppress(GanvasError):  # a protocol or part that is no longer at hand explains nothing
            summaries = {name: column.summary for name, column in columns(load_protocol(protocol)).items()}
        return summaries

    def changed_settings(self) -> list[tuple[str, Any, Any]]:
        """(key, value, default) of each setting that the recipe makes and that is not its default anyway.

        A default is what the recipe resolves to without the key; it is `...` where there is no recipe without it.
        """
        rows = []
        with contextlib.suppress(GanvasError, TypeError, AttributeError):
            data, _ = yaml12.read(self.recipe_text, "recipe.yaml")
            recipe = Recipe(data)
            ran = flatten(recipe.resolve())
            for key, written in flatten(data).items():
                if key in ("summary", "system"):
                    continue
                name = key.removesuffix(".use")  # without its `use:` a node makes no sense: it goes as a whole
                value, default = _resolved(ran, name, written), ...
                with contextlib.suppress(GanvasError):
                    default = _resolved(flatten(recipe.override(f"{name}=~").resolve()), name, None)
                if value != default:
                    rows.append((name, value, default))
        return rows


def needed_by(model: Model) -> dict[str, ConditionSpec]:
    """The conditions that samples must be given, by name; classes are drawn where none are."""
    wanted = model.wanted().items()
    return {name: model.spec.condition(name) for name, must in wanted if must and name != "label"}


def how_made(row: Row) -> tuple[Any, ...]:
    """Equal for scores that may be compared with each other and stand in one table."""
    return tuple(json.dumps(row.get(key)) for key in MADE_BY)


def _resolved(flat: Row, key: str, otherwise: Any) -> Any:
    """A setting by the key that a recipe may write it under: `objective: hinge` is `objective.use` when resolved."""
    return flat.get(key, flat.get(f"{key}.use", otherwise))


def _by_step(files: Any) -> list[tuple[int, Path]]:
    return sorted((int(match[1]), file) for file in files if (match := _STEP.match(file.name)))


def _text(file: Path) -> str:
    with contextlib.suppress(CheckpointError):
        return text_of(file)
    return ""


def _rows(file: Path, *keys: str) -> list[dict[str, Any]]:
    """The rows that have these keys."""
    with contextlib.suppress(CheckpointError):
        return [row for row in read_rows(file) if all(key in row for key in keys)]
    return []


def _json(file: Path) -> dict[str, Any]:
    return _mapping(lambda: mapping_of(file))


def _yaml(text: str) -> dict[str, Any]:
    return _mapping(lambda: yaml12.read(text, "")[0])


def _mapping(read: Callable[[], Any]) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError, GanvasError):
        content = read()
        return content if isinstance(content, dict) else {}
    return {}
