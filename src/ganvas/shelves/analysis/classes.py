"""One row of samples for each class."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt

from ganvas.parts import analysis
from ganvas.types import Analysis, Condition, Evidence, Panel, Sheet


@analysis("classes")
class Classes(Analysis):
    """Samples asked for by class, each row one class, each column the same latent.

    Where columns look alike in all rows, the model has told what a class is from how it is drawn.

    Parameters
    ----------
    columns : latents.
    most : classes that are shown.
    """

    needs = frozenset({"model"})

    def __init__(self, *, columns: Annotated[int, Gt(0)] = 10, most: Annotated[int, Gt(0)] = 20) -> None:
        self.columns = columns
        self.most = most

    def __call__(self, evidence: Evidence) -> Panel | None:
        model = evidence.model
        assert model is not None
        if not model.num_classes or not model.latents:
            return None
        classes = min(model.num_classes, self.most)
        latent = model.draw(self.columns, seed=evidence.seed)
        with torch.inference_mode():
            rows = [
                model.synthesize(
                    latent, Condition(label=torch.full((self.columns,), k, device=latent.values.device))
                ).cpu()
                for k in range(classes)
            ]
        images = model.spec.modality.rounded(torch.cat(rows))
        text = "Each row is a class, in order; each column is one latent."
        if classes < model.num_classes:
            text += f" The first {classes} of {model.num_classes} classes."
        return Panel("Classes", text, (Sheet("Samples by class", images, self.columns),))
