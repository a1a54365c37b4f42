"""Sequences drawn token by token, each from those before it."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from ganvas.errors import MissingCapability
from ganvas.parts import sampler
from ganvas.types import Condition, Latent, LatentSpec, Sampler, Synthesizer, Tokenizer, TokenModel


@sampler("autoregressive", paper="Radford et al. 2019; top-k: Fan et al. 2018; top-p: Holtzman et al. 2020")
class Autoregressive(Sampler):
    """Draws tokens one after the other in the order of the data's axes, by a token model's own probabilities.

    Where the model has a tokenizer, its tokens are decoded to data. A network that keeps keys and values computes one
    token at a time; see `TokenModel.following`. Limits apply in the order temperature, top_k, top_p.

    Parameters
    ----------
    temperature : what logits are divided by; 0 takes the likeliest token, above 1 there is more variety.
    top_k : only so many likeliest tokens can come; None: all.
    top_p : only the fewest likeliest tokens whose probabilities reach this sum can come.
    guidance : w of classifier-free guidance, logits = l(nothing known) + w (l(label) − l(nothing known)); 1: none. It
        needs a model that was trained with condition_dropout.
    """

    stochastic = True

    def __init__(
        self,
        *,
        temperature: Annotated[float, Ge(0)] = 1.0,
        top_k: Annotated[int, Gt(0)] | None = None,
        top_p: Annotated[float, Gt(0), Le(1)] = 1.0,
        guidance: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.guidance = guidance

    def start(self, model: Synthesizer) -> LatentSpec | None:
        """Nothing: it begins from the start token.

        Raises
        ------
        MissingCapability : the model's maker is no token model.
        """
        if not isinstance(model.maker, TokenModel):
            raise MissingCapability(
                f"sampler autoregressive needs a token model; the model has {', '.join(model.nets)}",
                hint="ganvas list samplers",
            )
        return None

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        """Data (N, *shape), int64 where they are tokens themselves."""
        net = model.maker
        assert isinstance(net, TokenModel)
        tokenizer = next((network for network in model.nets.values() if isinstance(network, Tokenizer)), None)
        shape = model.spec.shape if tokenizer is None else tokenizer.token_shape
        tokens = self.draw(net, len(start), math.prod(shape), condition, rng).reshape(-1, *shape)
        return tokens if tokenizer is None else tokenizer.decode(tokens)

    def draw(self, net: TokenModel, n: int, length: int, condition: Condition, rng: torch.Generator) -> Tensor:
        """n sequences (n, length) of tokens below `net.outputs`."""
        tokens = torch.full((n, 1), net.outputs, device=rng.device)  # the start of each
        past = free = None
        for _ in range(length):
            logits, past = net.following(tokens, past, **condition.of(net))  # (n, outputs)
            if self.guidance != 1:
                unknown, free = net.following(tokens, free)
                logits = unknown + self.guidance * (logits - unknown)
            tokens = torch.cat([tokens, self.pick(logits.float(), rng)], dim=1)
        return tokens[:, 1:]

    def pick(self, logits: Tensor, rng: torch.Generator) -> Tensor:
        """One token (n, 1) each of logits (n, outputs)."""
        if self.temperature == 0:
            return logits.argmax(dim=1, keepdim=True)
        return torch.multinomial(self.probabilities(logits), 1, generator=rng)

    def probabilities(self, logits: Tensor) -> Tensor:
        """What tokens are drawn by, (n, outputs) float32; those that cannot come have 0."""
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[1]:
            least = logits.topk(self.top_k, dim=1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -math.inf)
        chances = logits.softmax(dim=1)
        if self.top_p == 1:
            return chances
        falling, order = chances.sort(dim=1, descending=True, stable=True)
        enough = falling.cumsum(dim=1) - falling >= self.top_p  # those before it reach the sum already
        return torch.zeros_like(chances).scatter(1, order, falling.masked_fill(enough, 0))  # multinomial rescales
