"""Modulated convolution: a style scales the input channels, and demodulation takes its effect on the variance out.

Karras et al. 2020 (StyleGAN2), section 2.2. There are two ways to compute it, equal but for rounding:

- fused, as in the paper: one kernel a sample, and the batch as groups of one convolution;
- scaled: the activations are multiplied by the style, convolved with the one kernel that all share, and multiplied by
  the demodulation, which is a matrix product of squares. No kernel of a single sample ever exists, which also keeps the
  graphs of gradients of gradients small.

Which form is quicker is a constant of the device, see `FUSED_BELOW`, and not timed while it runs: a choice that could
turn out otherwise would break bit-exact resume. `python benchmarks/networks.py --forms` measures both anew.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ganvas.nn.fir import conv2d_resample

Form = Literal["fused", "scaled"]

EPS = 1e-8


# Device -> the fused form is taken, where no gradient is asked for, if a sample's kernels have fewer than so many times
# the numbers of its maps.
#
# cpu: never. One thread, fused over scaled in processor time, forward, with gradient, and with the gradient of a
#   gradient (`benchmarks/networks.py --forms`): 512 channels at 4 pixels 9.4, 9.1 and 10; 256 at 16 pixels 2.0, 1.8 and
#   1.7; 128 at 32 pixels 1.06, 1.10 and 0.93. Above that fused is even but for gradients of gradients: 64 at 64 pixels
#   1.00, 0.98 and 0.72; and channels-last, as recipes train, it loses by its changes of layout what it wins: 128 at 128
#   pixels 1.35, 1.06 and 0.91.
# Elsewhere: not measured, no GPU was at hand. Taken where it saves more memory traffic over maps than its kernels cost,
#   as the released code does for inference (its `fused_modconv_default`).
FUSED_BELOW = {"cpu": 0.0}
_FUSED_BELOW_ELSEWHERE = 1.0


def choose(x: Tensor, weight: Tensor) -> Form:
    """The quicker form for x (N, I, H, W) and weight (O, I, k, k) on this device; see `FUSED_BELOW`."""
    kernels, maps = weight.numel(), (weight.shape[0] + weight.shape[1]) * x.shape[2] * x.shape[3]  # a sample
    below = FUSED_BELOW.get(x.device.type, _FUSED_BELOW_ELSEWHERE)
    return "fused" if not torch.is_grad_enabled() and kernels < below * maps else "scaled"


# Karras et al. 2020, eq. 1 and 3: 1 / sqrt(sum_ik (s_i w_oik)^2 + eps) = 1 / sqrt(sum_i s_i^2 (sum_k w_oik^2) + eps)
def demodulation(weight: Tensor, style: Tensor, eps: float = EPS) -> Tensor:
    """What each output channel is multiplied by: weight (O, I, k, k), style (N, I) -> (N, O), not in half precision."""
    with torch.autocast(style.device.type, enabled=False):
        energy = style.to(weight.dtype).square() @ weight.square().sum((2, 3)).T  # (N, O)
        return (energy + eps).rsqrt()


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    *,
    demodulate: bool = True,
    up: int = 1,
    taps: Tensor | None = None,
    padding: int | None = None,
    gain: float | Tensor = 1.0,
    form: Form | None = None,
) -> Tensor:
    """Convolution whose input channels a style scales: (N, I, H, W) -> (N, O, up · H, up · W).

    Parameters
    ----------
    weight : (O, I, k, k), k odd.
    style : s (N, I).
    demodulate : scale every output channel to the variance that it would have for unit variance at the input.
    up : factor of resolution, smoothed by `taps` (K,) as in `conv2d_resample`.
    padding : of the convolution by itself; None keeps the size.
    gain : of the output; a number or scalar tensor.
    form : how it is computed; None: the quicker one.
    """
    scale = demodulation(weight, style) * gain if demodulate else None  # (N, O)
    if (form or choose(x, weight)) == "scaled":
        x = x * style[:, :, None, None].to(x.dtype)
        shared = weight if scale is not None else weight * gain
        x = conv2d_resample(x, shared, taps=taps, up=up, padding=padding)
        return x if scale is None else x * scale[:, :, None, None].to(x.dtype)
    kernels = weight * style[:, None, :, None, None]  # (N, O, I, k, k)
    kernels = kernels * gain if scale is None else kernels * scale[:, :, None, None, None]
    N, C, H, W = x.shape
    grouped = x.reshape(1, N * C, H, W)  # the samples are the groups
    out = conv2d_resample(grouped, kernels.flatten(0, 1), taps=taps, up=up, padding=padding, groups=N)
    return out.reshape(N, -1, *out.shape[2:])  # (N, O, up · H, up · W)
