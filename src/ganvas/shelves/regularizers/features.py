"""Regularizers that read the critic's features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from ganvas.errors import BadValue, UsageError
from ganvas.nn import draws
from ganvas.nn.precise import precise
from ganvas.parts import Slot, regularizer
from ganvas.runtime import ranks
from ganvas.types import Condition, Critic, Latent, Objective, Regularizer, Side, SpacedGenerator, Turn


@regularizer("feature-matching", paper="Salimans et al. 2016, section 3.1", system="improved-techniques-gan")
class FeatureMatching(Regularizer):
    """The generator matches the mean of the critic's features: ‖E f(x) − E f(G(z))‖₂²."""

    side: Side = "generator"

    def __call__(self, turn: Turn) -> Tensor:
        real = turn.real_scores.features.detach().mean(0)  # (D,)
        return (real - turn.fake_scores.features.mean(0)).square().sum()


@regularizer("adaptivemix", paper="Liu et al. 2023 (AdaptiveMix)", system="adaptivemix")
class AdaptiveMix(Regularizer):
    """Features of mixed data are pulled to the mix of their features: dist(F(x_m), sg[λF(x_a) + (1 − λ)F(x_b) + ε]).

    λ ~ Beta(1, 1) a pair, pairs are within real and within generated data, ε ~ N(0, noise²), sg is stop-gradient.

    Parameters
    ----------
    distance : "mse", or minus the cosine.
    noise : the standard deviation of ε.
    objective : also judges the mixed data by their logits J(λF(x_a) + (1 − λ)F(x_b)) + J(F(x_m)), J the critic's head,
        as the released code does in place of the data's own; here it adds to them. None leaves it out.
    side : "generator" gives the generated data's terms to the generator, as the released code does beside the critic's.

    Raises
    ------
    BadValue : an objective that leaves the logits alone.
    """

    least_batch = 2

    def __init__(
        self,
        *,
        distance: Literal["mse", "cosine"] = "mse",
        noise: Annotated[float, Ge(0)] = 0.05,
        objective: Annotated[Objective, Slot("objective")] | None = None,
        side: Side = "discriminator",
    ) -> None:
        if objective is not None and objective.by_head:
            raise BadValue("objective 'by-head' says nothing of mixed logits", key="objective", hint="objective=hinge")
        self.distance = distance
        self.noise = noise
        self.objective = objective
        self.side = side

    def __call__(self, turn: Turn) -> Tensor:
        judge, for_critic = self.objective, self.side == "discriminator"
        real, real_logits = turn.real.new_zeros(()), turn.real.new_empty(0)
        if for_critic or (judge is not None and judge.reads_real):
            real, real_logits = self.term(turn, turn.real, turn.real_scores.features, turn.condition)
        fake, fake_logits = self.term(turn, turn.fake, turn.fake_scores.features, turn.fake_condition)
        total = real + fake if for_critic else fake
        if judge is None:
            return total
        return total + (judge.critic if for_critic else judge.generator)(real_logits, fake_logits)

    def term(self, turn: Turn, data: Tensor, features: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """(the distance, logits (N,) of the mixed data as they are judged)."""
        data, features = precise(data), precise(features)  # whatever the precision of training
        share = draws.uniform("mixing share", (len(data), 1), like=data)  # λ, Beta(1, 1) is uniform
        partner = torch.arange(len(data), device=data.device).roll(1)
        mixed = torch.lerp(data[partner], data, share.view(-1, *[1] * (data.dim() - 1)))
        mix = torch.lerp(features[partner], features, share)  # (N, D)
        target = mix.detach()
        target = target + self.noise * draws.normal("feature noise", target.shape, like=target)
        scores = turn.critic(mixed, condition)
        logits = scores.logits
        if self.objective is not None:
            logits = logits + precise(cast("Critic", turn.nets["discriminator"]).head(mix, condition.label).logits)
        if self.distance == "cosine":
            return -F.cosine_similarity(scores.features, target).mean(), logits
        return F.mse_loss(scores.features, target), logits


@regularizer("lecam", paper="Tseng et al. 2021, eq. 3-4")
class LeCam(Regularizer):
    """Logits kept near moving averages of the other side: E [D(x) − α_F]₊² + E [α_R − D(G(z))]₊².

    α_R and α_F are averages of the real and the generated logits, this update's included; they are saved for resume.
    The paper's weight is 0.3.

    Parameters
    ----------
    decay : of the averages, an update.
    start : up to and in this step nothing is added; before it the averages are the last batch's means.
    clip : as released, logits on the far side of the average cost nothing; False: the paper's equation, which pulls
        from both sides.
    """

    side: Side = "discriminator"

    def __init__(
        self, *, decay: Annotated[float, Ge(0)] = 0.99, start: Annotated[int, Ge(0)] = 0, clip: bool = True
    ) -> None:
        self.decay = decay
        self.start = start
        self.clip = clip
        self.real_average: float | None = None
        self.fake_average: float | None = None

    def __call__(self, turn: Turn) -> Tensor:
        real, fake = turn.real_scores.logits, turn.fake_scores.logits
        self.real_average = self.moved(self.real_average, real, turn.step)
        self.fake_average = self.moved(self.fake_average, fake, turn.step)
        if turn.step <= self.start:  # averages first need something to average
            return 0.0 * (real.sum() + fake.sum())
        above, below = real - self.fake_average, self.real_average - fake  # (N,) each
        if self.clip:
            above, below = above.relu(), below.relu()
        return above.square().mean() + below.square().mean()

    def moved(self, average: float | None, logits: Tensor, step: int) -> float:
        now = ranks.mean_over_ranks(logits.detach().mean()).item()
        return now if average is None or step < self.start else self.decay * average + (1 - self.decay) * now

    def state_dict(self) -> dict[str, float | None]:
        return {"real": self.real_average, "fake": self.fake_average}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        self.real_average, self.fake_average = state["real"], state["fake"]


@regularizer("path-length", paper="Karras et al. 2020 (StyleGAN2), eq. 4", system="stylegan2")
class PathLength(Regularizer):
    """A step in latent space moves images by a constant length: E (‖Jᵀ y‖₂ − a)², y ~ N(0, I) / √(H·W).

    a is a moving average of the lengths; it is saved for resume. Where a point has several rows, as in w+, the squared
    length is the mean of its rows', as released with StyleGAN2. Its weight there is 2, every 4 steps.

    Parameters
    ----------
    decay : of a, an update.
    space : the latent space in which steps are taken. None: w+ where the generator has it, else the one that is drawn.
    batch_shrink : the term looks at the batch's first 1 / batch_shrink, to save memory; released: 2.
    """

    side: Side = "generator"

    def __init__(
        self,
        *,
        decay: Annotated[float, Gt(0)] = 0.01,
        space: str | None = None,
        batch_shrink: Annotated[int, Gt(0)] = 1,
    ) -> None:
        self.decay = decay
        self.space = space
        self.batch_shrink = batch_shrink
        self.mean = 0.0

    def __call__(self, turn: Turn) -> Tensor:
        n = max(1, len(turn.latent) // self.batch_shrink)
        condition = turn.fake_condition.rows(slice(n))
        latent, generate = self.start(turn, Latent(turn.latent.values[:n], turn.latent.space), condition)
        images = generate(latent, condition)
        noise = draws.normal("path length", images.shape, like=images) / images[0, 0].numel() ** 0.5  # / √(H·W)
        (pulled,) = torch.autograd.grad((images * noise).sum(), latent.values, create_graph=True)  # Jᵀ y, (N, ..., D)
        # The square root has no gradient at zero, where a latent meets dead units alone.
        lengths = (pulled.square().sum(-1).view(n, -1).mean(1) + 1e-12).sqrt()
        now = ranks.mean_over_ranks(lengths.detach().mean()).item()
        self.mean += self.decay * (now - self.mean)
        # As released, a is learnt through, too: these very lengths move it by their share of the moving average. The
        # term is 0, and its slope that of a in E (length - a)² over all ranks.
        moving = -2 * self.decay * (now - self.mean) * (lengths.mean() - lengths.detach().mean())
        return (lengths - self.mean).square().mean() + moving

    def start(
        self, turn: Turn, latent: Latent, condition: Condition
    ) -> tuple[Latent, Callable[[Latent, Condition], Tensor]]:
        """Where the steps are taken from, with a gradient, and what makes images there."""
        generator = turn.nets["generator"]
        generate = turn.generate
        if isinstance(generator, SpacedGenerator):
            usual = "w+" if "w+" in generator.latents else latent.space
            spaced = generator
            latent = spaced.as_trained(latent, self.space or usual, condition.label)
            generate = lambda at, asked: spaced.from_space(at, asked.label)  # noqa: E731
        elif self.space not in (None, latent.space):
            raise UsageError(
                f"this generator cannot be driven from {self.space!r}", hint="leave space out of path-length"
            )
        if not latent.values.requires_grad:
            latent = Latent(latent.values.detach().requires_grad_(True), latent.space)
        return latent, generate

    def state_dict(self) -> dict[str, float]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.mean = state["mean"]
