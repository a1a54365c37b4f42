"""Our metrics against numbers of torch-fidelity, prdc, clean-fid and dgm-eval, kept in golden cases."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ganvas.shelves.metrics.authenticity import authpct
from ganvas.shelves.metrics.frechet_distance import frechet_distance, frechet_distance_of_features, statistics
from ganvas.shelves.metrics.inception_score import inception_scores
from ganvas.shelves.metrics.kernel_distance import Polynomial, kernel_distance
from ganvas.shelves.metrics.neighbourhoods import prdc, precision_recall, realism
from ganvas.shelves.metrics.vendi_score import vendi_score

# What Ganvas does not compute, and why.
LEFT_OUT = {"vendi_poly": "dgm-eval's polynomial kernel is no similarity of 1 with itself, so this is no Vendi score"}
DEFAULT = Path(__file__).parents[3] / "shared" / "golden"


def cases() -> list[Path]:
    """Every tensor file whose sidecar says that it is about metrics."""
    folders = os.environ.get("GANVAS_GOLDEN", str(DEFAULT)).split(os.pathsep)
    sidecars = sorted(file for folder in folders if folder for file in Path(folder).rglob("*.json"))
    return [
        file.with_suffix(".safetensors")
        for file in sidecars
        if file.with_suffix(".safetensors").is_file()
        and isinstance(about := json.loads(file.read_text(encoding="utf-8")), dict)
        and about.get("system") == "metrics"
    ]


def ours(tensors: dict[str, np.ndarray], kwargs: dict) -> dict[str, np.ndarray | float]:
    """Our value for every output of the case, by the output's name."""
    real, fake = tensors["in.real"], tensors["in.fake"]
    mean, cov = statistics(real)
    distance = frechet_distance_of_features(real, fake)
    of_moments = frechet_distance(mean, cov, *statistics(fake))
    values: dict[str, np.ndarray | float] = {
        "real_mu": mean,
        "real_sigma": cov,
        "tf_fid": distance,
        "cleanfid_fid": of_moments,
        "dgm_fd": distance,
        "dgm_fd_eff": of_moments,
        "authpct": authpct(real, fake),
    }
    return values | neighbours(tensors, kwargs) | kernels(tensors, kwargs) | inception(tensors, kwargs) | vendi(tensors)


def neighbours(tensors: dict[str, np.ndarray], kwargs: dict) -> dict[str, np.ndarray | float]:
    real, fake = tensors["in.real"], tensors["in.fake"]
    precision, recall = precision_recall(real, fake, kwargs.get("prc_neighborhood", 3), rim="inside")
    values: dict[str, np.ndarray | float] = {
        "tf_prc.precision": precision,
        "tf_prc.recall": recall,
        "tf_prc.f_score": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
    }
    for name in tensors:
        if match := re.fullmatch(r"out\.((?:dgm_)?prdc_k(\d+))\.precision", name):
            case, k = match[1], int(match[2])
            values |= {f"{case}.{each}": value for each, value in prdc(real, fake, k, rim="outside").items()}
            values[f"{case}.realism"] = realism(real, fake, k)
    return values


def kernels(tensors: dict[str, np.ndarray], kwargs: dict) -> dict[str, float]:
    real, fake = tensors["in.real"], tensors["in.fake"]
    wanted = kwargs.get("kid", {})
    gamma = wanted.get("gamma")
    kernel = Polynomial(
        wanted.get("degree", 3), None if gamma in (None, "1/d") else float(gamma), float(wanted.get("coef0", 1))
    )
    smaller = min(len(real), len(fake))  # the official functions take equally many rows of both
    pair = real[:smaller], fake[:smaller]
    values = {
        f"mmd2_{each}": kernel_distance(*pair, kernel, estimator=each) for each in ("unbiased", "biased", "u-statistic")
    }
    values["kid_full_unbiased"] = values["mmd2_unbiased"]
    if "in.kid_subset_indices" in tensors:
        subsets = [kernel_distance(real[i], fake[j], kernel) for i, j in tensors["in.kid_subset_indices"]]
        values["tf_kid.kernel_inception_distance_mean"] = float(np.mean(subsets))
        values["tf_kid.kernel_inception_distance_std"] = float(np.std(subsets))
    if "in.cleanfid_kid_choices" in tensors:
        drawn = tensors["in.cleanfid_kid_choices"]
        # Its draws alternate: a subset of the second set (fake), then one of the first. Its kernel is always the cubic.
        subsets = [kernel_distance(real[j], fake[i]) for i, j in zip(drawn[0::2], drawn[1::2], strict=True)]
        values["cleanfid_kid"] = float(np.mean(subsets))
    return values


def inception(tensors: dict[str, np.ndarray], kwargs: dict) -> dict[str, float]:
    logits, splits = tensors["in.logits"], kwargs.get("isc_splits", 10)
    scores = {"tf_isc": inception_scores(logits, splits=splits), "tf_isc1": inception_scores(logits, splits=1)}
    if "in.isc_perm" in tensors:
        scores["tf_isc_shuffled"] = inception_scores(logits[tensors["in.isc_perm"]], splits=splits)
    return {
        f"{case}.inception_score_{name}": float(value)
        for case, found in scores.items()
        for name, value in (("mean", found.mean()), ("std", found.std()))
    }


def vendi(tensors: dict[str, np.ndarray]) -> dict[str, float]:
    orders = [name.removeprefix("out.vendi_q") for name in tensors if name.startswith("out.vendi_q")]
    return {f"vendi_q{order}": vendi_score(tensors["in.fake"], order=float(order)) for order in orders}


@pytest.mark.parametrize(
    "file", cases() or [None], ids=lambda file: f"{file.parent.name}/{file.stem}" if file else "none"
)
def test_official_numbers(file: Path | None) -> None:
    if file is None:
        pytest.skip("no golden cases of metrics under $GANVAS_GOLDEN or ../shared/golden")
    tensors = load_file(file)
    kwargs = json.loads(file.with_suffix(".json").read_text(encoding="utf-8")).get("kwargs", {})
    found, deviations = ours(tensors, kwargs), {}
    for output in sorted(name.removeprefix("out.") for name in tensors if name.startswith("out.")):
        if output in LEFT_OUT:
            print(f"{file.parent.name}/{file.stem} {output}: left out, {LEFT_OUT[output]}")  # noqa: T201
            continue
        official = tensors[f"out.{output}"]
        difference = np.abs(np.asarray(found[output]) - official).max()  # an output that we have not is an error
        deviations[output] = float(difference / max(np.abs(official).max(), 1e-12))
        print(f"{file.parent.name}/{file.stem} {output}: relative deviation {deviations[output]:.1e}")  # noqa: T201
    assert deviations
    assert max(deviations.values()) < 1e-6, deviations
