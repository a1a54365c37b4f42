"""The best and the worst samples, by how close they lie to real images."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt

from ganvas.metrics.nearest_neighbours import nearest_neighbours
from ganvas.parts import analysis
from ganvas.types import Chart, Evidence, Panel, Sheet


@analysis("extremes", paper="Kynkäänniemi et al. 2019, eq. 3 (realism)")
class Extremes:
    """The samples of highest and lowest realism: how deep they lie within the neighbourhoods of real images.

    realism(x) = max over real r of radius_k(r) / |x - r|; at least 1 inside the estimated manifold. As in the paper,
    real images whose radius is above the median do not count.

    Parameters
    ----------
    count : samples on each sheet.
    k : the neighbour whose distance is a real image's radius.
    """

    needs = frozenset({"features", "fake:images"})

    def __init__(self, *, count: Annotated[int, Gt(0)] = 20, k: Annotated[int, Gt(0)] = 3) -> None:
        self.count = count
        self.k = k

    def __call__(self, evidence: Evidence) -> Panel | None:
        real, fake, images = evidence.real.features, evidence.fake.features, evidence.fake.images
        assert real is not None and fake is not None and images is not None
        if len(real) <= self.k + 1:
            return None
        realism = realism_of(real.numpy(), fake.numpy(), self.k)
        order = np.argsort(-realism, kind="stable")
        count = min(self.count, len(order))
        columns = min(10, count)
        sheets = tuple(
            Sheet(caption, images[torch.from_numpy(np.ascontiguousarray(chosen))], columns)
            for caption, chosen in (("The most realistic samples", order[:count]), ("The least", order[::-1][:count]))
        )
        text = (
            f"Realism is {np.median(realism):.3g} in the median, {realism[order[0]]:.3g} at best and "
            f"{realism[order[-1]]:.3g} at worst; {float((realism >= 1).mean()):.0%} of the samples reach 1, which is "
            "inside the neighbourhood of some real image."
        )
        chart = Chart("Realism of samples", "histogram", {"generated": (realism,)}, "realism", "share")
        return Panel("Best and worst samples", text, sheets, (chart,))


def realism_of(real: np.ndarray, fake: np.ndarray, k: int) -> np.ndarray:
    """Realism (M,) of features `fake` (M, D) against `real` (N, D)."""
    _, own = nearest_neighbours(real, real, k, among_themselves=True)
    radius = own[:, -1]  # (N,)
    kept = radius <= np.median(radius)
    found = np.empty(len(fake))
    for start in range(0, len(fake), 256):
        piece = fake[start : start + 256]
        distance = np.sqrt(np.maximum(((piece[:, None] - real[None, kept]) ** 2).sum(-1), 1e-24))  # (m, N')
        found[start : start + len(piece)] = (radius[kept] / distance).max(axis=1)
    return found
