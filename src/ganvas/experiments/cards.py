"""What networks cost and what they are worth, side by side: `ganvas profile`.

A row a network: parameters, bytes, MACs, memory, latency, throughput, the scores that it has, and for a classifier its
accuracy, how that bears corruptions, and its worst class. Rows that no other one beats in all chosen columns are marked
(Patro & Agneeswaran 2023, Efficiency 360). Variants with fewer bits or weights stand beside their network, with how
alike their outputs are.
"""

from __future__ import annotations

import json
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.utils._python_dispatch import TorchDispatchMode

from ganvas import parts
from ganvas.cost.clock import times
from ganvas.cost.flops import FLOPS_PER_MAC, bytes_of, flops, parameter_count
from ganvas.engine.build import build_networks
from ganvas.errors import MissingCapability, UsageError, nearest
from ganvas.evaluation import evidence
from ganvas.evaluation.evaluate import is_model, node_at
from ganvas.experiments import tables
from ganvas.experiments.search.pareto import on_pareto_front
from ganvas.files.files import write_bytes
from ganvas.model import Model
from ganvas.nn.corruptions import corrupted
from ganvas.nn.variants import VARIANTS, zeros
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.report import simple_page
from ganvas.report.charts import number
from ganvas.report.markup import table, tag
from ganvas.training.check import data_or_stand_in
from ganvas.training.forecast import amount
from ganvas.types import DataSpec, Network

CALLS = 20  # of a single datum, whose median and 95th percentile are told
BATCH = 16  # of the throughput, and of the outputs that are compared
_CPU = torch.device("cpu")

COLUMNS: Mapping[str, bool] = {
    "parameters": True, "bytes": True, "macs": True, "memory": True, "p50": True, "p95": True, "throughput": False,
    "likeness": False, "accuracy": False, "corrupted": False, "gap": False,
}  # fmt: skip
"""Columns that any row may have, and whether lower is better; scores of runs come on top."""

Call = Callable[[int], Tensor]
"""Runs a network on so many data, always the same."""


@dataclass(frozen=True)
class Card:
    """A row. What a network does not have is absent from `values`; `lower` says which way a score is better."""

    name: str
    values: Mapping[str, float]
    lower: Mapping[str, bool] = field(default_factory=dict)
    best: bool = False  # on the Pareto front of the chosen columns


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, follows the memory of what operators return; `peak` is the most at one time, in bytes.

    The memory between layers that inference takes. What an operator needs while it runs comes on top, and weights and
    inputs, which are there anyway, do not count.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._holders: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs or {}))}
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            place, size = storage.data_ptr(), storage.nbytes()
            if place in before and place not in self._holders:
                continue  # a view of what was there before
            self._holders[place] += 1
            if self._holders[place] == 1:
                self.now += size
                self.peak = max(self.peak, self.now)
            weakref.finalize(tensor, self._let_go, place, size)
        return out

    def _let_go(self, place: int, size: int) -> None:
        self._holders[place] -= 1
        if not self._holders[place]:
            del self._holders[place]
            self.now -= size


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (tuple, list)) else ()
    return [tensor for child in children for tensor in _tensors(child)]


# --------------------------------------------------------------------------------------------------- one row


@torch.no_grad()
def measure(name: str, net: nn.Module, call: Call) -> Card:
    """What a network costs on the CPU: MACs, memory and latency of one datum, throughput of `BATCH` of them."""
    with LiveMemory() as live:
        call(1)
    alone = times(lambda: call(1), repeats=CALLS, warm_up=2, device=_CPU)
    together = times(lambda: call(BATCH), repeats=3, device=_CPU)
    state = [*net.parameters(), *net.buffers()]
    return Card(
        name,
        {
            "parameters": float(parameter_count(net)), "bytes": float(bytes_of(state)),
            "zeros": zeros(net), "macs": flops(lambda: call(1)) / FLOPS_PER_MAC, "memory": float(live.peak),
            "p50": alone.clock_median, "p95": alone.clock_p95, "throughput": BATCH / together.clock_median,
        },
    )  # fmt: skip


def with_variants(name: str, net: nn.Module, calling: Callable[[nn.Module], Call]) -> list[Card]:
    """A network and its variants, each with the mean cosine between its outputs and the network's."""
    with torch.no_grad():
        reference = calling(net)(BATCH).flatten(1)
        cards = [measure(name, net, calling(net))]
        cards[0] = replace(cards[0], values={**cards[0].values, "likeness": 1.0})
        for kind, make in VARIANTS.items():
            try:
                variant = make(net)
            except MissingCapability:  # nothing that this variant could act on
                continue
            card = measure(f"{name}, {kind}", variant, calling(variant))
            likeness = float(cosine_similarity(calling(variant)(BATCH).flatten(1), reference).mean())
            cards.append(replace(card, values={**card.values, "likeness": likeness}))
    return cards


def of_classifier(logits: Callable[[Tensor], Tensor], images: Tensor, label: Tensor) -> dict[str, float]:
    """Accuracy, its mean over corruptions and severities, and the worst class's minus the mean over classes.

    Parameters
    ----------
    logits : images (N, C, H, W) in [-1, 1] -> (N, K).
    label : (N,), classes of the same numbering.
    """

    def right(data: Tensor) -> Tensor:
        return (logits(data).argmax(1) == label).double()  # (N,)

    clean = right(images)
    by_class = [float(clean[label == k].mean()) for k in sorted({*label.tolist()})]
    kinds: dict[str, list[float]] = {}
    for kind, _, data in corrupted(images):
        kinds.setdefault(kind, []).append(float(right(data).mean()))
    by_kind = {kind: fmean(shares) for kind, shares in kinds.items()}
    return {
        "accuracy": float(clean.mean()), "corrupted": fmean(by_kind.values()),
        "gap": min(by_class) - fmean(by_class), **{f"under {kind}": value for kind, value in by_kind.items()},
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------- targets


def cards_of(
    target: str, *, role: str = "generator", variants: bool = False, data: str | None = None, size: int | None = None
) -> list[Card]:
    """The rows of a run, of a recipe's untrained network, or of an extractor that classifies.

    Parameters
    ----------
    role : which network of a run or recipe.
    variants : with fewer bits, weights, heads and ranks, too.
    data : labelled images, or the name of a data set, that a classifier is tried on.
    size : pixels that images in files are scaled to.

    Raises
    ------
    UsageError : there is no such network.
    """
    if is_model(target):
        model = Model.load(target)
        cards = _of_network(target, model.nets, role, model.spec, variants)
        rows = tables.newest(Path(target)) if Path(target).is_dir() else {}
        scores = {name: float(row["value"]) for name, row in rows.items()}
        lower = {name: bool(row["lower_is_better"]) for name, row in rows.items()}
        return [replace(cards[0], values={**cards[0].values, **scores}, lower=lower), *cards[1:]]
    if target in {part.name for part in parts.every("extractor")} or target.startswith("{"):
        return _of_extractor(target, data, size)
    resolved = Recipe.load(target).resolve()
    spec = data_or_stand_in(resolved, lambda text: None).spec
    nets, _ = build_networks(resolved, spec, pretrained=True)
    return _of_network(target, nets, role, spec, variants)


def _of_network(name: str, nets: Mapping[str, Network], role: str, spec: DataSpec, variants: bool) -> list[Card]:
    if role not in nets:
        raise UsageError(
            f"it has no network {role!r}.{nearest(role, nets)}", where=name, hint=f"--net {next(iter(nets))}"
        )
    net = nets[role].cpu().eval().requires_grad_(False)
    example = net.example(spec, BATCH, torch.Generator().manual_seed(0))

    def calling(candidate: nn.Module) -> Call:
        def call(n: int) -> Tensor:
            torch.manual_seed(0)  # noise of style generators
            out = candidate(*(argument[:n] for argument in example.given), **example.condition.rows(slice(n)))
            values: Tensor = out if isinstance(out, Tensor) else out.logits.reshape(n, -1)
            return values

        return call

    return with_variants(name, net, calling) if variants else [measure(name, net, calling(net))]


def _of_extractor(target: str, data: str | None, size: int | None) -> list[Card]:
    from ganvas.recipe import yaml12

    extractor = parts.build("extractor", check_node("extractor", yaml12.read(target, "ganvas profile")[0]))
    net = next((module for module in vars(extractor).values() if isinstance(module, nn.Module)), None)
    if net is None:
        raise UsageError("it has no network to measure", where=target, hint="ganvas list extractors")
    dataset = parts.build("dataset", node_at(data or "digits", size, "--data"))
    source = evidence.of_dataset(dataset, BATCH)
    images = torch.cat([batch.data for batch in source.batches(0, 1)])
    if len(images) < BATCH:
        raise UsageError(f"{len(images)} images are too few", where="--data", hint=f"give at least {BATCH}")
    card = measure(target, net, lambda n: extractor(images[:n])[0])
    if data is None or not extractor.classes:
        return [card]
    pieces = list(evidence.of_dataset(dataset).batches(0, 1))
    labels = [batch.label for batch in pieces if batch.label is not None]
    if not labels:
        raise UsageError("these images have no classes", where="--data", hint="give a labelled set")
    worth = of_classifier(
        lambda pictures: extractor(pictures)[1], torch.cat([batch.data for batch in pieces]), torch.cat(labels)
    )
    return [replace(card, values={**card.values, **worth})]


# --------------------------------------------------------------------------------------------------- the report


def marked(cards: Sequence[Card], columns: Sequence[str]) -> list[Card]:
    """The rows, those that no other one beats in these columns marked as `best`.

    Raises
    ------
    UsageError : a row has no such column.
    """
    lower = {**COLUMNS, **{name: is_lower for card in cards for name, is_lower in card.lower.items()}}
    for name in columns:
        lacking = [card.name for card in cards if name not in card.values]
        if name not in lower or lacking:
            known = [column for column in lower if all(column in card.values for card in cards)]
            raise UsageError(
                f"not every row has a column {name!r}.{nearest(name, known)}", where="--by",
                hint=f"all have {', '.join(known)}",
            )  # fmt: skip
    points = np.array([[card.values[name] * (1 if lower[name] else -1) for name in columns] for card in cards])
    return [replace(card, best=bool(best)) for card, best in zip(cards, on_pareto_front(points), strict=True)]


def usual_columns(cards: Sequence[Card]) -> list[str]:
    """Bytes, MACs and latency, with what the rows are worth: likeness, accuracy, or the first score that all have."""
    scores = [name for name in cards[0].lower if all(name in card.values for card in cards)]
    worth = [name for name in ("likeness", "accuracy") if all(name in card.values for card in cards)]
    return ["bytes", "macs", "p50", *worth, *scores[:1]]


_SHOWN: Mapping[str, Callable[[float], str]] = {
    "parameters": lambda v: amount(v).strip(), "bytes": lambda v: f"{v / 2**20:.3g} MiB", "zeros": lambda v: f"{v:.1%}",
    "macs": lambda v: amount(v).strip(), "memory": lambda v: f"{v / 2**20:.3g} MiB",
    "p50": lambda v: f"{1000 * v:.3g} ms", "p95": lambda v: f"{1000 * v:.3g} ms", "throughput": lambda v: f"{v:.3g}/s",
    "likeness": lambda v: f"{v:.4f}",
}  # fmt: skip


def _rows(cards: Sequence[Card]) -> tuple[list[str], list[list[str]]]:
    names = list(dict.fromkeys(name for card in cards for name in card.values))
    head = ["network", *names, "Pareto"]
    rows = [
        [card.name, *(_SHOWN.get(name, number)(card.values[name]) if name in card.values else "–" for name in names),
         "yes" if card.best else ""]
        for card in cards
    ]  # fmt: skip
    return head, rows


def text(cards: Sequence[Card], columns: Sequence[str]) -> str:
    """What `ganvas profile` prints."""
    return f"{tables.plain_markdown(*_rows(cards))}\n\n{_note(columns)}"


def _note(columns: Sequence[str]) -> str:
    threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    return (
        f"Latency is of one datum, median and 95th percentile of {CALLS} calls, throughput of {BATCH} at a time, on "
        f"the CPU with {threads}. Pareto: no other row is better in {', '.join(columns)}."
    )


def as_data(cards: Sequence[Card], columns: Sequence[str]) -> dict[str, Any]:
    """All of it as plain data, seconds and bytes."""
    return {
        "columns": list(columns), "threads": torch.get_num_threads(),
        "networks": [{"name": card.name, **card.values, "pareto": card.best} for card in cards],
    }  # fmt: skip


def write(cards: Sequence[Card], columns: Sequence[str], out: Path) -> dict[str, Path]:
    """`profile.json` and `profile.html`.

    Raises
    ------
    CheckpointError : the disk is full or the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    head, rows = _rows(cards)
    pieces = [table(head, rows, class_="scores"), tag("p", _note(columns), class_="note")]
    files = {kind: out / f"profile.{kind}" for kind in ("json", "html")}
    write_bytes(files["json"], json.dumps(as_data(cards, columns), indent=1).encode())
    write_bytes(files["html"], simple_page("Profile", "What networks cost and what they are worth", pieces).encode())
    return files
