"""Householder Projector (Song et al. 2023, "Householder Projector for Unsupervised Latent Semantics Discovery").

In a style generator an affine map turns w into the style of each layer, and the right singular vectors of its weight
are directions in w that change images (SeFa). The projector makes all of them count the same: the weight is U S Vᵀ with
orthogonal U and V, products of reflections that are learnt, and S one on its first entries and zero elsewhere. Written
from the paper. A trained generator is converted by taking over its singular vectors and trained on for about 1 % of its
steps: `from: runs/…` in the recipe. Differences in how: only the columns that S leaves over are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor, nn

from ganvas.errors import BadValue
from ganvas.nn.equalized import EqualizedLinear
from ganvas.nn.householder import HouseholderLinear, factors
from ganvas.nn.spectral import weight_of
from ganvas.parts import Factory, network
from ganvas.types import DataSpec, Latent, LatentSpec, Noise, SpacedGenerator


@network(
    "householder-generator",
    system="householder-projector",
    paper="Song et al. 2023 (Householder Projector)",
    tiny={
        "of": {
            "use": "stylegan2-generator", "z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8,
            "mapping": {"layers": 2},
        },
        "rank": 4,
    },
)  # fmt: skip
class HouseholderGenerator(SpacedGenerator):
    """A style generator whose layers each answer to a few orthogonal directions of w, all with the same gain.

    `from:` takes weights of the generator itself, whose singular vectors are inherited, or of one like this.

    Parameters
    ----------
    spec : what to make.
    of : the style generator.
    rank : directions a layer; at most as many as it has channels.

    Raises
    ------
    BadValue : the other generator has no affine maps from w to styles.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        of: Annotated[Callable[..., nn.Module] | str | Mapping[str, Any], Factory("network")] = "stylegan2-generator",
        rank: Annotated[int, Gt(0)] = 10,
    ) -> None:
        super().__init__()
        assert callable(of)
        inner = of(spec)
        affines = {name: module for name, module in inner.named_modules() if feeds_modulation(inner, name, module)}
        if not affines or not isinstance(inner, SpacedGenerator):
            raise BadValue(
                f"{type(inner).__name__} has no affine maps from w to styles", key="of", hint="of: stylegan2-generator"
            )
        self.gains: dict[str, tuple[float, float]] = {}  # of weight and bias, where it is not yet converted
        for name, affine in affines.items():
            self.gains[name] = gains_of(affine)
            out, in_ = affine.weight.shape
            projector = HouseholderLinear(in_, out, rank, bias=affine.bias is not None)
            if affine.bias is not None:
                projector.bias = nn.Parameter(affine.bias.detach() * self.gains[name][1])
            inner.set_submodule(name, projector)
        self.inner: SpacedGenerator = inner
        self.conditional = inner.conditional
        self.latents: Mapping[str, LatentSpec] = inner.latents
        self.bounded = inner.bounded
        self.noisy = inner.noisy

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) -> images (N, C, H, W) float32."""
        return self.inner(latent, label)

    # ------------------------------------------------------------------ spaces

    @property
    def centre(self) -> Latent | None:
        """The mean of the mapped space, where the generator knows it."""
        return self.inner.centre

    def noised(self, latent: Latent, label: Tensor | None = None, *, noise: Noise | torch.Generator) -> Tensor:
        """Images (N, C, H, W) of points in any of the spaces with this noise, see the generator itself."""
        return self.inner.noised(latent, label, noise=noise)

    def to_space(self, latent: Latent, space: str, label: Tensor | None = None) -> Latent:
        """The same points in a later space, see the generator itself."""
        return self.inner.to_space(latent, space, label)

    def from_space(self, latent: Latent, label: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) of points in any of the spaces."""
        return self.inner.from_space(latent, label)

    @property
    def directions(self) -> dict[str, Tensor]:
        """By layer, the orthonormal directions of w (rank, w_dim) that it answers to."""
        return {name: self.projector(name).directions for name in self.gains}

    def projector(self, name: str) -> HouseholderLinear:
        assert isinstance(self.inner, nn.Module)
        module = self.inner.get_submodule(name)
        assert isinstance(module, HouseholderLinear)
        return module

    # ------------------------------------------------------------------ conversion

    def adopted(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of the generator itself as one of ours; one of ours as it is."""
        if any(name.startswith("inner.") for name in state):
            return dict(state)
        converted = {f"inner.{name}": value for name, value in state.items()}
        for name, (weight_gain, bias_gain) in self.gains.items():
            weight = converted.pop(f"inner.{name}.weight", None)
            if weight is None or weight.dim() != 2:
                continue  # not the weights of such a generator: whoever loads them says what differs
            tensors = factors(weight * weight_gain, len(self.projector(name).signs))
            converted |= {f"inner.{name}.{key}": value for key, value in tensors.items()}
            if f"inner.{name}.bias" in converted:
                converted[f"inner.{name}.bias"] = converted[f"inner.{name}.bias"] * bias_gain
        return converted


def feeds_modulation(net: nn.Module, name: str, module: nn.Module) -> bool:
    """Whether this is the map from w to a style; where StyleGAN3's picture is turned and shifted to is none."""
    owner, _, leaf = name.rpartition(".")
    if leaf != "affine" or not isinstance(module, (EqualizedLinear, nn.Linear)):
        return False
    weight = weight_of(net.get_submodule(owner))
    if weight is None:
        return True
    return weight.dim() == 4 and weight.shape[1] == module.weight.shape[0]  # one value for each input channel


def gains_of(affine: nn.Module) -> tuple[float, float]:
    """What weight and bias are multiplied by when they are used."""
    if isinstance(affine, EqualizedLinear):
        return affine.lr_multiplier / sqrt(affine.weight.shape[1]), affine.lr_multiplier
    return 1.0, 1.0
