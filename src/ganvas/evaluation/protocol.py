"""Protocols: what is scored against what, and how sure the numbers are.

A protocol is YAML with the keys of `Protocol`. A score is a row that says how it was made; rows made unlike each other
are not to be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge

from ganvas import parts
from ganvas.errors import BadValue, RecipeError, nearest
from ganvas.files.reading import check_place, content_of
from ganvas.parts import Slot, Slots
from ganvas.recipe import yaml12
from ganvas.recipe.check import PROTOCOLS, check_section
from ganvas.recipe.schema import Positive
from ganvas.types import Metric

MADE_BY = (
    "protocol", "n_fake", "n_real", "reference", "extractor", "sha256", "layer", "resizer", "labels", "sampler",
)  # fmt: skip
"""The keys of a row that say how it was made. Rows of a metric may be compared where all of them are equal."""


@dataclass(frozen=True)
class Measure:
    """What stands beside a metric's own keys."""

    extractor: Annotated[Any, Slot("extractor")] | None = None  # None: the protocol's


@dataclass(frozen=True)
class Protocol:
    """How a score is made.

    A metric that is listed under another name than its own (`spatial: {use: frechet-distance, extractor: ...}`) gives
    its values that name.
    """

    metrics: Annotated[Mapping[str, Any], Slots("metric", Measure)]
    extractor: Annotated[Any, Slot("extractor")]
    reference: Annotated[Any, Slot("dataset")] | None = None  # None: the data that the model was trained on
    training: Annotated[Any, Slot("dataset")] | None = None  # what memorisation is judged by; None: the same
    samples: Positive | None = None  # images per sampling seed; None: as many as the reference has
    labels: Literal["reference", "uniform"] = "reference"  # which classes are asked for
    sampler: Annotated[Any, Slot("sampler")] | None = None  # truncation, batch-norm statistics; None: the recipe's
    seeds: tuple[int, ...] = (0, 1, 2)  # sampling seeds
    halves: Annotated[int, Ge(0)] = 20  # random halves that tell how sure the reference makes it; 0: not asked
    summary: str | None = None
    source: str | None = None  # where a published protocol was published
    name: str = field(default="", kw_only=True)


def load_protocol(source: str | Path) -> dict[str, Any]:
    """A protocol by its shipped name or path, checked and filled.

    Raises
    ------
    RecipeError : there is none, or it has problems.
    """
    text = str(source)
    file = Path(text) if text.endswith((".yaml", ".yml")) else PROTOCOLS / f"{text}.yaml"
    check_place(file, RecipeError)
    if not file.is_file():
        known = sorted(shipped.stem for shipped in PROTOCOLS.glob("*.yaml"))
        raise BadValue(f"there is no protocol {text!r}.{nearest(text, known)}", hint=f"there are {', '.join(known)}")
    try:
        content = content_of(file, error=RecipeError).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"cannot be read: {error}", where=text, hint="a protocol is UTF-8 text") from None
    data, marks = yaml12.read(content, text)
    filled = check_section(
        Protocol, {"name": file.stem, **data} if isinstance(data, dict) else data, marks, "a protocol"
    )
    if not filled["metrics"]:
        raise BadValue(
            "it has no metrics, and would score nothing", where=f"{text}  metrics", hint="ganvas list metrics"
        )
    return filled


class Column(NamedTuple):
    """What is known of a value before it is there."""

    lower_is_better: bool
    limits: tuple[float, float]  # what it can be
    summary: str  # the metric's own first line


def columns(protocol: Mapping[str, Any]) -> dict[str, Column]:
    """Every value that a protocol's metrics can give, by the name that its rows have."""
    known = {}
    for name, node in protocol["metrics"].items():
        metric_node, _ = parts.split(Measure, node)
        metric: Metric = parts.build("metric", metric_node)
        summary = parts.find("metric", metric_node["use"]).summary
        for key, shown in renamed(name, metric_node["use"], metric).items():
            known[shown] = Column(metric.lower_is_better[key], metric.limits[key], summary)
    return known


def renamed(name: str, part: str, metric: Metric) -> dict[str, str]:
    """What a metric's values are called in a protocol: as the metric says, unless it is listed under another name."""
    keys = list(metric.lower_is_better)
    if name == part:
        return {key: key for key in keys}
    shown = name.replace("-", "_")
    return {key: shown if len(keys) == 1 else f"{shown}_{key}" for key in keys}
