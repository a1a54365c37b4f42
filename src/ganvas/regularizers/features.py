"""Regularizers that read the critic's features."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from ganvas.parts import regularizer
from ganvas.types import Side, Turn


@regularizer("feature-matching", paper="Salimans et al. 2016, section 3.1", system="improved-techniques-gan")
class FeatureMatching:
    """The generator matches the mean of the critic's features: ‖E f(x) − E f(G(z))‖₂²."""

    side: Side = "generator"

    def __call__(self, turn: Turn) -> Tensor:
        real = turn.real_scores.features.detach().mean(0)  # (D,)
        return (real - turn.fake_scores.features.mean(0)).square().sum()


@regularizer("adaptivemix", paper="Liu et al. 2023 (AdaptiveMix)", system="adaptivemix")
class AdaptiveMix:
    """Features of mixed data are pulled to the mix of their features: dist(F(x_m), sg[λF(x_a) + (1 − λ)F(x_b) + ε]).

    λ ~ Beta(1, 1) a pair, pairs are within real and within generated data, ε ~ N(0, noise²), sg is stop-gradient.
    """

    side: Side = "discriminator"

    def __init__(self, *, distance: Literal["mse", "cosine"] = "mse", noise: Annotated[float, Ge(0)] = 0.05) -> None:
        self.distance = distance
        self.noise = noise

    def __call__(self, turn: Turn) -> Tensor:
        real = self.term(turn, turn.real, turn.real_scores.features, turn.label)
        return real + self.term(turn, turn.fake, turn.fake_scores.features, turn.fake_label)

    def term(self, turn: Turn, data: Tensor, features: Tensor, label: Tensor | None) -> Tensor:
        share = torch.rand(len(data), 1, device=data.device)  # λ, Beta(1, 1) is uniform
        data, features = data.float(), features.float()  # whatever the precision of training
        partner = torch.arange(len(data), device=data.device).roll(1)
        mixed = torch.lerp(data[partner], data, share.view(-1, *[1] * (data.dim() - 1)))
        target = torch.lerp(features[partner], features, share).detach()
        target = target + self.noise * torch.randn_like(target)
        found = turn.critic(mixed, label).features
        if self.distance == "cosine":
            return -F.cosine_similarity(found, target).mean()
        return F.mse_loss(found, target)


@regularizer("lecam", paper="Tseng et al. 2021, eq. 3-4")
class LeCam:
    """Logits kept near moving averages of the other side: E (D(x) − α_F)² + E (D(G(z)) − α_R)².

    α_R and α_F are averages of the real and the generated logits with `decay` per update; they are saved for resume.
    The paper's weight is 0.3. Its released code clips both differences at zero; this is the equation.
    """

    side: Side = "discriminator"

    def __init__(self, *, decay: Annotated[float, Ge(0)] = 0.99, start: Annotated[int, Ge(0)] = 0) -> None:
        self.decay = decay
        self.start = start
        self.real_average: float | None = None
        self.fake_average: float | None = None

    def __call__(self, turn: Turn) -> Tensor:
        real, fake = turn.real_scores.logits, turn.fake_scores.logits
        self.real_average = self.moved(self.real_average, real)
        self.fake_average = self.moved(self.fake_average, fake)
        if turn.step < self.start:  # averages first need something to average
            return 0.0 * (real.sum() + fake.sum())
        return (real - self.fake_average).square().mean() + (fake - self.real_average).square().mean()

    def moved(self, average: float | None, logits: Tensor) -> float:
        now = logits.detach().mean().item()
        return now if average is None else self.decay * average + (1 - self.decay) * now

    def state_dict(self) -> dict[str, float | None]:
        return {"real": self.real_average, "fake": self.fake_average}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        self.real_average, self.fake_average = state["real"], state["fake"]


@regularizer("path-length", paper="Karras et al. 2020 (StyleGAN2), eq. 4", system="stylegan2")
class PathLength:
    """A step in latent space moves images by a constant length: E (‖Jᵀ y‖₂ − a)², y ~ N(0, I) / √(H·W).

    a is a moving average of the lengths; it is saved for resume.
    """

    side: Side = "generator"

    def __init__(self, *, decay: Annotated[float, Gt(0)] = 0.01) -> None:
        self.decay = decay
        self.mean = 0.0

    def __call__(self, turn: Turn) -> Tensor:
        latent = type(turn.latent)(turn.latent.values.detach().requires_grad_(True), turn.latent.space)
        images = turn.generate(latent, turn.fake_label)
        noise = torch.randn_like(images) / images[0, 0].numel() ** 0.5  # / √(H·W)
        (pulled,) = torch.autograd.grad((images * noise).sum(), latent.values, create_graph=True)  # Jᵀ y, (N, ...)
        # The square root has no gradient at zero, where a latent meets dead units alone.
        lengths = (pulled.flatten(1).square().sum(1) + 1e-12).sqrt()
        self.mean += self.decay * (lengths.detach().mean().item() - self.mean)
        return (lengths - self.mean).square().mean()

    def state_dict(self) -> dict[str, float]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.mean = state["mean"]
