"""Guidance of a conditional generator by a frozen classifier."""

from __future__ import annotations

from typing import Annotated, cast

from torch import Tensor
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.parts import Slot, regularizer
from ganvas.types import Extractor, Maker, Regularizer, Side, Turn


@regularizer("classifier-guidance", paper="Sauer et al. 2022 (StyleGAN-XL), section 3.4")
class ClassifierGuidance(Regularizer):
    """Cross-entropy of what a frozen classifier says of generated images, against the classes that were asked for.

    The paper's weight is 8, with DeiT-S, and in the super-resolution stages alone.

    Parameters
    ----------
    extractor : the classifier. Its classes are those of the data, in their order.

    Raises
    ------
    BadValue : an extractor that is no classifier, or that nothing can be taught by; data without classes or with more
        than it knows, or a generator that ignores them.
    """

    side: Side = "generator"

    def __init__(
        self,
        *,
        extractor: Annotated[Extractor, Slot("extractor")] = "digit-net",  # type: ignore[assignment]
    ) -> None:
        if not extractor.teaches or not extractor.classes:
            raise BadValue(
                f"{extractor.name!r} is no classifier that a generator can learn from", key="extractor",
                hint="such are digit-net, and timm with a model that has a classifier (ganvas show extractor timm)",
            )  # fmt: skip
        self.extractor = extractor

    # Sauer et al. 2022, section 3.4: lambda CE(f(G(z, c)), c)
    def __call__(self, turn: Turn) -> Tensor:
        label = turn.fake_label
        if label is None or not cast("Maker", turn.nets["generator"]).conditional:
            raise BadValue(
                "guidance needs a generator that is told the class",
                hint="leave it out: task.regularizers.classifier-guidance=~",
            )
        classes = self.extractor.classes
        if int(label.max()) >= classes:
            raise BadValue(
                f"{self.extractor.name!r} knows {classes} classes; the data have one of number {int(label.max())}",
                hint="choose a classifier of these data, or leave it out: task.regularizers.classifier-guidance=~",
            )
        _, logits = self.extractor.differentiable(turn.fake)
        assert logits is not None
        return F.cross_entropy(logits, label)
