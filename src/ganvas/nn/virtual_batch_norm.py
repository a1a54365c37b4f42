"""Batch normalisation whose batch is chosen once and for all (Salimans et al. 2016, section 3.5)."""

from __future__ import annotations

from torch import Tensor, nn


class VirtualBatchNorm2d(nn.BatchNorm2d):
    """Each datum is normalised by the statistics of a fixed reference batch and of itself, not by its batch mates'.

    The network puts the reference batch before its own data, so that each layer sees what became of it:

        h = cat([reference, z])     # (R + N, ...), through all layers
        out = last(h)[R:]

    Parameters
    ----------
    channels : C of the feature map.
    reference : R, the data in the reference batch.
    """

    def __init__(self, channels: int, reference: int) -> None:
        super().__init__(channels, track_running_stats=False)
        self.reference = reference

    # Authors' code: E x and E x² are blended, 1 / (R + 1) for the datum itself and R / (R + 1) for the reference batch
    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(R + N, C, H, W) -> (R + N, C, H, W); the reference batch is normalised by its own statistics."""
        R = self.reference
        mean = x.mean((2, 3), keepdim=True)  # (R + N, C, 1, 1)
        square = x.square().mean((2, 3), keepdim=True)
        mean_ref, square_ref = mean[:R].mean(0, keepdim=True), square[:R].mean(0, keepdim=True)  # (1, C, 1, 1)
        share = x.new_full((len(x), 1, 1, 1), 1 / (R + 1))  # of the datum itself
        share[:R] = 0
        mean, square = mean_ref.lerp(mean, share), square_ref.lerp(square, share)
        normed = (x - mean) * ((square - mean.square()).clamp(min=0) + self.eps).rsqrt()
        return normed * self.weight[:, None, None] + self.bias[:, None, None]
