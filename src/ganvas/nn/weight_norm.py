"""Weight normalisation that takes its first scales from data (Salimans & Kingma 2016)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganvas.runtime import ranks

_TINY = 1e-12  # below it a standard deviation is none, as with one datum or dead inputs


class WeightNorm(nn.Module):
    """w = g v / ‖v‖, a length g and a direction v for each output channel (eq. 2).

    In the first training forward, g and the bias are set so that the layer's outputs have mean 0 and variance 1 over
    that batch in each channel (eq. 5-6). That this was done is saved with the weights.
    """

    settled: Tensor

    def __init__(self, weight: Tensor, *, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.gain = nn.Parameter(self.lengths(weight.detach()))
        self.register_buffer("settled", torch.tensor(False))
        self.pending = True  # the buffer's opposite, where it can be read without waiting for the device

    def lengths(self, v: Tensor) -> Tensor:
        lengths: Tensor = v.transpose(0, self.dim).flatten(1).norm(dim=1)  # (C_out,)
        return lengths

    def forward(self, v: Tensor) -> Tensor:
        shape = [1] * v.dim()
        shape[self.dim] = -1
        return v * (self.gain / self.lengths(v)).view(shape)

    def meet(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """What is done before each of the layer's forwards: nothing, but in the first of training."""
        if self.pending and layer.training:
            self.settle(layer, inputs[0])

    # Salimans & Kingma 2016, eq. 5-6: t = v·x / ‖v‖, g ← 1 / σ[t], b ← −μ[t] / σ[t]
    @torch.no_grad()
    def settle(self, layer: nn.Module, x: Tensor) -> None:
        bias = layer.bias if isinstance(layer.bias, Tensor) else None
        self.gain.fill_(1.0)
        if bias is not None:
            bias.zero_()
        with torch.autocast(x.device.type, enabled=False):
            # past the hook that this is called from
            t: Tensor = layer.forward(x.to(self.gain.dtype))  # (N, C, ...)
        var, mean = ranks.var_mean(t.transpose(0, 1).flatten(1), (1,))  # (C, N · ...) -> (C,) each
        std = var.sqrt()
        scale = torch.where(std > _TINY, 1 / std, 1.0)
        self.gain.copy_(scale)
        if bias is not None:
            bias.copy_(-mean * scale)
        self.settled.fill_(True)
        self.pending = False

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.pending = not bool(self.settled)


# What torch.compiler.disable sets; the decorator itself would import the whole compiler, 1.5 s at every start.
WeightNorm.settle._torchdynamo_disable = True  # type: ignore[attr-defined]


def weight_norm(module: nn.Module) -> nn.Module:
    """Give `module.weight` a learnt length for each output channel, set by the first batch, and return the module.

    Embeddings are let be: what they are looked up for has no batch to be scaled by.

    Parameters
    ----------
    module : a convolution, a transposed one, or a linear layer on (N, D). Its values are the start of the directions.
        Without a bias, outputs keep their mean.
    """
    if isinstance(module, nn.Embedding):
        return module
    transposed = isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    weight = module.weight
    assert isinstance(weight, Tensor)
    norm = WeightNorm(weight, dim=1 if transposed else 0)
    # unsafe: the parametrization is known to keep shape and type, and checking would run it three times.
    parametrize.register_parametrization(module, "weight", norm, unsafe=True)
    module.register_forward_pre_hook(norm.meet)
    return module
