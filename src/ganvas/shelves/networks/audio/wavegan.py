"""WaveGAN: raw sound from a flat DCGAN (Donahue, McAuley & Puckette 2019, "Adversarial Audio Synthesis").

DCGAN's 5x5 kernels become kernels of 25 samples, and doubling a side becomes a stride of 4 (section 3.2, appendix D).
At 16,384 samples and width 64 these are the paper's networks: a linear layer to 16 places of 1024 channels, and five
transposed convolutions. Weights start as the authors' framework starts them (Glorot & Bengio 2010), biases at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue, UsageError
from ganvas.nn import draws
from ganvas.nn.init import xavier
from ganvas.parts import Factory, network
from ganvas.shelves.networks.heads import build_head
from ganvas.types import Critic, CriticHead, DataSpec, Generator, LatentSpec, Scores

KERNEL, STRIDE, PADDING = 25, 4, 11
SHORTEST = 16  # places of the shortest map, at least
LEAK = 0.2


def depth_of(spec: DataSpec) -> int:
    """How often sound is made four times shorter until 16 to 63 places are left.

    Raises
    ------
    BadValue : the data are no sound (channels, samples), or their length cannot be divided so often.
    """
    if len(spec.shape) != 2:
        raise BadValue(f"this network is for sound (channels, samples), not {spec.shape}", hint="data.use=tones")
    samples, n = spec.shape[1], 0
    while samples >= SHORTEST * STRIDE ** (n + 1):
        n += 1
    if n == 0:
        raise BadValue(f"sound of {samples} samples is too short; 64 are the fewest", hint="data.samples=1024")
    if samples % STRIDE**n:
        divisor = STRIDE**n
        raise BadValue(
            f"sound of {samples} samples cannot be made 4 times shorter {n} times; {divisor} must divide its length",
            hint=f"data.samples={-(-samples // divisor) * divisor}",
        )
    return n


@network("wavegan-generator", paper="Donahue, McAuley & Puckette 2019, table 3", tiny={"width": 4, "z_dim": 8})
class WaveGANGenerator(Generator):
    """Transposed 1-D convolutions of stride 4, from a flat latent to sound of any channel count.

    The length in samples must be divisible by 4^n, where n is how often it can be divided until 16 to 63 are left.

    Parameters
    ----------
    spec : what to make.
    width : channels before the last layer, doubled at each layer before it; the paper's d.
    z_dim : length of the latent vector, drawn from U(-1, 1).
    conditioning : "concat" appends the one-hot class to the latent; None ignores labels, as the paper does.

    Raises
    ------
    BadValue : no sound, a length that cannot be divided so often, or labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Gt(0)] = 64,
        z_dim: Annotated[int, Gt(0)] = 100,
        conditioning: Literal["concat"] | None = None,
    ) -> None:
        super().__init__()
        n = depth_of(spec)
        if conditioning and not spec.num_classes:
            raise BadValue(
                f"conditioning {conditioning!r} needs labelled data and these have no classes", key="conditioning",
                hint="networks.generator.conditioning=null",
            )  # fmt: skip
        self.latents = {"z": LatentSpec((z_dim,), "uniform")}
        self.conditional = conditioning is not None
        self.classes = spec.num_classes if conditioning else 0
        channels = [width << i for i in reversed(range(n))]  # 16d, 8d, 4d, 2d, d
        self.first = (channels[0], spec.shape[1] // STRIDE**n)  # (16d, 16)
        self.project = xavier(nn.Linear(z_dim + self.classes, self.first[0] * self.first[1]))
        self.ups = nn.ModuleList(
            [
                # 4 L = (L - 1) 4 - 2 x 11 + 25 + 1
                xavier(nn.ConvTranspose1d(in_, out, KERNEL, STRIDE, PADDING, output_padding=1))
                for in_, out in pairwise([*channels, spec.channels])
            ]
        )

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) and label (N,) int64 -> sound (N, channels, samples) in [-1, 1]."""
        if self.classes:
            if label is None:
                raise UsageError("a conditional generator was given no labels", hint="pass label=(N,) int64")
            latent = torch.cat([latent, F.one_hot(label, self.classes).to(latent)], 1)
        h = self.project(latent).view(-1, *self.first)  # (N, 16d, 16)
        for up in self.ups:
            h = up(h.relu())  # (N, ch / 2, 4 L)
        sound: Tensor = h.tanh()
        return sound


@network("wavegan-discriminator", paper="Donahue, McAuley & Puckette 2019, table 4", tiny={"width": 4})
class WaveGANDiscriminator(Critic):
    """Strided 1-D convolutions with phase shuffle between them; the head is linear on the flattened last map.

    Parameters
    ----------
    spec : what to score, as the generator's.
    width : channels of the first map, doubled at each layer; the paper's d.
    shuffle : each map but the last is moved by up to so many places, so that the phase of the generator's
        transposed convolutions says nothing (section 3.3); 0 leaves them. Only while training.
    conditioning : how labels reach the critic.

    Raises
    ------
    BadValue : no sound, a length that cannot be divided so often, or labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Gt(0)] = 64,
        shuffle: Annotated[int, Ge(0)] = 2,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
    ) -> None:
        super().__init__()
        n = depth_of(spec)
        if shuffle >= SHORTEST:
            raise BadValue(f"a shuffle of {shuffle} is more than the shortest map", key="shuffle", hint="shuffle=2")
        self.shuffle = shuffle
        channels = [spec.channels, *(width << i for i in range(n))]
        self.convs = nn.ModuleList(
            [xavier(nn.Conv1d(in_, out, KERNEL, STRIDE, PADDING)) for in_, out in pairwise(channels)]
        )
        features = channels[-1] * spec.shape[1] // STRIDE**n
        self.head = build_head(conditioning, features, spec, xavier)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Sound (N, channels, samples) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, 256 d)."""
        h = data
        for i, conv in enumerate(self.convs):
            h = F.leaky_relu(conv(h), LEAK)  # (N, 2 ch, L / 4)
            if self.training and self.shuffle and i + 1 < len(self.convs):
                h = phase_shuffled(h, self.shuffle)
        return self.head(h.flatten(1), label)


def phase_shuffled(h: Tensor, most: int) -> Tensor:
    """Maps (N, C, L), each datum's moved by a whole number of places from U{-most, ..., most}; ends are reflected."""
    N, C, L = h.shape
    shift = draws.integers("shift", -most, most + 1, (N, 1), like=h)
    place = (torch.arange(L, device=h.device) - shift).abs()  # (N, L), reflected at the first
    place = (L - 1) - ((L - 1) - place).abs()  # and at the last
    return h.gather(2, place[:, None].expand(N, C, L))
