"""How fast Ganvas's feature statistics are beside the usual ways, and how much memory they take.

    python benchmarks/metrics.py             # the sizes of the published protocols; about 15 minutes on 2 cores
    python benchmarks/metrics.py --quick     # small sizes, under a minute

Ours and the other way take turns, so that whatever else the machine does falls on both. A ratio is other / ours, as
median (smallest to largest) over the repeats, by the clock and by processor time, which other processes disturb less
(with OMP_NUM_THREADS=1; threads that wait for each other use it up, too). The usual ways are written out here, from
SciPy and scikit-learn:

- Fréchet: `np.cov` and `scipy.linalg.sqrtm` of the product of the covariances, as pytorch-fid does;
- PRDC: full matrices of `sklearn.metrics.pairwise_distances` and `np.argpartition`, as prdc does.

Peak memory is `ru_maxrss` of a process of its own, which imports, loads the features from a file and computes.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

Seconds = list[tuple[float, float]]
Pair = tuple[np.ndarray, np.ndarray]


def features(seed: int, n: int, d: int) -> np.ndarray:
    """(n, d) float32 with a falling spectrum and a common mean, like those of a network."""
    rng = np.random.default_rng(seed)
    axes = np.random.default_rng(0).normal(size=(d, d)) / d**0.5  # the same for every seed
    x = np.empty((n, d), dtype=np.float32)
    for start in range(0, n, 4096):
        block = rng.normal(size=(min(4096, n - start), d)) * np.geomspace(3, 0.01, d)
        x[start : start + 4096] = np.abs(block @ axes + 0.2 + 0.02 * seed)
    return x


# --------------------------------------------------------------------------------------------------- the usual ways


def usual_moments(x: np.ndarray) -> Pair:
    return np.mean(x, axis=0), np.cov(x, rowvar=False)


def usual_frechet(one: Pair, other: Pair) -> float:
    from scipy.linalg import sqrtm

    (m1, S1), (m2, S2) = one, other
    root = sqrtm(S1.dot(S2))
    return float(((m1 - m2) ** 2).sum() + np.trace(S1) + np.trace(S2) - 2 * np.trace(root.real))


def usual_prdc(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    from sklearn.metrics import pairwise_distances

    def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return pairwise_distances(x, y, metric="euclidean", n_jobs=8)

    def radii(x: np.ndarray) -> np.ndarray:
        whole = distances(x, x)
        nearest = np.argpartition(whole, k + 1, axis=-1)[..., : k + 1]
        return np.take_along_axis(whole, nearest, axis=-1).max(axis=-1)

    of_real, of_fake = radii(real), radii(fake)
    between = distances(real, fake)
    return {
        "precision": float((between < of_real[:, None]).any(axis=0).mean()),
        "recall": float((between < of_fake[None, :]).any(axis=1).mean()),
        "density": float((between < of_real[:, None]).sum(axis=0).mean() / k),
        "coverage": float((between.min(axis=1) < of_real).mean()),
    }


# --------------------------------------------------------------------------------------------------- measuring


def turns(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> tuple[Seconds, Seconds, Any, Any]:
    """(seconds by the clock, of the processor) of each, taking turns; and both results."""
    seconds: tuple[Seconds, Seconds] = [], []
    found = [None, None]
    for _ in range(repeats):
        for which, call in enumerate((ours, theirs)):
            clock, processor = time.perf_counter(), time.process_time()
            found[which] = call()
            seconds[which].append((time.perf_counter() - clock, time.process_time() - processor))
    return *seconds, *found


def report(name: str, goal: str, ours: Seconds, theirs: Seconds, deviation: float) -> None:
    clock, processor = ([b[i] / a[i] for a, b in zip(ours, theirs, strict=True)] for i in (0, 1))
    mine, usual = (median(each[0] for each in seconds) for seconds in (ours, theirs))
    print(
        f"{name:36s} ours {mine:7.2f} s  usual {usual:7.2f} s  ratio {spread(clock)}, processor {spread(processor)}"
        f"{goal}; results differ by {deviation:.0e}",
        flush=True,
    )


def spread(ratios: list[float]) -> str:
    return f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


def compare_frechet(n: int, d: int, repeats: int, goal: str) -> None:
    from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_moments
    from ganvas.stats.moments import moments_of

    real, fake = features(0, n, d), features(1, n, d)
    frechet_of_few(real[:9, :4], fake[:9, :4])  # loads what is needed
    a, b = moments_of(real), moments_of(fake)
    usual = (a.mean, a.covariance), (b.mean, b.covariance)
    *seconds, own, other = turns(lambda: frechet_distance_of_moments(a, b), lambda: usual_frechet(*usual), repeats)
    report(f"Fréchet from moments, D = {d}", goal, *seconds, abs(own / other - 1))
    *seconds, own, other = turns(lambda: moments_of(real), lambda: usual_moments(real), repeats)
    report(f"moments of features, {n} x {d}", "", *seconds, float(np.abs(own.covariance - other[1]).max()))
    few = real[: d // 4], fake[: d // 4]
    *seconds, own, other = turns(
        lambda: frechet_of_few(*few), lambda: usual_frechet(*(usual_moments(each) for each in few)), repeats
    )
    report(f"Fréchet from features, {d // 4} x {d}", "", *seconds, abs(own / other - 1))


def frechet_of_few(real: np.ndarray, fake: np.ndarray) -> float:
    import warnings

    from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few samples are what is measured here
        return frechet_distance_of_features(real, fake)


def compare_prdc(n: int, d: int, repeats: int, goal: str) -> None:
    from ganvas.shelves.metrics.neighbourhoods import prdc

    real, fake = features(0, n, d), features(1, n, d)
    *seconds, own, other = turns(lambda: prdc(real, fake, 5), lambda: usual_prdc(real, fake, 5), repeats)
    report(f"PRDC, {n} + {n} samples, D = {d}", goal, *seconds, max(abs(own[key] - other[key]) for key in own))


def peak_memory(what: str, n: int, d: int) -> None:
    """Print the largest resident size of a process that loads two sets of features and computes `what`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, seed in (("real", 0), ("fake", 1)):
            np.save(Path(folder, f"{name}.npy"), features(seed, n, d))
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, "--inner", what, folder], capture_output=True, text=True, check=False
        )
        took = time.perf_counter() - start
    if done.returncode:
        print(done.stderr)
        raise SystemExit(done.returncode)
    data = 2 * n * d * 4 / 2**30
    print(f"peak memory of {what}, {n} x {d}: {done.stdout.strip()} GiB, of which features {data:.2f}; {took:.0f} s")


def inner(what: str, folder: str) -> None:
    import resource

    from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features
    from ganvas.shelves.metrics.neighbourhoods import prdc, precision_recall

    real, fake = (np.load(Path(folder, f"{name}.npy")) for name in ("real", "fake"))
    {"precision and recall": precision_recall, "prdc": prdc, "Fréchet": frechet_distance_of_features}[what](real, fake)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["frechet", "prdc", "memory"])
    parser.add_argument("--inner", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner:
        return inner(*options.inner)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads, load before {load}", flush=True)
    quick = options.quick
    if options.only in (None, "frechet"):
        compare_frechet(2000 if quick else 10_000, 256 if quick else 2048, options.repeats, " goal 10")
    if options.only in (None, "prdc"):
        for d in (64,) if quick else (64, 512, 2048):
            compare_prdc(3000 if quick else 20_000, d, options.repeats, " goal 3")
    if options.only in (None, "memory"):
        peak_memory("Fréchet", *((5000, 256) if quick else (50_000, 2048)))
        peak_memory("precision and recall", *((5000, 256) if quick else (50_000, 2048)))
    return None


if __name__ == "__main__":
    main()
