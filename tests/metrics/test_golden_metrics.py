"""Our metrics against numbers of torch-fidelity, prdc, clean-fid and dgm-eval, kept in golden cases."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ganvas.metrics.frechet_distance import frechet_distance, frechet_distance_of_features, statistics
from ganvas.metrics.kernel_distance import kernel_distance
from ganvas.metrics.neighbourhoods import density_coverage, precision_recall

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
    """Our value for every output of the case that we compute."""
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
        # The official precision and recall compare with <=, which is the same where no distances are equal.
        **dict(zip(("tf_prc.precision", "tf_prc.recall"), precision_recall(real, fake, 3), strict=True)),
    }
    kernel = kwargs.get("kid", {})
    polynomial = {
        "degree": kernel.get("degree", 3),
        "gamma": None if kernel.get("gamma") in (None, "1/d") else float(kernel["gamma"]),
        "coef0": kernel.get("coef0", 1),
    }
    smaller = min(len(real), len(fake))  # the official functions take equally many rows of both
    whole = kernel_distance(real[:smaller], fake[:smaller], **polynomial)
    values |= {"kid_full_unbiased": whole, "mmd2_unbiased": whole}
    if "in.kid_subset_indices" in tensors:
        subsets = [kernel_distance(real[i], fake[j], **polynomial) for i, j in tensors["in.kid_subset_indices"]]
        values["tf_kid.kernel_inception_distance_mean"] = np.mean(subsets)
        values["tf_kid.kernel_inception_distance_std"] = np.std(subsets)
    if "in.cleanfid_kid_choices" in tensors:
        drawn = tensors["in.cleanfid_kid_choices"]
        # Its draws alternate: a subset of the second set (fake), then one of the first.
        subsets = [kernel_distance(real[j], fake[i]) for i, j in zip(drawn[0::2], drawn[1::2], strict=True)]
        values["cleanfid_kid"] = np.mean(subsets)
    for name in tensors:
        if "prdc_k" in name and name.endswith(".precision"):
            case = name.removeprefix("out.").removesuffix(".precision")
            k = int(case.split("_k")[-1])
            values |= dict(zip((f"{case}.precision", f"{case}.recall"), precision_recall(real, fake, k), strict=True))
            values |= dict(zip((f"{case}.density", f"{case}.coverage"), density_coverage(real, fake, k), strict=True))
    return {name: value for name, value in values.items() if f"out.{name}" in tensors}


@pytest.mark.parametrize(
    "file", cases() or [None], ids=lambda file: f"{file.parent.name}/{file.stem}" if file else "none"
)
def test_official_numbers(file: Path | None) -> None:
    if file is None:
        pytest.skip("no golden cases of metrics under $GANVAS_GOLDEN or ../shared/golden")
    tensors = load_file(file)
    kwargs = json.loads(file.with_suffix(".json").read_text(encoding="utf-8")).get("kwargs", {})
    deviations = {}
    for name, value in ours(tensors, kwargs).items():
        official = tensors[f"out.{name}"]
        deviations[name] = float(np.abs(value - official).max() / max(np.abs(official).max(), 1e-12))
    for name, deviation in deviations.items():
        print(f"{file.parent.name}/{file.stem} {name}: relative deviation {deviation:.1e}")  # noqa: T201
    assert deviations
    assert max(deviations.values()) < 1e-6, deviations
