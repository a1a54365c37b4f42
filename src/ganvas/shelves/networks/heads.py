"""How a critic gets its head: from a conditioning part, named or handed in."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ganvas import parts
from ganvas.types import CriticHead, DataSpec


def build_head(
    conditioning: Callable[..., CriticHead] | str,
    features: int,
    spec: DataSpec,
    wrap: Callable[[nn.Module], nn.Module],
    bias: bool = True,
) -> CriticHead:
    """The head of a critic.

    Parameters
    ----------
    conditioning : a factory, as recipes hand it in, or the name of a conditioning part with its defaults.
    features : D, the length of the feature vector that the head will get.
    spec : what the data look like.
    wrap : what the critic does to its layers: first values, and its weight normalisation.
    bias : whether the layer that gives the logit has one.

    Raises
    ------
    UnknownPart : no conditioning part has this name.
    """
    if isinstance(conditioning, str):
        head: CriticHead = parts.build("conditioning", {"use": conditioning}, features, spec, wrap, bias)
        return head
    return conditioning(features, spec, wrap, bias)
