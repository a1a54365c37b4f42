"""Statistics that layers gather while they train: which they are, and how they are held still."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Gathering(nn.Module, ABC):
    """A layer whose buffers follow its weights or what it sees, so that they belong into an average of the weights."""

    @abstractmethod
    def statistics(self) -> list[Tensor]:
        """Its floating-point buffers of this kind."""


class Follower(nn.Module):
    """A layer that keeps running means of what passes through it in training, such as StyleGAN's mean of w.

    Attributes
    ----------
    following : whether they move; see `held_still`.
    """

    following: bool = True


def statistics_of(net: nn.Module) -> list[Tensor]:
    """The statistics of all normalisation layers of a network, in the order of its modules.

    Those of torch's batch norms are their running mean and variance. Counts are none, and neither are buffers that are
    averages already, such as StyleGAN's mean of w.
    """
    statistics: list[Tensor] = []
    for module in net.modules():
        if isinstance(module, Gathering):
            statistics += module.statistics()
        elif isinstance(module, _BatchNorm):
            statistics += [running for running in (module.running_mean, module.running_var) if running is not None]
    return statistics


@contextlib.contextmanager
def held_still(net: nn.Module) -> Iterator[None]:
    """The running means of a network's followers stay, whatever passes through.

    The official code of StyleGAN3 moves them in the critic's updates alone, whose latents are drawn like any.
    """
    followers = [module for module in net.modules() if isinstance(module, Follower) and module.following]
    for follower in followers:
        follower.following = False
    try:
        yield
    finally:
        for follower in followers:
            follower.following = True


@contextlib.contextmanager
def untracked(net: nn.Module) -> Iterator[None]:
    """Batch norms of a network normalise by the batch as before, but their running statistics stay.

    A generator's statistics are those of its own updates: a critic's update draws from it, too, and as often as there
    are critic steps (Brock et al. 2019 and PyTorch-StudioGAN hold them still there).
    """
    tracking = [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for norm in tracking:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in tracking:
            norm.track_running_stats = True
