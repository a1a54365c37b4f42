"""Samplers of masked token models: all tokens at once, in a few steps, and those alone that are wanted anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from ganvas.errors import MissingCapability, UsageError
from ganvas.nn.masking import Order, ScheduleName, flat, halton_order, masked_decode
from ganvas.parts import sampler
from ganvas.types import Condition, Latent, LatentSpec, Sampler, Synthesizer, Tokenizer, TokenModel, read_by_maker

Share = Annotated[float, Ge(0), Le(1)]


@sampler("masked-decoding", paper="Chang et al. 2022 (MaskGIT), section 3.3", tiny={"steps": 2})
class MaskedDecoding(Sampler):
    """Draws every masked token in each step and keeps the surest, until after `steps` steps none is masked.

    Where the model has a tokenizer, its tokens are decoded to data.

    Parameters
    ----------
    steps : T, the number of the transformer's calls; as many as there are tokens draw one after the other.
    schedule : γ; ⌈γ(t / T) N⌉ of N tokens are masked after step t.
    temperature : what logits are divided by; 0 takes the likeliest token.
    choice_temperature : of the Gumbel noise on the confidence, falling to 0 at the last step; the paper's is 4.5.
    guidance : w of classifier-free guidance, logits = l(nothing) + w (l(condition) − l(nothing)); 1: none. It needs a
        model that was trained with condition_dropout.
    guidance_rises : whether w goes from 1 in the first step to its value in the last one, as in the reproduction of
        Besnier and Chen 2023.
    order : which tokens are kept: the surest (`confidence`), random ones, or those that come first in a Halton sequence
        over the grid, which leaves no two near each other to be drawn in one step (Besnier et al. 2025).
    """

    stochastic = True

    def __init__(
        self,
        *,
        steps: Annotated[int, Gt(0)] = 8,
        schedule: ScheduleName = "cosine",
        temperature: Annotated[float, Ge(0)] = 1.0,
        choice_temperature: Annotated[float, Ge(0)] = 4.5,
        guidance: Annotated[float, Ge(0)] = 1.0,
        guidance_rises: bool = False,
        order: Literal["confidence", "random", "halton"] = "confidence",
    ) -> None:
        self.steps = steps
        self.schedule: ScheduleName = schedule
        self.temperature = temperature
        self.choice_temperature = choice_temperature
        self.guidance = guidance
        self.guidance_rises = guidance_rises
        self.order: Order = order

    def start(self, model: Synthesizer) -> LatentSpec | None:
        """Nothing: it begins from masks.

        Raises
        ------
        MissingCapability : the model's maker is no token model, or knows no mask.
        """
        net = model.maker
        if not isinstance(net, TokenModel) or net.vocabulary <= net.outputs:
            raise MissingCapability(
                f"this needs a network that predicts masked tokens; the model has {', '.join(model.nets)}",
                hint="ganvas list samplers",
            )
        return None

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        """Data (N, *shape), int64 where they are tokens themselves."""
        tokenizer = tokenizer_of(model)
        shape = model.spec.shape if tokenizer is None else tokenizer.token_shape
        tokens = torch.zeros(len(start), *shape, dtype=torch.int64, device=rng.device)
        filled = self.fill(model, tokens, torch.zeros_like(tokens, dtype=torch.bool), condition, rng)
        return filled if tokenizer is None else tokenizer.decode(filled)

    def fill(
        self, model: Synthesizer, tokens: Tensor, keep: Tensor, condition: Condition, rng: torch.Generator
    ) -> Tensor:
        """Tokens (N, *token_shape) of which those are drawn anew that `keep` (N, *token_shape) bool does not hold."""
        net = model.maker
        assert isinstance(net, TokenModel)
        shape = tuple(tokens.shape[1:])
        filled = masked_decode(
            lambda seen, done: self.logits(net, seen, condition, done),
            tokens.flatten(1), keep.flatten(1),
            mask=net.outputs, steps=self.steps, rng=rng, schedule=self.schedule, temperature=self.temperature,
            choice_temperature=self.choice_temperature,
            order=flat(halton_order(shape), shape) if self.order == "halton" else self.order,
        )  # fmt: skip
        return filled.reshape(tokens.shape)

    def logits(self, net: TokenModel, tokens: Tensor, condition: Condition, done: float) -> Tensor:
        """Guided logits (N, L, outputs) of masked tokens (N, L) when a share `done` of the steps lies behind."""
        asked = condition.of(net)
        if self.guidance == 1 or not asked:
            return net(tokens, **asked)
        last = 1 - 1 / self.steps  # the share that is done before the last step
        rise = done / last if self.guidance_rises and last else 1.0
        strength = 1 + (self.guidance - 1) * rise
        known, unknown = net(tokens, **asked), net(tokens, **net.without(condition).of(net))
        return unknown + strength * (known - unknown)


@sampler("masked-inpainting", paper="Chang et al. 2022 (MaskGIT), section 4.3", tiny={"steps": 2})
class MaskedInpainting(MaskedDecoding):
    """Data of which a part is drawn anew, perhaps as another class; everything else keeps its tokens.

    It reads the condition `data`. What is kept is what the tokenizer makes of it.

    Parameters
    ----------
    first, last : the part, from this share of each axis of the tokens to that one, such as [0.25, 0.25] and
        [0.75, 0.75] for the middle of an image; one number serves all axes.
    outside : draw what lies outside the part instead (outpainting).
    steps, schedule, temperature, choice_temperature, guidance, guidance_rises, order : see `masked-decoding`.

    Raises
    ------
    UsageError : another number of shares than the tokens have axes.
    """

    def __init__(
        self,
        *,
        first: tuple[Share, ...] = (0.25,),
        last: tuple[Share, ...] = (0.75,),
        outside: bool = False,
        steps: Annotated[int, Gt(0)] = 8,
        schedule: ScheduleName = "cosine",
        temperature: Annotated[float, Ge(0)] = 1.0,
        choice_temperature: Annotated[float, Ge(0)] = 4.5,
        guidance: Annotated[float, Ge(0)] = 1.0,
        guidance_rises: bool = False,
        order: Literal["confidence", "random", "halton"] = "confidence",
    ) -> None:
        super().__init__(
            steps=steps, schedule=schedule, temperature=temperature, choice_temperature=choice_temperature,
            guidance=guidance, guidance_rises=guidance_rises, order=order,
        )  # fmt: skip
        self.first, self.last, self.outside = first, last, outside

    def reads(self, model: Synthesizer) -> Mapping[str, bool]:
        """What the transformer reads, and the data of which a part is kept; see `start` for what is refused."""
        self.start(model)
        return {**read_by_maker(model), "data": True}

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        """Data (N, *shape)."""
        tokenizer = tokenizer_of(model)
        tokens = condition["data"] if tokenizer is None else tokenizer.encode(condition["data"])
        keep = self.known(tuple(tokens.shape[1:])).to(tokens.device).expand(tokens.shape)
        filled = self.fill(model, tokens, keep, condition, rng)
        return filled if tokenizer is None else tokenizer.decode(filled)

    def known(self, shape: tuple[int, ...]) -> Tensor:
        """Which tokens (*shape) are kept, bool."""
        inside = torch.ones(shape, dtype=torch.bool)
        for axis, side in enumerate(shape):
            first, last = (self.at(shares, axis, len(shape)) for shares in (self.first, self.last))
            place = (torch.arange(side) + 0.5) / side  # the middle of each token
            within = (place >= first) & (place < last)
            inside &= within.view([-1 if number == axis else 1 for number in range(len(shape))])
        return inside if self.outside else ~inside

    def at(self, shares: tuple[float, ...], axis: int, axes: int) -> float:
        if len(shares) not in (1, axes):
            raise UsageError(
                f"{len(shares)} shares for tokens with {axes} axes", where="sampler",
                hint=f"give one, or {axes}",
            )  # fmt: skip
        return shares[axis] if len(shares) > 1 else shares[0]


def tokenizer_of(model: Synthesizer) -> Tokenizer | None:
    """The network that turns data into tokens; None where the data are tokens themselves."""
    return next((net for net in model.nets.values() if isinstance(net, Tokenizer)), None)
