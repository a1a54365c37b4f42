"""Linear layers of low rank whose directions are exactly orthogonal (Song et al. 2023, "Householder Projector")."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def orthonormal(vectors: Tensor) -> Tensor:
    """The first N columns of H₁ ⋯ H_N, H_i = I − 2 v_i v_iᵀ / ‖v_i‖²: (M, N) with M ≥ N -> (M, N), orthonormal.

    v_i is column i of `vectors` below the diagonal, 1 on it, and 0 above: N (2 M − N − 1) / 2 numbers count, which is
    what N orthonormal columns have to choose.
    """
    v = vectors.tril(-1)
    tau = 2 / (1 + v.square().sum(0))  # (N,)
    columns: Tensor = torch.linalg.householder_product(v, tau)
    return columns


def reflections(frame: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (M, N) and signs (N,) with `orthonormal(vectors) * signs` the given orthonormal columns (M, N)."""
    vectors = torch.geqrf(frame)[0].tril(-1)
    return vectors, (orthonormal(vectors) * frame).sum(0).sign()


class HouseholderLinear(nn.Module):
    """Linear layer (N, in) -> (N, out) of weight U Vᵀ with orthonormal U (out, rank) and V (in, rank), and a bias.

    All `rank` directions in which its input matters have the same gain 1; the others have none.

    Parameters
    ----------
    rank : at most the smaller of `in_features` and `out_features` is taken.
    bias : whether there is one; it starts at 0.
    """

    signs: Tensor

    def __init__(self, in_features: int, out_features: int, rank: int, *, bias: bool = True) -> None:
        super().__init__()
        rank = min(rank, in_features, out_features)
        self.left = nn.Parameter(torch.randn(out_features, rank) / sqrt(out_features))
        self.right = nn.Parameter(torch.randn(in_features, rank) / sqrt(in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.register_buffer("signs", torch.ones(rank))  # QR leaves each column's sign open

    @property
    def directions(self) -> Tensor:
        """(rank, in): the orthonormal inputs that it answers to, one a row."""
        return orthonormal(self.right).T

    @property
    def weight(self) -> Tensor:
        """(out, in), of singular values 1 and 0."""
        return orthonormal(self.left) * self.signs @ self.directions

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def folded(self) -> nn.Linear:
        """The ordinary linear layer of this weight and bias."""
        linear = nn.Linear(len(self.right), len(self.left), bias=self.bias is not None)
        with torch.no_grad():
            linear.weight.copy_(self.weight)
            if self.bias is not None:
                linear.bias.copy_(self.bias)
        return linear.to(self.left.dtype)


# Song et al. 2023: directions are inherited, gains are flattened
def factors(weight: Tensor, rank: int) -> dict[str, Tensor]:
    """`left`, `right` and `signs` of the `HouseholderLinear` with the strongest directions of a weight (out, in)."""
    U, _, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
    rank = min(rank, *weight.shape)
    left, left_signs = reflections(U[:, :rank])
    right, right_signs = reflections(Vh[:rank].T)
    tensors = {"left": left, "right": right, "signs": left_signs * right_signs}
    return {name: value.to(weight.dtype) for name, value in tensors.items()}
