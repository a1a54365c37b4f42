"""Walks between latents: a model that has learnt more than a list of images changes gradually on the way."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt

from ganvas.nn.paths import lerp, slerp
from ganvas.parts import analysis
from ganvas.types import Analysis, Condition, Evidence, Latent, Panel, Sheet


@analysis("interpolation", paper="White 2016, section 2.1 (spherical interpolation)")
class Interpolation(Analysis):
    """Samples on the way between pairs of latents: on the sphere for normal ones, straight for others.

    Parameters
    ----------
    rows : pairs.
    columns : samples from one latent to the other, both included.
    """

    needs = frozenset({"model"})

    def __init__(self, *, rows: Annotated[int, Gt(0)] = 6, columns: Annotated[int, Gt(1)] = 10) -> None:
        self.rows = rows
        self.columns = columns

    def __call__(self, evidence: Evidence) -> Panel | None:
        model = evidence.model
        assert model is not None
        if not model.latents:
            return None
        space, spec = next(iter(model.latents.items()))
        ends = model.draw(2 * self.rows, seed=evidence.seed).values
        share = torch.linspace(0, 1, self.columns, device=ends.device)
        between = slerp if spec.prior == "normal" else lerp
        labels = model.labels(self.rows, seed=evidence.seed)
        # Every pair at every share: (rows * columns, *shape).
        starts, stops = (half.repeat_interleave(self.columns, 0) for half in (ends[: self.rows], ends[self.rows :]))
        way = between(starts, stops, share.repeat(self.rows))
        label = None if labels is None else labels.repeat_interleave(self.columns)
        with torch.inference_mode():
            data = model.synthesize(Latent(way, space), Condition.labelled(label)).cpu()
        images = model.spec.modality.rounded(data)
        of_class = " The class stays the same within a row." if labels is not None else ""
        return Panel(
            "Interpolation",
            f"Each row goes from one latent to another in {self.columns - 1} equal steps.{of_class}",
            (Sheet("From latent to latent", images, self.columns),),
        )
