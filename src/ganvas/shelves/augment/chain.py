"""Several augmentations one after the other, each with a controller of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

from torch import Tensor

from ganvas.errors import BadValue
from ganvas.parts import Slots, augment
from ganvas.types import Augment, Turn

_ADA_THEN_NOISE: Mapping[str, Any] = MappingProxyType({"ada": {}, "diffusion-noise": {}})


@augment("chain", paper="Wang et al. 2022 (Diffusion-GAN), beside ADA")
class Chain(Augment):
    """Several augmentations in the order of the recipe, each adapting by itself.

    What moves pixels belongs before what adds noise: noise that is warped is no longer white.

    Parameters
    ----------
    augments : the augmentations by name, first to last. One of them may tell the critic how much it did, as
        `diffusion-noise` does; the critic's head must then be able to take it.

    Raises
    ------
    BadValue : none at all, or two that tell the critic how much they did.
    """

    def __init__(self, *, augments: Annotated[Mapping[str, Augment], Slots("augment")] = _ADA_THEN_NOISE) -> None:
        if not augments:
            raise BadValue(
                "a chain of no augmentation does nothing",
                key="augments",
                hint="augments: {ada: {}, diffusion-noise: {}}",
            )
        telling = [name for name, link in augments.items() if link.tells_level]
        if len(telling) > 1:
            raise BadValue(
                f"{' and '.join(telling)} both tell the critic a level, and it can be told one",
                key="augments", hint=f"leave {telling[1]} out",
            )  # fmt: skip
        self.augments = dict(augments)
        self.tells_level = bool(telling)

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return self.with_level(images)[0]

    def with_level(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) after all links, and the level of each (N,), 0 for nothing."""
        level = images.new_zeros(len(images))
        for link in self.augments.values():
            if link.tells_level:
                images, level = link.with_level(images)
            else:
                images = link(images)
        return images, level

    def mix_real(self, real: Tensor, fake: Callable[[], Tensor]) -> Tensor:
        """Real images (N, ...) with those in their place that the links put there."""
        for link in self.augments.values():
            real = link.mix_real(real, fake)
        return real

    def observe(self, turn: Turn) -> None:
        """Each link learns from the critic's scores by itself."""
        for link in self.augments.values():
            link.observe(turn)

    def state_dict(self) -> dict[str, Any]:
        return {name: state for name, link in self.augments.items() if (state := link.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, link in self.augments.items():
            if name in state:
                link.load_state_dict(state[name])
