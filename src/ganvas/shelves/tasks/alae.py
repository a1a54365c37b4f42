"""The task of adversarial latent autoencoders (Pidhorskyi et al. 2020, "Adversarial Latent Autoencoders").

A generator G ∘ F maps z by F to w and w by G to data; an encoder E maps data back to w, and a critic D scores w. The
generator plays against the critic D ∘ E, and what comes back is compared with what was sent as latents, never as
pixels. Written from the paper. What the released code (podgorskiy/ALAE) does otherwise:

- Its third step moves F, too, since it stops the gradient at F's output only where that is the target.
- It takes the mean over the axes of w in L_latent where the paper takes the sum: `latent_weight` 1 / w_dim.

As there, E has one optimizer for the first and third step, and G one for the second and third.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated, ClassVar, cast

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.nn.gradients import input_gradient
from ganvas.nn.statistics import untracked
from ganvas.parts import Slot, task
from ganvas.types import (
    Batch,
    Encoder,
    Facts,
    Latent,
    LatentCritic,
    Nets,
    Objective,
    Role,
    SpacedGenerator,
    Task,
    Update,
)


@task("alae", paper="Pidhorskyi et al. 2020, algorithm 1", system="alae")
class ALAE(Task):
    """A generator and an encoder that are each other's inverse in latent space, against a critic of latents.

    Three updates a step: encoder and critic by L_D, the whole generator by L_G, and encoder and generator, but not its
    mapping F, by L_latent.

        L_D      = E softplus(D(E(G(F(z))))) + E softplus(−D(E(x))) + γ/2 E ‖∇ₓ D(E(x))‖²      (non-saturating)
        L_G      = E softplus(−D(E(G(F(z)))))
        L_latent = E ‖F(z) − E(G(F(z)))‖²

    Fake data carry the labels of the real batch; only a conditional generator's mapping looks at them.

    Parameters
    ----------
    objective : the adversarial pair.
    r1_gamma : γ; 0: no penalty, and no pass for it.
    latent_weight : of L_latent. It matters since E's and G's optimizers see the other loss, too.

    Raises
    ------
    BadValue : the generator has no space that its latents are mapped to and that the encoder answers in, or the critic
        reads other points.
    """

    roles: ClassVar[Mapping[str, Role]] = {
        "generator": Role((SpacedGenerator,)),
        "encoder": Role((Encoder,)),
        "latent_critic": Role((LatentCritic,)),
    }
    averaged = ("generator", "encoder", "latent_critic")
    sampler = "plain"

    def __init__(
        self,
        nets: Nets,
        facts: Facts,
        *,
        objective: Annotated[Objective, Slot("objective")] = "non-saturating",  # type: ignore[assignment]
        r1_gamma: Annotated[float, Ge(0)] = 10.0,
        latent_weight: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        self.generator = cast("SpacedGenerator", nets["generator"])
        self.encoder = cast("Encoder", nets["encoder"])
        self.critic = cast("LatentCritic", nets["latent_critic"])
        self.objective = objective
        self.r1_gamma = r1_gamma
        self.latent_weight = latent_weight
        self.first, self.prior = next(iter(self.generator.latents.items()))
        self.check_spaces()

    def check_spaces(self) -> None:
        space, shape = self.encoder.space, self.encoder.code_shape
        mapped = {name: spec.shape for name, spec in self.generator.latents.items() if spec.prior == "none"}
        if mapped.get(space) != shape:
            has = ", ".join(f"{name} {its_shape}" for name, its_shape in mapped.items()) or "no mapped space"
            dims = prod(mapped.get(space, ()))
            raise BadValue(
                f"the encoder answers with {space} {shape}; the generator has {has}", where="networks.encoder",
                hint=f"networks.encoder.w_dim={dims}" if space in mapped else "networks.generator=stylegan2-generator",
            )  # fmt: skip
        if self.critic.latent_shape != shape:
            raise BadValue(
                f"the critic reads points {self.critic.latent_shape}; the encoder answers with {shape}",
                where="networks.latent_critic", hint=f"networks.latent_critic.w_dim={prod(shape)}",
            )  # fmt: skip

    # ------------------------------------------------------------------ the updates

    def updates(self) -> list[Update]:
        return [
            Update(("latent_critic", "encoder"), self.critic_losses),
            Update(("generator",), self.generator_losses),
            Update(("encoder", "generator"), self.latent_losses),
        ]

    def critic_losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """L_D on real data (N, *shape) and as many generated ones."""
        with torch.no_grad(), untracked(self.generator):
            fake = self.generator(self.draw(batch), batch.label)
        losses = {"adversarial": self.objective.critic(self.score(batch.data), self.score(fake))}
        if self.r1_gamma:
            slope = input_gradient(self.score, batch.data)  # (N, *shape)
            losses["r1"] = self.r1_gamma / 2 * slope.flatten(1).square().sum(1).mean()
        return losses

    def generator_losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """L_G."""
        fake_logits = self.score(self.generator(self.draw(batch), batch.label))
        real_logits = self.score(batch.data) if self.objective.reads_real else fake_logits[:0]
        return {"adversarial": self.objective.generator(real_logits, fake_logits)}

    def latent_losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """L_latent. Without a gradient, F's weights are passed over by their optimizer and stay where they are."""
        with torch.no_grad():
            w = self.generator.to_space(Latent(self.draw(batch), self.first), self.encoder.space, batch.label)
        back = self.encoder(self.generator.from_space(w, batch.label))  # (N, *code_shape)
        distance = (w.values.float() - back.float()).flatten(1).square().sum(1)
        return {"latent": self.latent_weight * distance.mean()}

    def score(self, data: Tensor) -> Tensor:
        """D(E(x)) of data (N, *shape): (N,) float32."""
        return self.critic(self.encoder(data)).float()

    def draw(self, batch: Batch) -> Tensor:
        """As many z as the batch has data, (N, *shape)."""
        return draws.latents(self.prior, "z", len(batch), like=batch.data).values
