"""Samplers that do not trust the running statistics of batch norm. The model itself stays as it is."""

from __future__ import annotations

import copy
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganvas.errors import MissingCapability
from ganvas.parts import sampler
from ganvas.types import Condition, Generator, Latent, Sampler, Synthesizer

Count = Annotated[int, Gt(0)]


def _with_norms(model: Synthesizer) -> tuple[nn.Module, list[_BatchNorm]]:
    """(a copy of the generator, its batch norms).

    Raises
    ------
    MissingCapability : there is no generator, or no batch norm in it.
    """
    net = copy.deepcopy(cast("nn.Module", model.generator)) if model.generator is not None else nn.Identity()
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        raise MissingCapability("this needs a generator with batch norm", hint="sample with --sampler plain")
    return net, norms


@sampler("standing-statistics", paper="Brock et al. 2019, section 4.1 and appendix C", tiny={"batches": 2})
class StandingStatistics(Sampler):
    """Batch norm with statistics gathered anew: the mean over many batches of generated data, classes uniform."""

    stochastic = False

    def __init__(
        self, *, batches: Count = 16, batch: Annotated[int, Ge(2)] = 64, seed: Annotated[int, Ge(0)] = 0
    ) -> None:
        self.batches = batches
        self.batch = batch
        self.seed = seed
        self.net: nn.Module | None = None  # gathered once, for all that is sampled together

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        if self.net is None:
            classes = 0 if condition.label is None else model.num_classes
            self.net = self.gathered(model, start, classes)
        images: Tensor = self.net(start.values, condition.label)
        return images.float()

    def gathered(self, model: Synthesizer, latent: Latent, classes: int) -> nn.Module:
        net, norms = _with_norms(model)
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        like = latent.values
        random = torch.Generator(like.device).manual_seed(self.seed)
        for _ in range(self.batches):
            z = torch.randn(self.batch, *like.shape[1:], generator=random, device=like.device)
            label = torch.randint(classes, (self.batch,), generator=random, device=like.device) if classes else None
            net(z, label)
        return net.eval()


@sampler("batch-statistics", paper="Ioffe & Szegedy 2015, algorithm 1")
class BatchStatistics(Sampler):
    """Batch norm as in training: statistics of the very batch that is drawn, in blocks of a fixed size."""

    stochastic = True  # not for its noise: whole blocks, so that an image does not depend on how many are asked for

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        net, norms = _with_norms(model)
        for norm in norms:
            norm.train()
        images: Tensor = cast("Generator", net).make(start, condition)
        return images.float()
