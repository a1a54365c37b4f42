"""Sets of data as metrics see them: rounded as their files are, embedded once for all metrics, kept on disk by content.

`$GANVAS_CACHE/features/<key>.safetensors` (default `~/.cache/ganvas`) holds the features of one set in one extractor.
The key is made of the set's content and of everything the extractor says of itself, so an entry never goes stale; it
may be deleted at any time. Files are written under temporary names and renamed: two processes may do the same work
twice, but never read half a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganvas import parts
from ganvas.errors import CheckpointError
from ganvas.files.files import read_tensors, write_tensors
from ganvas.model import BLOCK, Model, Rows, Wish
from ganvas.runtime import ranks
from ganvas.stats.moments import moments_of
from ganvas.types import Batch, Condition, Dataset, EvidenceSet, Extractor, Modality, StreamedDataset

BATCH = 256  # images that are sampled, or embedded, at once
EMBEDDED = frozenset({"features", "logits", "moments"})  # needs that an extractor fills

Watch = Callable[[int, int], None]  # (images done, images in all)


def unwatched(done: int, total: int) -> None:
    """Nobody looks."""


@dataclass(frozen=True)
class Source:
    """Data that can be read from the start as often as wanted, with the conditions they have or were made for."""

    count: int
    modality: Modality
    fingerprint: str | None  # of the content; None where it is not worth keeping features of it
    batches: Callable[[int, int], Iterator[Batch]]  # (i, k): batches i, i + k, i + 2k, …


def of_dataset(dataset: Dataset | StreamedDataset, limit: int | None = None) -> Source:
    """A data set in its own order, without random flips; at most `limit` of it."""
    n = min(len(dataset), limit or len(dataset))

    def batches(first: int, step: int) -> Iterator[Batch]:
        if isinstance(dataset, StreamedDataset):
            for left, batch in zip(count(n - first * BATCH, -step * BATCH), dataset.walk(BATCH, first, step)):
                if left <= 0:
                    return
                yield batch.map(lambda value, left=left: value[:left])  # type: ignore[misc]
            return
        for start in range(first * BATCH, n, step * BATCH):
            yield read(dataset, start, min(start + BATCH, n))

    return Source(n, dataset.spec.modality, f"{dataset.fingerprint} {n}", batches)


def read(dataset: Dataset, start: int, stop: int) -> Batch:
    """Data `start` to `stop` of a set; whatever it does at random, it does the same every time."""
    return dataset.batch(np.arange(start, stop), np.random.default_rng(0))


def conditions_of(model: Model, dataset: Dataset | StreamedDataset) -> Rows:
    """What samples are asked for by: the conditions of a data set in its own order, again from its start at its end."""
    reads = model.reads
    if isinstance(dataset, StreamedDataset):
        pieces = [batch.asked(reads) for batch in dataset.walk(BATCH)]
        conditions = Condition({name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]})
        return lambda start, stop: conditions.map(lambda value: value[torch.arange(start, stop) % len(dataset)])

    def rows(start: int, stop: int) -> Condition:
        numbers = np.arange(start, stop) % len(dataset)
        return dataset.batch(numbers, np.random.default_rng(0)).asked(reads)

    return rows


def of_model(
    model: Model, n: int, seed: int, asked: Wish | Rows = None, sampler: str | Mapping[str, Any] | None = None
) -> Source:
    """n samples; `asked` says what they are made for, see `Model.stream`."""
    rows = asked if callable(asked) else model.conditions(n, seed=seed, condition=asked, sampler=sampler).slices()
    size = BLOCK if model.sampler(sampler).stochastic else BATCH

    def batches(first: int, step: int) -> Iterator[Batch]:
        pieces = model.stream(n, seed=seed, condition=rows, sampler=sampler, batch=BATCH, share=(first, step))
        for i, data in enumerate(pieces):
            start = (first + i * step) * size
            yield Batch(data, rows(start, start + len(data)))

    return Source(n, model.spec.modality, None, batches)


def gather(
    source: Source,
    extractors: Mapping[str, Extractor],
    needs: Mapping[str, frozenset[str]],
    watch: Watch = unwatched,
) -> dict[str, EvidenceSet]:
    """The evidence of one set for each extractor, read and sampled at most once; only what is needed is kept.

    Processes that train together divide the batches among them, and each then has all of the evidence.

    `needs` says per extractor what is wanted of "features", "logits", "moments" and "images".

    Raises
    ------
    BadValue : an extractor takes data of other modalities.
    """
    embedding = {
        name: parts.extractor_for(extractors[name], source.modality) for name, need in needs.items() if need & EMBEDDED
    }
    evidence = {name: stored for name, net in embedding.items() if (stored := _load(source, net)) is not None}
    cpu = torch.device("cpu")
    evidence = {name: evidence[name] for name in embedding if not ranks.any_rank(name not in evidence, cpu)}
    new = {name: net for name, net in embedding.items() if name not in evidence}
    pictures = any("images" in need for need in needs.values())
    images: list[Tensor] = []
    labels: list[Tensor] = []
    embedded: dict[str, list[tuple[Tensor, Tensor | None]]] = {name: [] for name in new}
    # Labels come with kept features, so a set whose features are all there is not read again.
    if new or pictures or not evidence:
        done = 0
        for batch in source.batches(ranks.rank(), ranks.world()):
            data, label = source.modality.rounded(batch.data), batch.label
            for name, net in new.items():
                features, logits = net(source.modality.restored(data))
                embedded[name].append((features.cpu(), None if logits is None else logits.cpu()))
            if pictures:
                images.append(data.cpu())
            if label is not None:
                labels.append(label.cpu())
            done += len(data)
            watch(min(done * ranks.world(), source.count), source.count)
        images, labels = ranks.interleaved(images), ranks.interleaved(labels)
        embedded = {name: ranks.interleaved(pieces) for name, pieces in embedded.items()}
    label = torch.cat(labels) if labels else None
    for name, pieces in embedded.items():
        all_logits = [logits for _, logits in pieces if logits is not None]
        fresh = EvidenceSet(
            features=torch.cat([features for features, _ in pieces]),
            logits=torch.cat(all_logits) if all_logits else None,
            label=label,
        )
        _save(source, new[name], fresh)
        evidence[name] = fresh
    common = EvidenceSet(images=torch.cat(images) if images else None, label=label)
    return {name: _only(needs[name], evidence.get(name, common), common) for name in needs}


def _only(needs: frozenset[str], embedded: EvidenceSet, common: EvidenceSet) -> EvidenceSet:
    moments = moments_of(embedded.features) if "moments" in needs and embedded.features is not None else None
    return replace(embedded, moments=moments, images=common.images if "images" in needs else None)


def take(evidence: EvidenceSet, rows: np.ndarray) -> EvidenceSet:
    """The images at `rows` (n,) of a set, with moments of their own."""
    if evidence.features is None and evidence.moments is not None:
        return evidence  # statistics without features cannot be divided
    index = torch.from_numpy(rows)

    def pick(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[index]

    features = pick(evidence.features)
    return EvidenceSet(
        features=features,
        logits=pick(evidence.logits),
        label=pick(evidence.label),
        images=pick(evidence.images),
        moments=moments_of(features) if evidence.moments is not None and features is not None else None,
    )


def size(evidence: EvidenceSet) -> int:
    """How many images a set holds; 0 where that is not known."""
    for values in (evidence.features, evidence.images, evidence.label, evidence.logits):
        if values is not None:
            return len(values)
    return evidence.moments.count if evidence.moments is not None else 0


# --------------------------------------------------------------------------------------------------- the cache


def _file(source: Source, extractor: Extractor) -> Path:
    facts = {"set": source.fingerprint, "extractor": extractor.name, **dict(extractor.provenance)}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:40]
    root = os.environ.get("GANVAS_CACHE") or Path.home() / ".cache" / "ganvas"
    return Path(root).expanduser() / "features" / f"{key}.safetensors"


def _load(source: Source, extractor: Extractor) -> EvidenceSet | None:
    if source.fingerprint is None:
        return None
    try:
        tensors, _ = read_tensors(_file(source, extractor))
    except CheckpointError:
        return None  # never written, or damaged: it is made anew
    stored = EvidenceSet(tensors.get("features"), tensors.get("logits"), tensors.get("label"))
    return stored if stored.features is not None and len(stored.features) == source.count else None


def _save(source: Source, extractor: Extractor, fresh: EvidenceSet) -> None:
    if source.fingerprint is None:
        return
    tensors = {
        name: value
        for name, value in (("features", fresh.features), ("logits", fresh.logits), ("label", fresh.label))
        if value is not None
    }
    file = _file(source, extractor)
    with contextlib.suppress(OSError, CheckpointError):  # without a cache the next time takes longer, no more
        file.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(file, tensors, {"set": source.fingerprint, "extractor": extractor.name})
