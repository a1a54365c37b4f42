"""`ganvas inspect`: a close look at a run, added to its report."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ganvas import parts, report
from ganvas.errors import BadValue, DataError, UsageError
from ganvas.evaluation import evidence
from ganvas.evaluation.judge import Judge, unflipped
from ganvas.evaluation.protocol import load_protocol
from ganvas.files.files import append_rows, read_rows
from ganvas.model import Model
from ganvas.recipe.check import check_node
from ganvas.report import panels
from ganvas.runtime.devices import pick_device
from ganvas.types import Analysis, Evidence, EvidenceSet, Panel

SAMPLES = 1000  # at most, of each set but the training data
TRAINING = 20_000  # at most: enough to find a copy, few enough to embed on a laptop


def inspect(
    run: str | Path,
    *,
    protocol: str | Path | None = None,
    analyses: Sequence[str] = (),
    device: str | None = None,
    watch: evidence.Watch = evidence.unwatched,
) -> tuple[Path, list[str]]:
    """Score a run where it is not scored yet, look at it in every way there is, and write its report.

    Parameters
    ----------
    run : a run folder.
    protocol : whose reference and extractor are used; None takes the run's own, else that of the data's modality.
    analyses : only these, by name; none means all.

    Returns the report's path, and a sentence for each analysis that was left out.

    Raises
    ------
    UsageError : not a run folder.
    DataError : its data are not at hand.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise UsageError("it is not a run folder", where=str(run), hint="give the folder that ganvas train wrote")
    model = Model.load(folder, device=pick_device(device))
    rules = load_protocol(protocol or (model.recipe["eval"] or {}).get("protocol") or model.spec.modality.protocol)
    training = unflipped(model.recipe["data"])
    reference = unflipped(rules["reference"]) if rules["reference"] else training
    judge = Judge(rules, reference, training, watch=watch)
    if not any(row.get("step") == model.step for row in read_rows(folder / "scores.jsonl")):
        rows = [{"step": model.step, "selection": "last", **row} for row in judge.score_model(model)]
        append_rows(folder / "scores.jsonl", rows)
    chosen = analyses or [part.name for part in parts.every("analysis")]
    built: dict[str, Analysis] = {name: parts.build("analysis", check_node("analysis", name)) for name in chosen}
    modality = model.spec.modality
    net = parts.extractor_for(parts.build("extractor", rules["extractor"]), modality)
    needs = frozenset({"features", "images"})

    def embedded(source: evidence.Source) -> EvidenceSet:
        return evidence.gather(source, {"": net}, {"": needs}, watch)[""]

    count = min(SAMPLES, len(reference))
    asked = judge.asked(model, count)
    looked_at = Evidence(
        real=embedded(evidence.of_dataset(reference, SAMPLES)),
        fake=embedded(evidence.of_model(model, count, 0, asked, rules["sampler"])),
        training=embedded(evidence.of_dataset(training, TRAINING)),
        model=model,
        extractor=net,
    )
    sections: dict[str, Panel] = {}
    left_out: list[str] = []
    for name, analysis in built.items():
        if analysis.modalities and modality.part_name not in analysis.modalities:
            kinds = " or ".join(analysis.modalities)
            left_out.append(f"{name} is left out: it looks at {kinds} data, and these are {modality.part_name}")
            continue
        try:
            panel = analysis(looked_at)
        except (BadValue, DataError, UsageError) as error:
            left_out.append(f"{name} is left out: {error.problem}")
            continue
        if panel is not None:
            sections[name] = panel
    facts: dict[str, Any] = {
        "step": model.step, "protocol": rules["name"], "extractor": net.name, "samples": count,
        "reference": min(SAMPLES, len(reference)), "training": min(TRAINING, len(training)),
    }  # fmt: skip
    panels.write(folder, sections, copy.deepcopy(facts), modality)
    return report.write(folder, model), left_out
