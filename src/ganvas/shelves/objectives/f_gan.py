"""f-GAN: adversarial pairs for any f-divergence (Nowozin et al. 2016).

D_f(P‖Q) = Σ q f(p/q) ≥ E_P T − E_Q f*(T), with T = g_f(v) for a critic's output v in ℝ and g_f into the domain of f*.
At the best critic, T = f'(p/q), minus its loss is the divergence itself. P is real, Q generated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ganvas.parts import objective
from ganvas.types import Objective


class Divergence(NamedTuple):
    """g_f and f* of Nowozin et al. 2016, table 2 and 6; f* after g_f is written as one function of v."""

    activation: Callable[[Tensor], Tensor]  # g_f(v)
    conjugate: Callable[[Tensor], Tensor]  # f*(g_f(v))


DIVERGENCES = {
    # f(u) = u log u: g = v, f*(t) = exp(t − 1)
    "kl": Divergence(lambda v: v, lambda v: (v - 1).exp()),
    # f(u) = −log u: g = −exp(−v), f*(t) = −1 − log(−t)
    "reverse-kl": Divergence(lambda v: -(-v).exp(), lambda v: v - 1),
    # f(u) = (u − 1)²: g = v, f*(t) = t²/4 + t
    "pearson": Divergence(lambda v: v, lambda v: v.square() / 4 + v),
    # f(u) = −(u + 1) log((1 + u)/2) + u log u: g = log 2 − log(1 + exp(−v)), f*(t) = −log(2 − exp t)
    "js": Divergence(lambda v: math.log(2) - F.softplus(-v), lambda v: F.softplus(v) - math.log(2)),
    # f(u) = (√u − 1)²: g = 1 − exp(−v), f*(t) = t / (1 − t)
    "squared-hellinger": Divergence(lambda v: 1 - (-v).exp(), lambda v: v.exp() - 1),
}


@objective("f-gan", paper="Nowozin et al. 2016, table 2 and 6")
class FGAN(Objective):
    """The variational bound of an f-divergence: the critic raises it, the generator lowers it.

    L_D = −E g_f(D(x)) + E f*(g_f(D(G(z)))),  L_G = −E f*(g_f(D(G(z)))), or −E g_f(D(G(z))) where that saturates

    Parameters
    ----------
    divergence : which one. "js" is KL(P‖M) + KL(Q‖M) with M the mean of both, twice what is usually called so.
    generator : "minimax" minimises the bound; "non-saturating" raises g_f of fakes instead (section 3.2).
    """

    reads_real = False

    def __init__(
        self,
        *,
        divergence: Literal["kl", "reverse-kl", "pearson", "js", "squared-hellinger"] = "js",
        generator: Literal["minimax", "non-saturating"] = "minimax",
    ) -> None:
        self.activation, self.conjugate = DIVERGENCES[divergence]
        self.minimax = generator == "minimax"

    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self.conjugate(fake_logits).mean() - self.activation(real_logits).mean()

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return -(self.conjugate if self.minimax else self.activation)(fake_logits).mean()
