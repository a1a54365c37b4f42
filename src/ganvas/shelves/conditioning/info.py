"""InfoGAN: the critic recovers codes that the generator was given (Chen et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn.codes import codes_of
from ganvas.parts import conditioning
from ganvas.shelves.conditioning.head import LinearHead
from ganvas.types import DataSpec, Generator, Objective, Scores, Turn


# −log N(c; μ, σ²), summed over codes: the continuous part of −L_I
def normal_negative_log_likelihood(c: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """E −log N(c | mean, variance) of (N, codes) each, summed over the codes."""
    return 0.5 * ((2 * math.pi * variance).log() + (c - mean).square() / variance).sum(1).mean()


@conditioning("info", paper="Chen et al. 2016")
class InfoHead(LinearHead):
    """InfoGAN: an unconditional logit, and Q, which recovers from an image the codes in the tail of its latent.

    The last entries of the latent are the codes, whatever the generator (see `ganvas.nn.codes`): first the discrete,
    then the continuous ones. A generator with `codes` of its own reads them as categories and values, and they must be
    the same ones; any other takes these entries as part of its noise. Both players minimise −L_I, the bound on their
    mutual information with the image; Q shares the critic's body and learns in its update.

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`.
    discrete : number of categories of each discrete code.
    continuous : number of continuous codes, uniform in (-1, 1).
    weight : λ of the discrete codes.
    continuous_weight : λ of the continuous codes, whose likelihoods are on another scale.

    Raises
    ------
    BadValue : there are no codes.
    """

    pairing = "optional"

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        discrete: tuple[Annotated[int, Gt(1)], ...] = (10,),
        continuous: Annotated[int, Ge(0)] = 2,
        weight: Annotated[float, Ge(0)] = 1.0,
        continuous_weight: Annotated[float, Ge(0)] = 0.1,
    ) -> None:
        if not discrete and not continuous:
            raise BadValue("InfoGAN without codes is a plain critic", key="conditioning", hint="conditioning=plain")
        super().__init__(features, spec, wrap, bias)
        self.discrete, self.continuous = tuple(discrete), continuous
        self.weight, self.continuous_weight = weight, continuous_weight
        if discrete:
            self.categories = wrap(nn.Linear(features, sum(discrete), bias=False))
        if continuous:
            self.mean = wrap(nn.Linear(features, continuous, bias=False))
            self.log_variance = wrap(nn.Linear(features, continuous, bias=False))

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) -> logits (N,); extra "code_logits" (N, sum(discrete)), "code_mean" and "code_log_variance" (N, c)."""
        extra = {}
        if self.discrete:
            extra["code_logits"] = self.categories(features)
        if self.continuous:
            extra |= {"code_mean": self.mean(features), "code_log_variance": self.log_variance(features)}
        return Scores(self.logit(features, label), features, extra)

    def compare(self, generator: Generator) -> None:
        """Refuse a generator that reads other codes from the latent.

        Raises
        ------
        BadValue : it does.
        """
        codes = generator.codes
        if codes and (tuple(codes.discrete), codes.continuous) != (self.discrete, self.continuous):
            raise BadValue(
                f"the generator reads codes {list(codes.discrete)} and {codes.continuous} continuous ones from its"
                f" latent, the critic asks for {list(self.discrete)} and {self.continuous}",
                where="networks.discriminator.conditioning",
                hint=f"networks.generator.codes={{discrete: {list(self.discrete)}, continuous: {self.continuous}}}",
            )

    # Chen et al. 2016: −L_I(G, Q) = E −log Q(c | G(z, c)), up to the constant H(c)
    def recovery(self, turn: Turn) -> dict[str, Tensor]:
        """ "discrete_codes" and "continuous_codes", as far as there are any."""
        generator = cast("Generator", turn.nets["generator"])
        self.compare(generator)
        prior = generator.latents[turn.latent.space].prior
        c, values = codes_of(turn.latent.values, self.discrete, self.continuous, prior)
        extra, terms = turn.fake_scores.extra, {}
        if self.discrete:
            codes = zip(torch.split(extra["code_logits"], list(self.discrete), 1), c.unbind(1), strict=True)
            loss = torch.stack([F.cross_entropy(logits, target) for logits, target in codes]).sum()
            terms["discrete_codes"] = self.weight * loss
        if self.continuous:
            variance = extra["code_log_variance"].exp()
            loss = normal_negative_log_likelihood(values, extra["code_mean"], variance)
            terms["continuous_codes"] = self.continuous_weight * loss
        return terms

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """What Q gets wrong of generated data."""
        return self.recovery(turn)

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """What the generator did not make recoverable."""
        return self.recovery(turn)
