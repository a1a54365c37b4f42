"""Regularizers of the weights themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn

from ganvas.nn.spectral import learnt_weight, spectral_values, weight_of
from ganvas.parts import regularizer
from ganvas.types import Constraint, Gauge, Regularizer, Side, Turn


@regularizer("weight-clipping", paper="Arjovsky et al. 2017, algorithm 1", system="wgan")
class WeightClipping(Constraint):
    """Every critic parameter is clamped to [−limit, limit] after each critic update."""

    side: Side = "discriminator"

    def __init__(self, *, limit: Annotated[float, Gt(0)] = 0.01) -> None:
        self.limit = limit

    @torch.no_grad()
    def apply(self, net: nn.Module) -> None:
        parameters: list[Tensor] = list(net.parameters())
        torch._foreach_clamp_min_(parameters, -self.limit)
        torch._foreach_clamp_max_(parameters, self.limit)


@regularizer("orthogonal", paper="Brock et al. 2019, eq. 3", system="biggan")
class Orthogonal(Regularizer):
    """Filters of one layer kept at right angles: Σ ‖W Wᵀ ⊙ (1 − I)‖_F² over weight matrices.

    W is (C_out, everything else), before spectral normalisation; embeddings are left out, as published. The paper's
    weight is 1e-4.
    """

    def __init__(self, *, side: Side = "generator") -> None:
        self.side = side

    def __call__(self, turn: Turn) -> Tensor:
        total = turn.real.new_zeros(())
        for module in turn.nets[self.side].modules():
            # By what it has, not by its class: modulated and equalised layers are not torch's own.
            weight = weight_of(module)
            if weight is not None and weight.dim() > 1 and not isinstance(module, nn.Embedding):
                raw = learnt_weight(module)
                W = (raw.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else raw).flatten(1)
                gram = W @ W.t()
                total = total + gram.square().sum() - gram.diagonal().square().sum()
        return total


@regularizer("weight-decay", paper="Kurach et al. 2019, section 2.2", system="reg-norm-study")
class WeightDecay(Regularizer):
    """Squared length of all weight matrices: Σ ‖W‖_F², before spectral normalisation; gains and biases are let be."""

    def __init__(self, *, side: Side = "discriminator") -> None:
        self.side = side

    def __call__(self, turn: Turn) -> Tensor:
        squares = [parameter.square().sum() for parameter in turn.nets[self.side].parameters() if parameter.dim() > 1]
        return torch.stack(squares).sum() if squares else turn.real.new_zeros(())


@regularizer("historical-averaging", paper="Salimans et al. 2016, section 3.3", system="improved-techniques-gan")
class HistoricalAveraging(Regularizer):
    """Weights kept near the mean of all their past: ‖θ − (1/t) Σ θ_i‖²; the mean is saved for resume."""

    def __init__(self, *, side: Side = "discriminator") -> None:
        self.side = side
        self.count = 0
        self.means: list[Tensor] = []

    def __call__(self, turn: Turn) -> Tensor:
        parameters = list(turn.nets[self.side].parameters())
        if not self.means:
            self.means = [torch.zeros_like(parameter) for parameter in parameters]
        self.count += 1
        torch._foreach_lerp_(self.means, [parameter.detach() for parameter in parameters], 1 / self.count)
        return torch.stack([(p - mean).square().sum() for p, mean in zip(parameters, self.means, strict=True)]).sum()

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "means": list(self.means)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.means = state["count"], [mean.clone() for mean in state["means"]]


@regularizer("spectral-values", paper="Miyato et al. 2018, algorithm 1; Brock et al. 2019, section 4.1")
class SpectralValues(Gauge):
    """Nothing is penalised: the largest singular value of each layer goes to the log, as it is without spectral norm.

    Where it grows without bound, training is about to collapse (Brock et al. 2019, figure 3).

    Parameters
    ----------
    side : whose layers.
    of : "network" logs the largest and the mean over layers, "layers" each layer's beside them.
    iterations : power iterations a row of the log; the more, the closer from below.
    """

    def __init__(
        self,
        *,
        side: Side = "discriminator",
        of: Literal["network", "layers"] = "network",
        iterations: Annotated[int, Gt(0)] = 20,
    ) -> None:
        self.side = side
        self.of = of
        self.iterations = iterations

    def readings(self, net: nn.Module) -> Mapping[str, float]:
        values = dict(spectral_values(net, self.iterations))
        if not values:
            return {}
        overall = {"max": max(values.values()), "mean": sum(values.values()) / len(values)}
        return overall if self.of == "network" else overall | values
