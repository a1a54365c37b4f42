"""Batch normalisation over the batch of all ranks, whatever device they are on, with gradients of any order.

torch.nn.SyncBatchNorm works on GPUs alone, and its backward pass cannot be differentiated, which gradient penalties do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganvas.nn.norms import BatchNorm2d
from ganvas.runtime import ranks

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNorm2d)


class SyncedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What `nn.BatchNorm*d` does, with the moments of all ranks' data; one more argument is not looked at."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any shape (N, C, ...) will do."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(N, C, ...) -> (N, C, ...)."""
        if not self.training:
            return super().forward(x)
        dims = (0, *range(2, x.dim()))
        shape = (1, -1, *[1] * (x.dim() - 2))
        values = x if x.dtype == torch.float64 else x.float()
        var, mean = ranks.var_mean(values, dims)  # (C,) each
        self.follow(var.detach(), mean.detach(), ranks.world() * x.numel() // x.shape[1])
        y = (values - mean.view(shape)) * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def follow(self, var: Tensor, mean: Tensor, count: int) -> None:
        """Move the running statistics; the variance among n values is the unbiased one, as torch has it."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((var * count / max(count - 1, 1)).to(self.running_var.dtype), share)


def synchronise(net: nn.Module) -> None:
    """Make every batch norm of a network one over all ranks, in place; names and values of its state stay."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if type(child) in _KINDS:
                setattr(parent, name, _synced(child))  # type: ignore[arg-type]


def _synced(norm: nn.modules.batchnorm._BatchNorm) -> SyncedBatchNorm:
    new = SyncedBatchNorm(
        norm.num_features, norm.eps, norm.momentum, affine=norm.affine, track_running_stats=norm.track_running_stats
    ).train(norm.training)
    new._parameters, new._buffers = norm._parameters, norm._buffers
    return new
