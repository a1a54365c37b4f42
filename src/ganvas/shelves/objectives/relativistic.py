"""Relativistic pairs: real data are to be more real than fake ones, and the generator wants the opposite.

Jolicoeur-Martineau 2019, "The relativistic discriminator". Both players look at both sides, so the generator's update
pays for a pass over real data.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.parts import objective
from ganvas.types import Objective


@objective("relativistic-paired", paper="Jolicoeur-Martineau 2019")
class RelativisticPaired(Objective):
    """RpGAN, logistic: each real datum against one fake; what R3GAN trains with.

    L_D = E softplus(−(D(x) − D(G(z)))),  L_G = E softplus(−(D(G(z)) − D(x)))
    """

    reads_real = True

    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(-_differences(real_logits, fake_logits)).mean()

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(_differences(real_logits, fake_logits)).mean()


@objective("relativistic-average", paper="Jolicoeur-Martineau 2019")
class RelativisticAverage(Objective):
    """RaGAN, logistic: each side against the mean of the other.

    L_D = E softplus(−(D(x) − E D(G(z)))) + E softplus(D(G(z)) − E D(x)),  L_G the same with the sides swapped
    """

    reads_real = True

    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        real, fake = real_logits - fake_logits.mean(), fake_logits - real_logits.mean()
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self.critic(fake_logits, real_logits)


@objective("relativistic-average-hinge", paper="Jolicoeur-Martineau 2019")
class RelativisticAverageHinge(Objective):
    """RaHingeGAN: each side must beat the mean of the other by a margin of 1.

    L_D = E max(0, 1 − (D(x) − E D(G(z)))) + E max(0, 1 + (D(G(z)) − E D(x))),  L_G the same with the sides swapped
    """

    reads_real = True

    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        real, fake = real_logits - fake_logits.mean(), fake_logits - real_logits.mean()
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self.critic(fake_logits, real_logits)


def _differences(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    if len(real_logits) != len(fake_logits):
        raise UsageError(
            f"{len(real_logits)} real and {len(fake_logits)} fake data cannot be paired",
            hint="task.objective=relativistic-average",
        )
    return real_logits - fake_logits
