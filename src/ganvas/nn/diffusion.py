"""Steps down a list of noise levels: the Gaussian posterior between two of them, and what likelihood bounds need."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Chain:
    """K steps between K + 1 levels of a path, from the noisiest to the clean end.

    x_t = α_t x + σ_t ε at step k's level t, and s is the level below. With α_{t|s} = α_t / α_s the noise that lies
    between the two has the variance β = σ_t² − α_{t|s}² σ_s², and q(x_s | x_t, x) is Gaussian (Ho et al. 2020, eq. 7;
    Kingma et al. 2021, eq. 25, for any α and σ). Every table is (K,) float64.

    Parameters
    ----------
    alpha, sigma : (K + 1,) float64; the last sigma is 0.

    Attributes
    ----------
    beta : the largest variance of a step.
    variance : β̃ = β σ_s² / σ_t², that of the posterior; 0 in the last step.
    log_least : log β̃, where the last step has that of the one before (Nichol & Dhariwal 2021), or log β where it is
        the only one.
    from_x, from_x_t : the posterior's mean is from_x · x + from_x_t · x_t.
    """

    def __init__(self, alpha: Tensor, sigma: Tensor) -> None:
        self.alpha, self.sigma = alpha, sigma
        ratio = alpha[:-1] / alpha[1:]  # α_{t|s}
        variance_s, variance_t = sigma[1:].square(), sigma[:-1].square()  # σ_s², σ_t²
        self.beta = variance_t - ratio.square() * variance_s
        self.variance = self.beta * variance_s / variance_t
        last = self.variance[-2:-1] if len(self) > 1 else self.beta
        self.log_least = torch.cat([self.variance[:-1], last]).log()
        self.from_x = alpha[1:] * self.beta / variance_t
        self.from_x_t = ratio * variance_s / variance_t

    def __len__(self) -> int:
        return len(self.beta)

    def log_variance(self, k: int | Tensor, share: Tensor) -> Tensor:
        """That of step k where a network puts it a share of the way from the least to the largest, (N, ...).

        Nichol & Dhariwal 2021, eq. 15, with the share v in [0, 1]; k is one number, or (N,) int64.
        """
        largest, least = self.beta.log(), self.log_least
        return share * _rows(largest, k, share) + (1 - share) * _rows(least, k, share)

    def mean(self, k: int | Tensor, x: Tensor, x_t: Tensor) -> Tensor:
        """The mean of q(x_s | x_t, x), (N, ...)."""
        return _rows(self.from_x, k, x) * x + _rows(self.from_x_t, k, x) * x_t

    def noise(self, k: int, x: Tensor, x_t: Tensor) -> Tensor:
        """The noise ε (N, ...) that x_t holds where x is the clean data."""
        return (x_t - self.alpha[k].item() * x) / self.sigma[k].item()

    def ancestral(self, k: int, x: Tensor, x_t: Tensor, log_variance: Tensor | float, noise: Tensor) -> Tensor:
        """x_s drawn about the posterior's mean with this variance; the last step adds no noise.

        Ho et al. 2020, algorithm 2.
        """
        mean = self.mean(k, x, x_t)
        if k == len(self) - 1:
            return mean
        return mean + (0.5 * torch.as_tensor(log_variance)).exp() * noise

    def implicit(self, k: int, x: Tensor, x_t: Tensor, eta: float, noise: Tensor | None) -> Tensor:
        """x_s along the same noise, of which a part is drawn anew: none at eta 0, as in `ancestral` at 1.

        Song et al. 2021 (DDIM), eq. 12 and 16.
        """
        variance = self.sigma[k + 1].square() - eta**2 * self.variance[k]
        x_s = self.alpha[k + 1].item() * x + variance.clamp(min=0).sqrt().item() * self.noise(k, x, x_t)
        return x_s if noise is None or not eta else x_s + eta * self.variance[k].sqrt().item() * noise

    def between(self, k: int, x_t: Tensor, x: Tensor, noise: Tensor) -> Tensor:
        """x_s by the path's own ordinary differential equation dx_t = x dα + ε dσ, with this slope all the way."""
        d_alpha, d_sigma = self.alpha[k + 1] - self.alpha[k], self.sigma[k + 1] - self.sigma[k]
        return x_t + d_alpha.item() * x + d_sigma.item() * noise


def _rows(table: Tensor, k: int | Tensor, like: Tensor) -> Tensor:
    """Entries of a table for N data, (N, 1, ...) or (1, ...), in the data's type and on their device."""
    index = torch.as_tensor(k, device=table.device)
    return table[index].to(like).view(-1, *[1] * (like.dim() - 1))


# Ho et al. 2020, eq. 8
def gaussian_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL divergence of two Gaussians, in nats, number by number."""
    gap = log_variance - other_log_variance
    return 0.5 * (-1 - gap + gap.exp() + (mean - other_mean).square() * (-other_log_variance).exp())


# Ho et al. 2020, eq. 13
def eight_bit_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log-probability, in nats, number by number, of the 8-bit bins that x (N, ...) in [-1, 1] lies in.

    The outermost bins reach to infinity. The normal distribution function is its tanh approximation (Page 1977).
    """
    inverse = (-0.5 * log_variance).exp()
    upper, lower = (_distribution(inverse * (x - mean + side / 255)) for side in (1, -1))
    inside = (upper - lower).clamp(min=1e-12).log()
    lowest, highest = upper.clamp(min=1e-12).log(), (1 - lower).clamp(min=1e-12).log()
    return torch.where(x < -0.999, lowest, torch.where(x > 0.999, highest, inside))


def _distribution(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
