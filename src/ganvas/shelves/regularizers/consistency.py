"""Critics and generators that must not mind small changes: of the image, or of the latent."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from ganvas.nn import draws
from ganvas.parts import Slot, regularizer
from ganvas.types import Augment, Latent, Regularizer, Side, Turn

Transform = Annotated[Augment, Slot("augment")]


@regularizer("consistency", paper="Zhang et al. 2020 (CR-GAN), eq. 2")
class Consistency(Regularizer):
    """CR: real data and their transformed selves score alike, E (D(x) − D(T(x)))²; the paper's weight is 10."""

    side: Side = "discriminator"

    def __init__(self, *, transform: Transform = "shift-flip") -> None:  # type: ignore[assignment]
        self.transform = transform

    def __call__(self, turn: Turn) -> Tensor:
        changed = turn.critic(self.transform(turn.real), turn.condition).logits
        return (turn.real_scores.logits - changed).square().mean()


@regularizer("balanced-consistency", paper="Zhao et al. 2021 (ICR-GAN), section 3.1")
class BalancedConsistency(Regularizer):
    """bCR: consistency on real and on generated data alike; the paper's weights are both 10."""

    side: Side = "discriminator"

    def __init__(self, *, transform: Transform = "shift-flip") -> None:  # type: ignore[assignment]
        self.transform = transform

    def __call__(self, turn: Turn) -> Tensor:
        real = turn.critic(self.transform(turn.real), turn.condition).logits
        fake = turn.critic(self.transform(turn.fake), turn.fake_condition).logits
        return (turn.real_scores.logits - real).square().mean() + (turn.fake_scores.logits - fake).square().mean()


def _nearby(latent: Latent, std: float) -> Latent:
    z = latent.values
    return Latent(z + std * draws.normal("nearby latent", z.shape, like=z), latent.space)


@regularizer("latent-consistency", paper="Zhao et al. 2021 (ICR-GAN), section 3.2")
class LatentConsistency(Regularizer):
    """zCR, critic's half: nearby latents score alike, E (D(G(z)) − D(G(z + δ)))², δ ~ N(0, std²)."""

    side: Side = "discriminator"

    def __init__(self, *, std: Annotated[float, Gt(0)] = 0.03) -> None:
        self.std = std

    def __call__(self, turn: Turn) -> Tensor:
        near = turn.generate(_nearby(turn.latent, self.std), turn.fake_condition)
        return (turn.fake_scores.logits - turn.critic(near, turn.fake_condition).logits).square().mean()


@regularizer("latent-diversity", paper="Zhao et al. 2021 (ICR-GAN), section 3.2")
class LatentDiversity(Regularizer):
    """zCR, generator's half: nearby latents give different images, −E (G(z) − G(z + δ))², δ ~ N(0, std²)."""

    side: Side = "generator"

    def __init__(self, *, std: Annotated[float, Gt(0)] = 0.03) -> None:
        self.std = std

    def __call__(self, turn: Turn) -> Tensor:
        near = turn.generate(_nearby(turn.latent, self.std), turn.fake_condition)
        return -(turn.fake - near).square().mean()


@regularizer("mode-seeking", paper="Mao et al. 2019, eq. 2")
class ModeSeeking(Regularizer):
    """Distant latents give distant images: minimises E d(z₁, z₂) / d(G(z₁), G(z₂)), both mean absolute differences."""

    side: Side = "generator"

    def __call__(self, turn: Turn) -> Tensor:
        z = turn.latent.values
        other = Latent(draws.normal("other latent", z.shape, like=z), turn.latent.space)
        images = (turn.fake - turn.generate(other, turn.fake_condition)).abs().flatten(1).mean(1)  # (N,)
        latents = (z - other.values).abs().flatten(1).mean(1)  # (N,)
        # The published ratio is turned upside down so that it is minimised; the shift keeps a collapsed G finite.
        return (1 / (images / latents + 1e-5)).mean()
