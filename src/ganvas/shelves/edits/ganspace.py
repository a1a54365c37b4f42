"""GANSpace (Härkönen et al. 2020, "GANSpace: Discovering Interpretable GAN Controls", section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ganvas.errors import MissingCapability, UsageError
from ganvas.parts import edit
from ganvas.types import Edit, Evidence, Latent, Subject


@edit("ganspace", paper="Härkönen et al. 2020, eq. 1-3")
class GANSpace(Edit):
    """Moves along a principal axis of a mapped latent space: w′ = w + strength · σ_k · v_k.

    The axes are those of `samples` latents of the space; a strength of 1 is one standard deviation along the axis.

    Parameters
    ----------
    space : a space that the first one is mapped to, with points of one row (w, not w+).
    component : k, the axis; 0 varies most.
    samples : latents that the axes are found from.
    """

    def __init__(
        self, *, space: str = "w", component: Annotated[int, Ge(0)] = 0, samples: Annotated[int, Gt(1)] = 10_000
    ) -> None:
        self.space = space
        self.component = component
        self.samples = samples

    def fit(self, model: Subject, evidence: Evidence | None = None) -> Mapping[str, Tensor]:
        """`directions` (D, D), one a row, `deviations` (D,), strongest first, in the space's units.

        Raises
        ------
        MissingCapability : the model has no such space.
        """
        if self.space not in model.latents:
            raise MissingCapability(
                f"there is no latent space {self.space!r}; the model has {', '.join(model.latents) or 'none'}",
                hint="ganspace needs a generator with a mapping network, as style generators have",
            )
        values = model.draw(self.samples, seed=0, space=self.space).values.double()  # (n, D)
        if values.dim() != 2:
            raise UsageError(f"points of {self.space!r} have several rows", hint="give space: w")
        _, deviations, directions = torch.linalg.svd(values - values.mean(0), full_matrices=False)
        # The sign of an axis is arbitrary: its largest entry is made positive, so that a strength means the same again.
        largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
        directions = directions * largest.sign()
        return {"directions": directions.float(), "deviations": (deviations / (self.samples - 1) ** 0.5).float()}

    def __call__(self, model: Subject, latent: Latent, state: Mapping[str, Tensor], strength: float) -> Latent:
        """The points (N, D) of the space, moved."""
        if self.component >= len(state["directions"]):
            raise UsageError(f"there are {len(state['directions'])} components", hint="component: 0")
        step = strength * state["deviations"][self.component] * state["directions"][self.component]
        return Latent(latent.values + step.to(latent.values), latent.space)
