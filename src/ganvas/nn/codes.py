"""InfoGAN's codes as a function of the latent vector, so that whoever holds the latent knows them.

A latent is drawn from a plain prior everywhere: in training, sampling and editing. Its last entries are read as codes:
each is pushed through the prior's distribution function to u in (0, 1), which gives a category or a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ganvas.errors import UsageError


def codes_of(
    latent: Tensor, discrete: Sequence[int], continuous: int, prior: Literal["normal", "uniform", "none"] = "normal"
) -> tuple[Tensor, Tensor]:
    """The codes that the last `len(discrete) + continuous` entries of a latent stand for.

    Parameters
    ----------
    latent : (N, D) drawn from N(0, 1), or from U(-1, 1) where `prior` is "uniform".
    discrete : number of categories of each discrete code; categories are uniform.
    continuous : how many codes there are that are uniform in (-1, 1).

    Returns
    -------
    (N, len(discrete)) int64 and (N, continuous).

    Raises
    ------
    UsageError : the latent is too short.
    """
    count = len(discrete) + continuous
    if latent.shape[1] < count:
        raise UsageError(
            f"a latent of length {latent.shape[1]} cannot hold {count} codes", hint="networks.generator.z_dim=64"
        )
    tail = latent[:, latent.shape[1] - count :]  # (N, count)
    u = (tail + 1) / 2 if prior == "uniform" else torch.special.ndtr(tail)
    sizes = torch.tensor(list(discrete), device=latent.device)
    categories = (u[:, : len(discrete)] * sizes).long().clamp(max=sizes - 1)
    return categories, 2 * u[:, len(discrete) :] - 1
