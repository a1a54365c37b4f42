"""The critic of a trained run as extractor: features of the very data it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ganvas.errors import BadValue, MissingCapability
from ganvas.files.published import WeightsFile, sha256_of
from ganvas.parts import extractor
from ganvas.recipe.trained import read_trained
from ganvas.shelves.features.frozen import FrozenNetwork, Intake
from ganvas.shelves.features.resample import Resizer
from ganvas.types import Condition, Critic

_HALF = 127.5  # a critic reads [-1, 1]


@extractor("critic")
class CriticFeatures(FrozenNetwork):
    """The critic or classifier of any run: the features that its last layer reads, and its class logits.

    Features do not depend on labels. There are class logits where the critic's head classifies into the classes of its
    data, as those of auxiliary classifiers do.

    Parameters
    ----------
    run : a run folder, or its `model.safetensors`.
    role : which of its networks; None: the critic.
    layer : "features", or "logits" of the classes.
    resizer : see `resample`; images are stretched to those of the run.

    Raises
    ------
    CheckpointError : missing, corrupt, or not a model of ours.
    MissingCapability : it has no critic of images.
    BadValue : it has no network of this role, or no class logits and they are asked for.
    """

    def __init__(
        self,
        *,
        run: Path,
        role: str | None = None,
        layer: Literal["features", "logits"] = "features",
        resizer: Resizer = "antialias",
    ) -> None:
        model = read_trained(run)
        critics = {name: net for name, net in model.nets.items() if isinstance(net, Critic)}
        if not critics or len(model.spec.shape) != 3:
            have = f"networks {', '.join(model.nets)} for data of shape {model.spec.shape}"
            raise MissingCapability(
                f"this needs a critic of images; the model has {have}", where=str(run),
                hint="give the run of a GAN, or of a task that trains a critic",
            )  # fmt: skip
        role = role or next(iter(critics))
        if role not in critics:
            raise BadValue(
                f"it has no critic {role!r}", where=str(run), key="role", hint=f"there are {', '.join(critics)}"
            )
        channels, *size = model.spec.shape
        part = model.recipe["networks"][role]["use"]
        weights = WeightsFile(model.file, sha256_of(model.file), f"{run}, {role} {part}, step {model.step}")
        intake = Intake((size[0], size[1]), resizer, (_HALF,) * channels, (_HALF,) * channels)
        super().__init__("critic", critics[role], intake, classes=0, layer=layer, weights=weights)
        self.layer = layer
        self.critic = critics[role]
        # Heads that look at labels must be given some. Features come before the label does.
        self._labelled = model.spec.num_classes > 0
        with torch.inference_mode():
            features, logits = self._look(torch.zeros(2, *model.spec.shape))
        if logits is not None and logits.shape[1] == model.spec.num_classes:
            self.classes = model.spec.num_classes
            self.class_names = model.class_names
        if layer == "logits" and not self.classes:
            raise BadValue(
                f"{role} {part!r} gives no logits of the {model.spec.num_classes} classes", where=str(run), key="layer",
                hint="layer: features",
            )  # fmt: skip
        width = self.classes if layer == "logits" else features.shape[1]
        self.provenance = {**self.provenance, "layer": f"{part} {layer}, {width} values"}

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(features (N, D), logits (N, classes) or None) of x (N, C, H, W)."""
        features, logits = self._look(x)
        if self.classes == 0:
            return features, None
        return (features if self.layer == "features" or logits is None else logits), logits

    def _look(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        label = torch.zeros(len(x), dtype=torch.int64, device=x.device) if self._labelled else None
        scores = self.critic(x, **Condition.labelled(label).of(self.critic))
        return scores.features.flatten(1), scores.extra.get("class_logits")
