"""What the critic says of training, unseen and generated data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ganvas.parts import analysis
from ganvas.types import Analysis, Chart, Condition, Critic, Evidence, EvidenceSet, Panel, Subject


@analysis("critic")
class CriticScores(Analysis):
    """The critic's logits of training data, unseen real ones and samples.

    Where unseen data score like samples and unlike training data, the critic has learnt the training set by heart.
    """

    needs = frozenset({"images", "model"})

    def __call__(self, evidence: Evidence) -> Panel | None:
        model = evidence.model
        assert model is not None
        if not any(isinstance(net, Critic) for net in model.nets.values()):
            return None
        sets = {"training": evidence.training, "unseen": evidence.real, "generated": evidence.fake}
        logits = {
            name: critic_logits(model, images)
            for name, images in sets.items()
            if images is not None and images.images is not None
        }
        summary = ", ".join(f"{name} {np.mean(values):.3g} ± {np.std(values):.2g}" for name, values in logits.items())
        gap = ""
        if "training" in logits and np.std(logits["training"]) > 0:
            distance = (np.mean(logits["training"]) - np.mean(logits["unseen"])) / np.std(logits["training"])
            gap = (
                f" Training data score {distance:+.2f} standard deviations against unseen ones: near 0 the critic "
                "has not memorised them."
            )
        chart = Chart("Logits", "histogram", {name: (values,) for name, values in logits.items()}, "logit", "share")
        return Panel("What the critic says", f"Mean and standard deviation: {summary}.{gap}", charts=(chart,))


def critic_logits(model: Subject, images: EvidenceSet, block: int = 256) -> np.ndarray:
    """Logits (N,) of the critic's own view, without augmentation."""
    assert images.images is not None
    device = next(iter(model.critic.parameters())).device
    pieces: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(images.images), block):
            piece = model.spec.modality.restored(images.images[start : start + block].to(device))
            label = None if images.label is None else images.label[start : start + block].to(device)
            pieces.append(model.score(piece, Condition.labelled(label)).float().cpu())
    result: np.ndarray = torch.cat(pieces).numpy()
    return result
