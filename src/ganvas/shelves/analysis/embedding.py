"""Real and generated data on one map."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Gt

from ganvas.parts import analysis
from ganvas.types import Analysis, Chart, Evidence, Panel

_LEAST = 8  # points that a map can be made of
_PCA = 50  # dimensions that t-SNE is given, as van der Maaten and Hinton did


@analysis("embedding", paper="van der Maaten and Hinton 2008")
class Embedding(Analysis):
    """t-SNE of the features of real and generated data: islands of one colour are what one side has alone.

    Distances between islands and their sizes mean nothing; what lies together does.

    Parameters
    ----------
    count : points of each side.
    """

    needs = frozenset({"features"})

    def __init__(self, *, count: Annotated[int, Gt(0)] = 400) -> None:
        self.count = count

    def __call__(self, evidence: Evidence) -> Panel | None:
        assert evidence.real.features is not None and evidence.fake.features is not None
        n = min(self.count, len(evidence.real.features), len(evidence.fake.features))
        if n < _LEAST:
            return None
        both = np.concatenate([evidence.real.features[:n].numpy(), evidence.fake.features[:n].numpy()])
        points = tsne(both, evidence.seed)  # (2 n, 2)
        series = {"real": (points[:n, 0], points[:n, 1]), "generated": (points[n:, 0], points[n:, 1])}
        text = (
            f"t-SNE of {n} real and {n} generated data. Islands of one colour are what one side has alone; how far "
            "islands lie apart means nothing."
        )
        return Panel("Map of real and generated data", text, charts=(Chart("t-SNE of features", "points", series),))


def tsne(features: np.ndarray, seed: int) -> np.ndarray:
    """Points (N, 2) float32 of features (N, D), through their first 50 principal components; the same for a seed."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n, d = features.shape
    if d > _PCA:
        features = PCA(min(_PCA, n), random_state=seed).fit_transform(features)
    perplexity = min(30.0, (n - 1) / 3)
    points: np.ndarray = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        np.asarray(features, dtype=np.float32)
    )
    return points
