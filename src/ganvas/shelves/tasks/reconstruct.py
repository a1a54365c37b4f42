"""The task of autoencoders: data are given back as they came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn.precise import precise
from ganvas.parts import Slot, task
from ganvas.types import Autoencoder, Batch, Condition, Critic, Extractor, Facts, Nets, Objective, Role, Task, Update

Weight = Annotated[float, Ge(0)]

EPS = 1e-4  # added to the slope of the adversarial loss
LARGEST = 1e4  # weight that balances the losses


@task("reconstruct", paper="Esser et al. 2021 (VQGAN), eq. 3-7")
class Reconstruct(Task):
    """A tokenizer, or another autoencoder, learns to give its data back, perhaps against a critic.

    Its loss is how far the data are from those that came, and what the network itself adds (`codebook`, `commitment`).
    With a `discriminator`, which learns from the first step on to tell data from reconstructions, these must also pass
    for data.

    Parameters
    ----------
    l1, l2 : weights of the mean absolute and the mean squared difference.
    perceptual : an extractor in whose features images are compared, too; with `lpips` that is LPIPS. None: no such
        term.
    perceptual_weight : of the mean squared distance of the features of an image and its reconstruction, summed over
        features.
    objective : of the adversarial loss.
    adversarial_weight : of it; the authors' is 0.8 with `adaptive`.
    adaptive : multiply that weight with λ = ‖∇L_rec‖ / (‖∇L_adv‖ + 1e-4), the slopes at the weights of the last layer,
        so that both losses pull alike.
    start : the step from which the autoencoder sees the adversarial loss.

    Raises
    ------
    BadValue : the data are categories, nothing is compared, an extractor that nothing can be taught by, an adaptive
        weight for a network without a last layer, or an objective that leaves the loss to the critic's head.
    """

    roles: ClassVar[Mapping[str, Role]] = {
        "tokenizer": Role((Autoencoder,)),
        "discriminator": Role((Critic,), optional=True),
    }
    averaged = ("tokenizer",)
    sampler = "reconstruction"

    def __init__(
        self,
        nets: Nets,
        facts: Facts,
        *,
        l1: Weight = 1.0,
        l2: Weight = 0.0,
        perceptual: Annotated[Extractor, Slot("extractor")] | None = None,
        perceptual_weight: Weight = 1.0,
        objective: Annotated[Objective, Slot("objective")] = "hinge",  # type: ignore[assignment]
        adversarial_weight: Weight = 0.8,
        adaptive: bool = True,
        start: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self.autoencoder = cast("Autoencoder", nets["tokenizer"])
        self.critic = cast("Critic | None", nets.get("discriminator"))
        self.l1, self.l2 = l1, l2
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        self.objective = objective
        self.adversarial_weight, self.adaptive, self.start = adversarial_weight, adaptive, start
        if facts.spec.modality.categories:
            raise BadValue(
                f"{facts.spec.modality.part_name} data are categories, which have no distance", where="data",
                hint="ganvas list tasks",
            )  # fmt: skip
        if not (l1 or l2 or (perceptual is not None and perceptual_weight)):
            raise BadValue("nothing is compared", key="l1", hint="task.l1=1")
        if perceptual is not None and not perceptual.teaches:
            raise BadValue(
                f"nothing can be taught by {perceptual.name!r}", key="perceptual", hint="task.perceptual=lpips"
            )
        if self.critic is not None:
            self.check_critic(self.critic)

    def check_critic(self, critic: Critic) -> None:
        critic.head.check(self.objective)
        if self.objective.by_head:
            raise BadValue(
                "this task takes its adversarial loss from the objective alone", key="objective",
                hint="task.objective=hinge",
            )  # fmt: skip
        if self.adaptive and self.autoencoder.last_weight is None:
            raise BadValue(
                f"{self.autoencoder.called()!r} does not say which layer its data come out of", key="adaptive",
                hint="task.adaptive=false",
            )  # fmt: skip

    def updates(self) -> list[Update]:
        plan = [Update(("tokenizer",), self.losses)]
        return plan if self.critic is None else [*plan, Update(("discriminator",), self.critic_losses)]

    @property
    def least_batch(self) -> int:
        """The fewest data of one pass that the networks can work with."""
        least = self.autoencoder.least_batch
        return least if self.critic is None else max(least, self.critic.least_batch, self.critic.head.least_batch)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Those of the autoencoder, weighted, by name."""
        rebuilt = self.autoencoder(batch.data, **batch.condition.of(self.autoencoder))
        data, real = precise(rebuilt.data), batch.data
        losses: dict[str, Tensor] = {}
        if self.l1:
            losses["l1"] = self.l1 * F.l1_loss(data, real)
        if self.l2:
            losses["l2"] = self.l2 * F.mse_loss(data, real)
        if self.perceptual is not None and self.perceptual_weight:
            losses["perceptual"] = self.perceptual_weight * self.distance(self.perceptual, data, real)
        if self.critic is not None and step >= self.start:
            losses["adversarial"] = self.adversarial(self.critic, data, batch, sum(losses.values(), data.new_zeros(())))
        return {**losses, **rebuilt.losses}

    def distance(self, extractor: Extractor, data: Tensor, real: Tensor) -> Tensor:
        """The mean squared distance of features, ()."""
        with torch.no_grad():
            target, _ = extractor.differentiable(real)
        features, _ = extractor.differentiable(data)
        return (features - target).square().sum(1).mean()

    # Esser et al. 2021, eq. 6 and 7
    def adversarial(self, critic: Critic, data: Tensor, batch: Batch, reconstruction: Tensor) -> Tensor:
        fake = self.logits(critic, data, batch.condition)
        real = self.logits(critic, batch.data, batch.condition) if self.objective.reads_real else fake.new_empty(0)
        loss = self.objective.generator(real, fake)
        weight = self.autoencoder.last_weight
        balance: Tensor | float = 1.0
        if self.adaptive and weight is not None and weight.requires_grad:
            balance = balanced(reconstruction, loss, weight)
        return self.adversarial_weight * balance * loss

    def critic_losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The critic's, of data and of what is made of them."""
        assert self.critic is not None
        with torch.no_grad():
            rebuilt = self.autoencoder(batch.data, **batch.condition.of(self.autoencoder)).data
        real, fake = (self.logits(self.critic, data, batch.condition) for data in (batch.data, rebuilt))
        return {"adversarial": self.objective.critic(real, fake)}

    @staticmethod
    def logits(critic: Critic, data: Tensor, condition: Condition) -> Tensor:
        """What the objective acts on: (N,), or of a critic of pieces (N * P,)."""
        return precise(critic(data, **condition.of(critic)).judged)


# Esser et al. 2021, eq. 7
def balanced(reconstruction: Tensor, adversarial: Tensor, weight: nn.Parameter) -> Tensor:
    """λ, by how much the first loss slopes more at a weight than the second; a constant of the update."""
    (of_first,) = torch.autograd.grad(reconstruction, weight, retain_graph=True)
    (of_second,) = torch.autograd.grad(adversarial, weight, retain_graph=True)
    ratio: Tensor = of_first.norm() / (of_second.norm() + EPS)
    return ratio.clamp(0, LARGEST).detach()
