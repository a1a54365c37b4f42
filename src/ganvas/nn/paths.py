"""Ways from one latent to another."""

from __future__ import annotations

from torch import Tensor


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points of the great circles from a to b, two (N, *shape), at t (N,); lengths go linearly from |a| to |b|.

    The direction is the official one, of unit vectors; there all lengths are 1, as the mapping network divides them
    out, but other generators expect latents as long as the prior draws them.
    """
    flat_a, flat_b, t = a.flatten(1), b.flatten(1), t[:, None]
    long_a, long_b = (vectors.norm(dim=1, keepdim=True).clamp_min(1e-30) for vectors in (flat_a, flat_b))
    u, v = flat_a / long_a, flat_b / long_b
    cosine = (u * v).sum(1, keepdim=True).clamp(-1, 1)
    across = v - cosine * u  # at a right angle to u
    across = across / across.norm(dim=1, keepdim=True).clamp_min(1e-30)
    angle = t * cosine.acos()
    direction = u * angle.cos() + across * angle.sin()
    points: Tensor = direction * ((1 - t) * long_a + t * long_b)
    return points.view_as(a)


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points of the straight lines from a to b, two (N, *shape), at t (N,)."""
    return a + (b - a) * t.view(-1, *[1] * (a.ndim - 1))
