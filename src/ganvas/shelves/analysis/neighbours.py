"""Samples beside the training data that are nearest to them: the first thing to look at when copying is feared."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt

from ganvas.parts import analysis
from ganvas.shelves.metrics.nearest_neighbours import nearest_neighbours
from ganvas.types import Analysis, Evidence, Panel, Sheet


@analysis("neighbours")
class Neighbours(Analysis):
    """Samples, each beside the training data whose features are nearest to it.

    Distances say more when one knows how near unseen real data come to the training data; the text says both.

    Parameters
    ----------
    rows : samples that are shown, and as many of those nearest to training data of all.
    k : neighbours beside each.
    """

    needs = frozenset({"fake:features", "fake:images", "real:features", "training:features", "training:images"})

    def __init__(self, *, rows: Annotated[int, Gt(0)] = 6, k: Annotated[int, Gt(0)] = 7) -> None:
        self.rows = rows
        self.k = k

    def __call__(self, evidence: Evidence) -> Panel:
        fake, training = evidence.fake, evidence.training
        assert training is not None and fake.features is not None and training.features is not None
        assert fake.images is not None and training.images is not None and evidence.real.features is not None
        k = min(self.k, len(training.features))
        indices, distances = nearest_neighbours(fake.features, training.features, k)  # (N, k)
        _, held_out = nearest_neighbours(evidence.real.features, training.features, 1)
        rows = min(self.rows, len(indices))
        sheets = []
        for caption, chosen in (
            ("The first samples; beside each its nearest training data, nearest first.", np.arange(rows)),
            (
                "The samples that are nearest to a training datum of all.",
                np.argsort(distances[:, 0], kind="stable")[:rows],
            ),
        ):
            pictures = [
                torch.cat([fake.images[i][None], training.images[torch.from_numpy(indices[i])]]) for i in chosen
            ]
            sheets.append(Sheet(caption, torch.cat(pictures), k + 1))
        nearer = float((distances[:, 0][:, None] < np.quantile(held_out, 0.01)).mean())
        text = (
            f"The median distance from a sample to its nearest training datum is {np.median(distances[:, 0]):.3g}; "
            f"from a held-out real datum it is {np.median(held_out):.3g}. {nearer:.1%} of the samples are nearer to a "
            "training datum than 99 % of held-out data are; about 1 % is to be expected of a model that does not "
            "copy."
        )
        return Panel("Nearest training data", text, tuple(sheets))
