"""InfoGAN's codes as a function of the latent vector, so that whoever holds the latent knows them.

A latent is drawn from a plain prior everywhere: in training, sampling and editing. Its last entries are read as codes:
each is pushed through the prior's distribution function to u in (0, 1), which gives a category or a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue, UsageError

if TYPE_CHECKING:
    from ganvas.nn.init import Init


@dataclass(frozen=True)
class Codes:
    """InfoGAN's codes at the end of a generator's latent, and where the generator reads them.

    Parameters
    ----------
    discrete : number of categories of each discrete code.
    continuous : number of continuous codes, uniform in (-1, 1).
    into : "latent" joins one-hot categories and values to the noise and mixes them by a linear layer to a vector of the
        noise's length (Chen et al. 2016, in PyTorch-StudioGAN's form); "norms" tells them to every batch norm, as
        labels are read.
    """

    discrete: tuple[Annotated[int, Gt(1)], ...] = (10,)
    continuous: Annotated[int, Ge(0)] = 2
    into: Literal["latent", "norms"] = "latent"

    @property
    def count(self) -> int:
        """Entries of the latent that they take."""
        return len(self.discrete) + self.continuous

    @property
    def condition_dim(self) -> int:
        """Width of the condition of the norms, 0 for none."""
        return sum(self.discrete) + self.continuous if self.into == "norms" else 0


class CodeReader(nn.Module):
    """Takes a latent apart into what the generator is driven by, and the condition of its norms.

    Parameters
    ----------
    codes : which there are; None for none, when the latent passes as it is.
    z_dim : length of the noise, to which the codes' entries come.
    init : initial weights and normalisation of the mixing layer.

    Raises
    ------
    BadValue : there are codes, but none of any kind.
    """

    def __init__(self, codes: Codes | None, z_dim: int, init: Init) -> None:
        super().__init__()
        self.codes, self.z_dim = codes, z_dim
        self.mix: nn.Module | None = None
        if codes is None:
            return
        if not codes.count:
            raise BadValue("codes without a discrete or a continuous one are none", key="codes", hint="codes=~")
        if codes.into == "latent":
            self.mix = init(nn.Linear(z_dim + sum(codes.discrete) + codes.continuous, z_dim))

    @property
    def latent_dim(self) -> int:
        """Length of the latent: noise, then codes."""
        return self.z_dim + (self.codes.count if self.codes else 0)

    @property
    def condition_dim(self) -> int:
        """Width of the condition of the norms, 0 for none."""
        return self.codes.condition_dim if self.codes else 0

    def forward(self, latent: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(N, latent_dim) -> (N, z_dim), and nothing or (N, condition_dim)."""
        if self.codes is None:
            return latent, ()
        categories, values = codes_of(latent, self.codes.discrete, self.codes.continuous)
        hot = [F.one_hot(c, k).to(latent) for c, k in zip(categories.unbind(1), self.codes.discrete, strict=True)]
        codes = torch.cat([*hot, values], 1)  # (N, sum(discrete) + continuous)
        noise = latent[:, : self.z_dim]
        if self.mix is None:
            return noise, (codes,)
        return self.mix(torch.cat([noise, codes], 1)), ()


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
