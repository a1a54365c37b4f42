"""Drawing from generators with a mapped space: truncation towards its mean, mixed layers, and the noise of layers."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.parts import sampler
from ganvas.types import Condition, Latent, Noise, Sampler, SpacedGenerator, Synthesizer

_LAYERS = "w+"  # the space that has a point for every layer


@sampler("style", paper="Karras et al. 2019, section 3.1 (mixing) and appendix B (truncation)")
class Style(Sampler):
    """Truncation in w, w′ = w̄ + ψ (w − w̄), perhaps of the first layers alone, and style mixing.

    Parameters
    ----------
    psi : 1 leaves w as it is, 0 gives the mean w̄ for every latent; above 1 it is exaggerated.
    cutoff : only so many of the first layers are truncated, and only with them; None: all.
    mix : first and last layer, counted from 0, that take their w from the next image's latent: coarse layers decide
        pose and shape, fine ones colour. None: no layers do.
    noise : what layers add: "random" is another one for each image and decides fine detail, "const" the same for all,
        "none" nothing. None: as the generator usually does.

    Raises
    ------
    UsageError : the generator has no mapped space, does not know its mean, has not so many layers, or adds no noise.
    """

    def __init__(
        self,
        *,
        psi: Annotated[float, Ge(0)] = 1.0,
        cutoff: Annotated[int, Ge(0)] | None = None,
        mix: tuple[Annotated[int, Ge(0)], Annotated[int, Ge(0)]] | None = None,
        noise: Noise | None = None,
    ) -> None:
        self.psi = psi
        self.cutoff = cutoff
        self.mix = mix
        self.noise = noise
        # Whole blocks, so that who is next, and which noise is whose, does not depend on the batch.
        self.stochastic = mix is not None or noise == "random"

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        network = model.generator
        if not isinstance(network, SpacedGenerator) or _LAYERS not in network.latents:
            raise UsageError(
                "the sampler 'style' needs a generator with a space w+", hint="take the sampler 'truncated'"
            )
        ws = network.to_space(start, _LAYERS, condition.label).values  # (N, L, w_dim)
        if self.psi != 1:
            ws = self.truncated(network, ws)
        if self.mix is not None:
            first, last = self.mix
            if not first <= last < ws.shape[1]:
                raise UsageError(
                    f"layers {first} to {last} are not among 0 to {ws.shape[1] - 1}", hint="give the first and the last"
                )
            # The last of a block takes from its first.
            ws = torch.cat([ws[:, :first], ws.roll(-1, 0)[:, first : last + 1], ws[:, last + 1 :]], 1)
        if self.noise is None:
            return model.synthesize(Latent(ws, _LAYERS), condition)
        if not network.noisy:
            raise UsageError("this generator's layers add no noise", hint="leave noise out")
        source = rng if self.noise == "random" else self.noise
        return network.noised(Latent(ws, _LAYERS), condition.label, noise=source).float()

    def truncated(self, network: SpacedGenerator, ws: Tensor) -> Tensor:
        centre = network.centre
        if centre is None:
            raise UsageError("this generator does not know the mean of its mapped space", hint="leave psi at 1")
        mean = network.to_space(centre, _LAYERS).values  # (1, L, w_dim)
        near = mean + self.psi * (ws - mean)
        return near if self.cutoff is None else torch.cat([near[:, : self.cutoff], ws[:, self.cutoff :]], 1)
