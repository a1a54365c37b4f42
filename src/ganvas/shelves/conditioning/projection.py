"""Labels reach the critic by an inner product (Miyato & Koyama 2018, cGANs with projection discriminator)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ganvas.parts import conditioning
from ganvas.shelves.conditioning.head import LinearHead, classes_of, given
from ganvas.types import DataSpec, Scores


@conditioning("projection", paper="Miyato & Koyama 2018, eq. 3")
class ProjectionHead(LinearHead):
    """A linear logit plus the inner product of the features with a learnt vector of the class.

    The class vectors are normalised as the critic's other weights are.

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`; the data must have classes.

    Raises
    ------
    BadValue : the data have no labels.
    """

    linear_logit = False

    def __init__(
        self, features: int, spec: DataSpec, wrap: Callable[[nn.Module], nn.Module], bias: bool = True
    ) -> None:
        K = classes_of(spec, "projection")
        super().__init__(features, spec, wrap, bias)
        self.embedding = wrap(nn.Embedding(K, features))

    # Miyato & Koyama 2018, eq. 3: f(x, y) = y^T V phi(x) + psi(phi(x))
    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) and label (N,) int64 -> logits (N,)."""
        phi, y = features, given(label, "projection")
        psi = self.linear(phi).squeeze(1)  # (N,)
        yVphi = (self.embedding(y) * phi).sum(1)  # (N,)
        return Scores(yVphi + psi, features)
