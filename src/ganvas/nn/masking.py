"""Masked tokens: how many are masked, which ones, and how they are filled in again (Chang et al. 2022, MaskGIT).

A mask schedule γ falls from γ(0) = 1 to γ(1) = 0. In training, a share γ(r) of a datum's tokens is masked, r ~ U(0, 1);
in decoding, a share γ(t / T) is still masked after step t of T.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

ScheduleName = Literal["cosine", "arccos", "linear", "square", "cubic", "root", "exponential", "logarithmic"]
Order = Literal["confidence", "random", "halton"]
Predict = Callable[[Tensor, float], Tensor]
"""(tokens (N, L), share of the steps done) -> logits (N, L, K) of the K tokens that can stand there."""

SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)


# Chang et al. 2022, section 3.3 and appendix; `arccos` from Besnier and Chen 2023
def masked_share(schedule: ScheduleName, r: Tensor, length: int = 256) -> Tensor:
    """γ(r) in [0, 1], of the shape of r in [0, 1].

    Parameters
    ----------
    schedule : its name. The paper's concave ones are cosine, square and cubic, its convex ones root, exponential and
        logarithmic.
    length : how many tokens there are, which `exponential` and `logarithmic` depend on: their ends are cut to 0 and 1.
    """
    if schedule == "cosine":
        share = torch.cos(r * (math.pi / 2))
    elif schedule == "arccos":
        share = torch.arccos(r) / (math.pi / 2)
    elif schedule == "linear":
        share = 1 - r
    elif schedule == "square":
        share = 1 - r**2
    elif schedule == "cubic":
        share = 1 - r**3
    elif schedule == "root":
        share = 1 - r**0.5
    elif schedule == "exponential":  # 1 - N^(r - 1), from 1 - 1/N to 0
        share = torch.where(r > 0, 1 - float(max(2, length)) ** (r - 1), 1.0)
    else:  # -log_N r, from infinity to 0
        share = -torch.log2(r.clamp_min(1e-12)) / math.log2(max(2, length))
    # cos(π / 2) is not 0 in floating point
    return torch.where(r >= 1, torch.zeros_like(share), share.clamp(0, 1))


def masks_of_shares(share: Tensor, length: int) -> Tensor:
    """(N, length) bool: ⌈share · length⌉ positions of each datum, at least one, drawn without replacement.

    `share` is (N,); the draw comes from torch's global generator.
    """
    count = (share * length).ceil().clamp(1, length)  # (N,)
    rank = torch.rand(len(share), length, device=share.device).argsort(dim=1).argsort(dim=1)
    return rank < count[:, None]


def independent_masks(share: Tensor, noise: Tensor) -> Tensor:
    """Each token is masked by itself with probability `share` (N,): where its own noise in [0, 1) lies below.

    `noise` is (N, ...), and so is the answer, bool. Besnier and Chen 2023.
    """
    return noise < share.view(-1, *[1] * (noise.dim() - 1))


def still_masked(unknown: int, steps: int, schedule: ScheduleName) -> list[int]:
    """How many of `unknown` tokens are masked after each step, ⌈γ(t / T) · unknown⌉ where that falls strictly.

    Every step fills at least one token, and leaves one for each step that is to come, until none is left; of more steps
    than tokens, the last ones have nothing to do.
    """
    counts, before = [], unknown
    for t in range(1, steps + 1):
        gamma = float(masked_share(schedule, torch.tensor(t / steps, dtype=torch.float64), unknown))
        scheduled = math.ceil(gamma * unknown - 1e-9)
        before = max(0, min(max(scheduled, steps - t), before - 1))
        counts.append(before)
    return counts


# Halton 1964: digits of the number in this base, mirrored at the point
def halton(number: int, base: int) -> tuple[int, int]:
    """The term of a Halton sequence in [0, 1) as a fraction (numerator, denominator), exact."""
    numerator, denominator = 0, 1
    while number:
        number, digit = divmod(number, base)
        numerator, denominator = numerator * base + digit, denominator * base
    return numerator, denominator


# Besnier et al. 2025, "Halton scheduler for masked generative image transformer", section 4
def halton_order(shape: tuple[int, ...]) -> Tensor:
    """Places of a grid in an order that covers it evenly at any time: (number of places, axes) int64, each place once.

    The i-th point of the Halton sequence, of base 2 along the first axis, 3 along the second, 5 along the third, falls
    into a place; places that were there before are passed over.
    """
    bases = (2, 3, 5, 7)[: len(shape)]
    places: dict[tuple[int, ...], None] = {}
    number = 0
    while len(places) < math.prod(shape):
        number += 1
        points = (halton(number, base) for base in bases)
        places[tuple(n * side // d for (n, d), side in zip(points, shape, strict=True))] = None
    return torch.tensor(list(places))


def flat(places: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Places (M, axes) of a grid as numbers (M,) of its flattened tokens."""
    number = torch.zeros(len(places), dtype=torch.int64)
    for axis, side in enumerate(shape):
        number = number * side + places[:, axis]
    return number


def gumbel(shape: torch.Size, rng: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise."""
    uniform = torch.rand(shape, generator=rng, device=device).clamp(1e-20, 1 - 1e-7)
    return -torch.log(-torch.log(uniform))


# Chang et al. 2022, section 3.3, steps 1 to 4
def masked_decode(
    predict: Predict,
    tokens: Tensor,
    keep: Tensor,
    *,
    mask: int,
    steps: int,
    rng: torch.Generator,
    schedule: ScheduleName = "cosine",
    temperature: float = 1.0,
    choice_temperature: float = 4.5,
    order: Order | Tensor = "confidence",
    watch: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Tokens (N, L) int64 with everything filled in that is not kept: generation, inpainting, outpainting.

    In each step every masked token is drawn from its softmax, and the best are kept for good; after step t of T there
    are ⌈γ(t / T) · M⌉ of the M unknown ones left, see `still_masked`. With T = M this is an autoregressive sampler in
    any order.

    Parameters
    ----------
    tokens : (N, L) int64; only those that are kept are looked at, and they are never altered.
    keep : (N, L) bool, which tokens are known; none in generation.
    mask : the token that stands for an unknown one.
    steps : T, as many calls of `predict` at most.
    temperature : divides the logits that tokens are drawn from; 0 takes the likeliest.
    choice_temperature : τ of the confidence ln p + τ (1 − t / T) g, g Gumbel noise, in the order `confidence`.
    order : `confidence`; `random`; or numbers (L,) of tokens from the first to the last to be filled, such as those of
        `halton_order`.
    watch : is handed which tokens are masked, (N, L) bool, after each step.
    """
    known = keep.clone()
    tokens = torch.where(known, tokens, mask)
    unknown = (~keep).sum(1)  # (N,)
    plans = {int(m): still_masked(int(m), steps, schedule) for m in set(unknown.tolist())}
    left = torch.tensor([plans[int(m)] for m in unknown], device=tokens.device).reshape(len(tokens), steps)  # (N, T)
    if isinstance(order, Tensor):
        rank = torch.empty(len(order), device=tokens.device)
        rank[order.to(tokens.device)] = torch.arange(len(order), 0, -1, device=tokens.device, dtype=rank.dtype)
    for t in range(steps):
        if bool(known.all()):
            break
        logits = predict(tokens, t / steps).float()  # (N, L, K)
        if temperature:
            logits = logits / temperature
            drawn = (logits + gumbel(logits.shape, rng, logits.device)).argmax(-1)  # (N, L)
        else:
            drawn = logits.argmax(-1)
        if isinstance(order, Tensor):
            score = rank.expand(tokens.shape)
        elif order == "random":
            score = torch.rand(tokens.shape, generator=rng, device=tokens.device)
        else:
            score = logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
            score = score + choice_temperature * (1 - (t + 1) / steps) * gumbel(score.shape, rng, score.device)
        score = score.masked_fill(known, math.inf)
        place = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # 0: the surest
        fixed = place < tokens.shape[1] - left[:, t, None]
        tokens = torch.where(fixed & ~known, drawn, tokens)
        known = known | fixed
        if watch is not None:
            watch(~known)
    return tokens
