"""The adversarial pairs that most GANs are trained with. Logits are (N,); every loss is a mean over the batch."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from ganvas.nn import draws
from ganvas.parts import objective
from ganvas.types import Objective

RealTarget = Annotated[float, Gt(0), Le(1)]


# Cross entropy of the target t with D = σ(logit): −t log D − (1 − t) log(1 − D)
def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """E of it over logits (N,)."""
    if target == 1:
        return F.softplus(-logits).mean()
    return (F.softplus(-logits) + (1 - target) * logits).mean()


@objective("hinge", paper="Lim & Ye 2017, eq. 9; Zhang et al. 2019, eq. 4", system="sagan")
class Hinge(Objective):
    """Hinge: the critic stops pushing once data are on the right side by a margin of 1.

    L_D = E max(0, 1 − D(x)) + E max(0, 1 + D(G(z))),  L_G = −E D(G(z))

    Parameters
    ----------
    jitter : each logit's margin is drawn from U(1 − jitter, 1); 0.2 is what FastGAN trains with.
    """

    reads_real = False

    def __init__(self, *, jitter: Annotated[float, Ge(0), Lt(1)] = 0.0) -> None:
        self.jitter = jitter

    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        real_margin, fake_margin = self.margin(real_logits), self.margin(fake_logits)
        return F.relu(real_margin - real_logits).mean() + F.relu(fake_margin + fake_logits).mean()

    def margin(self, logits: Tensor) -> Tensor | float:
        return 1 - self.jitter * draws.uniform("jitter", logits.shape, like=logits) if self.jitter else 1.0

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


@objective("non-saturating", paper="Goodfellow et al. 2014, section 3", system="dcgan")
class NonSaturating(Objective):
    """Logistic critic; the generator maximises log D(G(z)), which has a gradient where it loses.

    L_D = E softplus(−D(x)) + E softplus(D(G(z))),  L_G = E softplus(−D(G(z)))

    Parameters
    ----------
    real_target : what the critic's probability for real data is trained to; 0.9 is the one-sided label smoothing of
        Salimans et al. 2016, section 3.4. Fakes keep the target 0.
    """

    reads_real = False

    def __init__(self, *, real_target: RealTarget = 1.0) -> None:
        self.real_target = real_target

    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return cross_entropy(real_logits, self.real_target) + F.softplus(fake_logits).mean()

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(-fake_logits).mean()


@objective("saturating", paper="Goodfellow et al. 2014, eq. 1")
class Saturating(Objective):
    """Minimax as first written: the generator minimises log(1 − D(G(z))), which goes flat where it loses.

    L_D = E softplus(−D(x)) + E softplus(D(G(z))),  L_G = −E softplus(D(G(z)))

    Parameters
    ----------
    real_target : as of `non-saturating`.
    """

    reads_real = False

    def __init__(self, *, real_target: RealTarget = 1.0) -> None:
        self.real_target = real_target

    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return cross_entropy(real_logits, self.real_target) + F.softplus(fake_logits).mean()

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return -F.softplus(fake_logits).mean()


@objective("least-squares", paper="Mao et al. 2017, eq. 9")
class LeastSquares(Objective):
    """Least squares with targets 1 for real and 0 for fake; minimises the Pearson χ² divergence.

    L_D = ½ E (D(x) − 1)² + ½ E D(G(z))²,  L_G = ½ E (D(G(z)) − 1)²
    """

    reads_real = False

    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return 0.5 * ((real_logits - 1).square().mean() + fake_logits.square().mean())

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return 0.5 * (fake_logits - 1).square().mean()


@objective("wasserstein", paper="Arjovsky et al. 2017, eq. 2", system="wgan")
class Wasserstein(Objective):
    """Earth mover's distance by its dual; needs a Lipschitz critic (gradient-penalty, weight-clipping, spectral norm).

    L_D = E D(G(z)) − E D(x),  L_G = −E D(G(z));  −L_D estimates W₁ up to the Lipschitz constant
    """

    reads_real = False

    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()
