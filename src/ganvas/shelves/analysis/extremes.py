"""The best and the worst samples, by how close they lie to real data."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt

from ganvas.parts import analysis
from ganvas.shelves.metrics.neighbourhoods import realism
from ganvas.types import Analysis, Chart, Evidence, Panel, Sheet


@analysis("extremes", paper="Kynkäänniemi et al. 2019, eq. 3 (realism)")
class Extremes(Analysis):
    """The samples of highest and lowest realism: how deep they lie within the neighbourhoods of real data.

    realism(x) = max over real r of radius_k(r) / |x - r|; at least 1 inside the estimated manifold. As in the paper,
    real data whose radius is above the median do not count.

    Parameters
    ----------
    count : samples on each sheet.
    k : the neighbour whose distance is a real datum's radius.
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
        scores = realism(real, fake, self.k)
        order = np.argsort(-scores, kind="stable")
        count = min(self.count, len(order))
        columns = min(10, count)
        sheets = tuple(
            Sheet(caption, images[torch.from_numpy(np.ascontiguousarray(chosen))], columns)
            for caption, chosen in (("The most realistic samples", order[:count]), ("The least", order[::-1][:count]))
        )
        text = (
            f"Realism is {np.median(scores):.3g} in the median, {scores[order[0]]:.3g} at best and "
            f"{scores[order[-1]]:.3g} at worst; {float((scores >= 1).mean()):.0%} of the samples reach 1, which is "
            "inside the neighbourhood of some real datum."
        )
        chart = Chart("Realism of samples", "histogram", {"generated": (scores,)}, "realism", "share")
        return Panel("Best and worst samples", text, sheets, (chart,))
