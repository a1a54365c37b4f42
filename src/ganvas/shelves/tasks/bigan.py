"""Bidirectional GANs (Donahue et al. 2017, "Adversarial Feature Learning"): the task, and its networks.

A generator G maps latents to data and an encoder E maps data to latents; a critic D sees pairs and tells (x, E(x)) from
(G(z), z). Where D is at its best for given G and E, the value of the game is 2 JSD − log 4 of the two joint
distributions, and at their optimum E inverts G almost everywhere (theorems 1 and 2).

Written from the paper, and from what the released code (jeffdonahue/bigan) does for permutation-invariant MNIST: batch
norm stands after every hidden layer but the first of E and D, which see data as they are, and z joins the second layers
of D and of G as well. What is done otherwise here:

- The code moves all three networks at once by the gradients of one pass; here D steps first and G and E follow on
  another batch, as section 3.4 of the paper says.
- Batch norm has a gain and a bias, which MNIST's nets leave out there. Neither is decayed, as there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.nn.init import normal
from ganvas.nn.precise import precise
from ganvas.nn.statistics import untracked
from ganvas.parts import Slot, network, schedule, task
from ganvas.types import (
    Batch,
    Condition,
    DataSpec,
    Encoder,
    Facts,
    Generator,
    Latent,
    LatentSpec,
    Nets,
    Network,
    Objective,
    Role,
    Scores,
    Task,
    Update,
)

Count = Annotated[int, Gt(0)]
Prior = Literal["uniform", "normal"]

LEAK = 0.2  # of E's and D's leaky ReLUs


# ------------------------------------------------------------------------------------------------------ networks


class JointCritic(Network):
    """A network that scores pairs of data and latents: `forward(data (N, ...), latent (N, *latent_shape))` -> Scores.

    It is no critic of data: what a datum alone is worth it cannot say.
    """

    given = 2
    latent_shape: tuple[int, ...]

    if TYPE_CHECKING:

        def __call__(self, data: Tensor, latent: Tensor, *args: Any, **condition: Any) -> Scores: ...

    def stand_in(self, spec: DataSpec, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random data, and random latents of the length that it was built for."""
        (data,) = super().stand_in(spec, n, generator)
        return data, torch.rand(n, *self.latent_shape, generator=generator) * 2 - 1

    def faults(self, output: Any, spec: DataSpec, n: int) -> list[str]:
        if not isinstance(output, Scores):
            return [f"its answer is a {type(output).__name__}, and should be Scores"]
        if tuple(output.logits.shape) != (n,):
            return [f"its logits are {tuple(output.logits.shape)}, and should be ({n},)"]
        return []


def _gain(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    """Gains from N(1, 0.02^2), as DCGAN's."""
    nn.init.normal_(norm.weight, 1.0, 0.02)
    return norm


def _hidden(inputs: int, width: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    """A linear layer with batch norm and what follows them: (N, inputs) -> (N, width)."""
    return nn.Sequential(normal(nn.Linear(inputs, width, bias=False)), _gain(nn.BatchNorm1d(width)), activation())


class FirstLayers(nn.Module):
    """What E and D see of data before anything else joins: one linear layer, or convolutions that halve images.

    Parameters
    ----------
    width : units of the linear layer, or channels of the last map.
    convolutions : how many; 0: the linear layer.

    Raises
    ------
    BadValue : data that are no images, or cannot be halved so often.
    """

    def __init__(self, spec: DataSpec, width: int, convolutions: int) -> None:
        super().__init__()
        if not convolutions:
            self.features = width
            self.layers = nn.Sequential(nn.Flatten(), normal(nn.Linear(prod(spec.shape), width)), nn.LeakyReLU(LEAK))
            return
        step = 2**convolutions
        if len(spec.shape) != 3 or spec.shape[1] % step or spec.shape[2] % step:
            raise BadValue(
                f"data of {spec.shape} cannot be halved {convolutions} times", key="convolutions",
                hint="convolutions=0 (fully connected), or data.size=32",
            )  # fmt: skip
        channels = [spec.channels, *(max(1, width >> i) for i in reversed(range(convolutions)))]
        layers: list[nn.Module] = []
        for number, (in_, out) in enumerate(pairwise(channels)):  # (N, in, H, W) -> (N, out, H / 2, W / 2)
            layers.append(normal(nn.Conv2d(in_, out, 4, stride=2, padding=1, bias=number == 0)))
            layers += [_gain(nn.BatchNorm2d(out))] if number else []
            layers.append(nn.LeakyReLU(LEAK))
        self.features = width * (spec.height // step) * (spec.width // step)
        self.layers = nn.Sequential(*layers, nn.Flatten())

    def forward(self, data: Tensor) -> Tensor:
        """(N, *shape) -> (N, features)."""
        features: Tensor = self.layers(data)
        return features


@network("bigan-generator", paper="Donahue et al. 2017, section 4.2", tiny={"width": 8, "z_dim": 4})
class BiGANGenerator(Generator):
    """Fully connected generator of data of any shape in [-1, 1], with batch norm; every hidden layer sees z.

    Parameters
    ----------
    spec : what to make.
    z_dim : length of z.
    prior : "uniform" draws z from U[-1, 1], "normal" from N(0, 1).
    width, depth : units of each hidden layer, and how many of them.
    """

    conditional = False

    def __init__(
        self, spec: DataSpec, *, z_dim: Count = 50, prior: Prior = "uniform", width: Count = 1024, depth: Count = 2
    ) -> None:
        super().__init__()
        self.shape = spec.shape
        self.latents = {"z": LatentSpec((z_dim,), prior)}
        self.hidden = nn.ModuleList(_hidden(z_dim + (width if i else 0), width, nn.ReLU) for i in range(depth))
        self.out = normal(nn.Linear(width, prod(spec.shape)))

    def forward(self, latent: Tensor) -> Tensor:
        """z (N, z_dim) -> data (N, *shape)."""
        h = latent
        for number, layer in enumerate(self.hidden):
            h = layer(torch.cat([h, latent], 1) if number else h)  # (N, width)
        return torch.tanh(self.out(h)).view(-1, *self.shape)


@network("bigan-encoder", paper="Donahue et al. 2017, section 4.2", tiny={"width": 8, "z_dim": 4})
class BiGANEncoder(Encoder):
    """Encoder from data to a generator's z, fully connected or after convolutions, with batch norm.

    Parameters
    ----------
    spec : what to read.
    z_dim : length of z, as in the generator.
    prior : of z, as in the generator; latents of a uniform one are kept in [-1, 1] by tanh.
    width, depth : units of each hidden layer, and how many of them. The first has no norm.
    convolutions : how many of 4x4 pixels, each of which halves the image, in place of the first layer; the last has
        `width` channels, each one before it half of the next one's.

    Raises
    ------
    BadValue : images that cannot be halved so often.
    """

    space = "z"

    def __init__(
        self,
        spec: DataSpec,
        *,
        z_dim: Count = 50,
        prior: Prior = "uniform",
        width: Count = 1024,
        depth: Count = 2,
        convolutions: Annotated[int, Ge(0)] = 0,
    ) -> None:
        super().__init__()
        self.code_shape = (z_dim,)
        self.bounded = prior == "uniform"
        first = FirstLayers(spec, width, convolutions)
        widths = [first.features, *[width] * (depth - 1)]
        self.layers = nn.Sequential(
            first,
            *(_hidden(in_, out, lambda: nn.LeakyReLU(LEAK)) for in_, out in pairwise(widths)),
            normal(nn.Linear(widths[-1], z_dim)),
        )

    def forward(self, data: Tensor) -> Tensor:
        """Data (N, *shape) -> z (N, z_dim)."""
        z: Tensor = self.layers(data)
        return z.tanh() if self.bounded else z


@network("bigan-discriminator", paper="Donahue et al. 2017, section 4.2", tiny={"width": 8, "z_dim": 4})
class BiGANDiscriminator(JointCritic):
    """Critic of pairs (data, z): z joins the first features of the data, and hidden layers read both.

    Parameters
    ----------
    spec : what the data are.
    z_dim : length of z, as in the generator.
    width, depth : units of each hidden layer, and how many of them. The first sees the data alone and has no norm.
    convolutions : in place of the first layer, as in `bigan-encoder`.
    norm : "batch" is the paper's; it makes scores depend on the rest of the batch.

    Raises
    ------
    BadValue : images that cannot be halved so often.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        z_dim: Count = 50,
        width: Count = 1024,
        depth: Annotated[int, Ge(2)] = 2,
        convolutions: Annotated[int, Ge(0)] = 0,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        self.latent_shape = (z_dim,)
        self.first = FirstLayers(spec, width, convolutions)
        widths = [self.first.features + z_dim, *[width] * (depth - 1)]

        def layer(in_: int, out: int) -> nn.Module:
            if norm == "batch":
                return _hidden(in_, out, lambda: nn.LeakyReLU(LEAK))
            return nn.Sequential(normal(nn.Linear(in_, out)), nn.LeakyReLU(LEAK))

        self.hidden = nn.Sequential(*(layer(in_, out) for in_, out in pairwise(widths)))
        self.out = normal(nn.Linear(width, 1))

    def forward(self, data: Tensor, latent: Tensor) -> Scores:
        """Data (N, *shape) and z (N, z_dim) -> logits (N,) and features (N, width)."""
        features = self.hidden(torch.cat([self.first(data), latent], 1))
        return Scores(self.out(features)[:, 0], features)


# ------------------------------------------------------------------------------------------------------ the task


@task("bigan", paper="Donahue et al. 2017, eqs. 3 and 4", system="bigan")
class BiGAN(Task):
    """A generator and an encoder against a critic of pairs (data, latent), until they are each other's inverse.

        V(D, E, G) = E_x log D(x, E(x)) + E_z log(1 − D(G(z), z)), D the sigmoid of the critic's logit

    Two updates a step: the critic by −V, and generator and encoder together by −V with the labels swapped, which is
    where their own V saturates (section 3.4). With another objective, it is the critic's loss of that one that is
    swapped. Fake data are made for the conditions of the real batch, if the generator reads any.

    Parameters
    ----------
    objective : the adversarial pair; its loss for the critic alone is used.
    swapped : whether generator and encoder descend on the critic's loss with swapped labels; else they climb on it as
        it is, the min-max game of eq. 3.
    critic_steps : updates of the critic in each step.
    weight_decay : λ; each update adds λ/2 of the squared norm of its networks' weights, their biases and gains left
        out.

    Raises
    ------
    BadValue : generator, encoder and critic do not agree on the latents, or an objective without a loss of its own.
    """

    roles: ClassVar[Mapping[str, Role]] = {
        "generator": Role((Generator,)),
        "encoder": Role((Encoder,)),
        "discriminator": Role((JointCritic,)),
    }
    averaged = ("generator", "encoder")
    sampler = "plain"

    def __init__(
        self,
        nets: Nets,
        facts: Facts,
        *,
        objective: Annotated[Objective, Slot("objective")] = "non-saturating",  # type: ignore[assignment]
        swapped: bool = True,
        critic_steps: Count = 1,
        weight_decay: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        self.nets = nets
        self.generator = cast("Generator", nets["generator"])
        self.encoder = cast("Encoder", nets["encoder"])
        self.discriminator = cast("JointCritic", nets["discriminator"])
        self.objective = objective
        self.swapped = swapped
        self.critic_steps = critic_steps
        self.weight_decay = weight_decay
        self.space, self.prior = next(iter(self.generator.latents.items()))
        self.check_latents()
        if objective.by_head:
            raise BadValue(
                "objective 'by-head' leaves the critic without a loss", key="objective", hint="non-saturating"
            )

    def check_latents(self) -> None:
        made_of = f"the generator makes data of {self.space} {self.prior.shape}"
        if (self.encoder.space, self.encoder.code_shape) != (self.space, self.prior.shape):
            raise BadValue(
                f"the encoder answers with {self.encoder.space} {self.encoder.code_shape}; {made_of}",
                where="networks.encoder", hint=f"networks.encoder.z_dim={prod(self.prior.shape)}",
            )  # fmt: skip
        if self.discriminator.latent_shape != self.prior.shape:
            raise BadValue(
                f"the critic reads latents {self.discriminator.latent_shape}; {made_of}",
                where="networks.discriminator", hint=f"networks.discriminator.z_dim={prod(self.prior.shape)}",
            )  # fmt: skip

    @property
    def least_batch(self) -> int:
        """Two where a network has batch norm, which has nothing to compare a single datum with."""
        norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        normed = any(isinstance(module, norms) for net in self.nets.values() for module in net.modules())
        return max(1 + normed, *(net.least_batch for net in self.nets.values()))

    # ------------------------------------------------------------------ the updates

    def updates(self) -> list[Update]:
        return [
            Update(("discriminator",), self.critic_losses, repeat=self.critic_steps),
            Update(("generator", "encoder"), self.maker_losses),
        ]

    def critic_losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """−V of a batch, as a loss of the critic."""
        # Running statistics are those of the makers' own updates, as in `adversarial`.
        with torch.no_grad(), untracked(self.generator), untracked(self.encoder):
            real, fake = self.pairs(batch)
        losses = {"adversarial": self.objective.critic(self.score(real), self.score(fake))}
        return losses | self.decay("discriminator")

    def maker_losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The same with swapped labels, or V itself, as a loss of generator and encoder."""
        real, fake = (self.score(pair) for pair in self.pairs(batch))
        adversarial = self.objective.critic(fake, real) if self.swapped else -self.objective.critic(real, fake)
        return {"adversarial": adversarial, **self.decay("generator", "encoder")}

    def pairs(self, batch: Batch) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(x, E(x)) of a batch and (G(z), z) of as many new latents."""
        encoded = self.encoder(batch.data, **batch.condition.of(self.encoder))  # (N, *code_shape)
        z = self.draw(len(batch), batch.data)
        return (batch.data, encoded), (self.generate(z, batch.condition), z)

    def score(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        """Logits (N,) of pairs, in float32."""
        return precise(self.discriminator(*pair).logits)

    def generate(self, z: Tensor, condition: Condition) -> Tensor:
        return self.generator.make(Latent(z, self.space), condition)

    def draw(self, n: int, like: Tensor) -> Tensor:
        """n latents (n, *shape) of the generator's prior."""
        return draws.latents(self.prior, self.space, n, like=like).values

    def decay(self, *roles: str) -> dict[str, Tensor]:
        """λ/2 ‖weights‖² of these networks, under a name of its own; nothing where λ is 0."""
        if not self.weight_decay:
            return {}
        return {
            "weight_decay": self.weight_decay / 2 * torch.stack([w.square().sum() for w in self.weights(roles)]).sum()
        }

    def weights(self, roles: tuple[str, ...]) -> Iterator[Tensor]:
        """Matrices and kernels; no biases and no gains."""
        return (parameter for role in roles for parameter in self.nets[role].parameters() if parameter.dim() > 1)


# The rate stays for the first half of the training and then falls exponentially, as in the released code
@schedule("exponential", paper="Donahue et al. 2017, released code")
def exponential(
    step: int,
    steps: int,
    *,
    warmup_steps: Annotated[int, Ge(0)] = 0,
    start: Annotated[float, Ge(0), Le(1)] = 0.5,
    final: Annotated[float, Gt(0), Le(1)] = 0.01,
) -> float:
    """The same rate until `start`, a share of all steps, and from there by equal factors down to `final` times it."""
    rising = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    begin = start * steps
    return float(rising * final ** max(0.0, (step - begin) / max(1.0, steps - begin)))
