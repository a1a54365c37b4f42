"""Walks between latents: a model that has learnt more than a list of images changes gradually on the way."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from ganvas.parts import analysis
from ganvas.types import Evidence, Latent, Panel, Sheet


@analysis("interpolation", paper="White 2016, section 2.1 (spherical interpolation)")
class Interpolation:
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
        between = slerp if spec.prior == "normal" else torch.lerp
        labels = model.labels(self.rows, seed=evidence.seed)
        way = [
            between(ends[2 * i][None], ends[2 * i + 1][None], share.view(-1, *[1] * len(spec.shape)))
            for i in range(self.rows)
        ]
        label = None if labels is None else labels.repeat_interleave(self.columns)
        with torch.inference_mode():
            data = model.synthesize(Latent(torch.cat(way), space), label).cpu()
        images = ((data.clamp(-1, 1) + 1) * 127.5).round().byte()
        kept = " The class stays the same within a row." if labels is not None else ""
        return Panel(
            "Interpolation",
            f"Each row goes from one latent to another in {self.columns - 1} equal steps.{kept}",
            (Sheet("From latent to latent", images, self.columns),),
        )


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation of a and b (1, *shape) at t (T, 1, …) in [0, 1]: (T, *shape).

    sin((1 - t) Ω) / sin Ω a + sin(t Ω) / sin Ω b, with Ω the angle between them; lerp where they are (anti)parallel.
    """
    cosine = (a.flatten() @ b.flatten()) / (a.norm() * b.norm()).clamp_min(1e-12)
    omega = torch.acos(cosine.clamp(-1, 1))
    if torch.sin(omega) < 1e-4:
        return torch.lerp(a, b, t)
    mixed: Tensor = (torch.sin((1 - t) * omega) * a + torch.sin(t * omega) * b) / torch.sin(omega)
    return mixed
