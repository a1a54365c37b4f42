"""Networks as inference needs them: no parametrization, nothing that a pass would work out of the weights anew."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils import parametrize

from ganvas.nn.equalized import EqualizedLinear
from ganvas.types import Foldable


def plain(net: nn.Module) -> nn.Module:
    """A copy on the CPU, in eval mode, whose weights are computed once and for all; it does the same."""
    copied: nn.Module = copy.deepcopy(net).cpu().eval()
    if isinstance(copied, Foldable):
        copied = copied.folded()
    for name, module in [*copied.named_modules()][1:]:
        if isinstance(module, Foldable):
            copied.set_submodule(name, module.folded())
    for module in copied.modules():
        if parametrize.is_parametrized(module):
            shared = module.__class__  # by the copy and its original, which has to keep its weights
            module.__class__ = type(shared.__name__, shared.__bases__, dict(shared.__dict__))
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return copied.requires_grad_(False)


def with_linears(net: nn.Module) -> nn.Module:
    """As `plain`, with torch's own linear layers in place of those that have a run-time gain."""
    copied = plain(net)
    for name, module in [*copied.named_modules()][1:]:
        if type(module) is EqualizedLinear and not module.activate:
            copied.set_submodule(name, _as_linear(module))
    return copied


def _as_linear(layer: EqualizedLinear) -> nn.Linear:
    out, in_ = layer.weight.shape
    linear = nn.Linear(in_, out, bias=layer.bias is not None, device=layer.weight.device, dtype=layer.weight.dtype)
    linear.weight = nn.Parameter(layer.weight * (layer.lr_multiplier / in_**0.5), requires_grad=False)
    if layer.bias is not None:
        linear.bias = nn.Parameter(layer.bias * layer.lr_multiplier, requires_grad=False)
    return linear
