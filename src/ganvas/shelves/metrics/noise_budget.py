"""How many random numbers a generator needs: images as a code, noise as its bits (Zhu et al. 2024)."""

from __future__ import annotations

import bz2
import lzma
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ganvas.errors import UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import Double
from ganvas.shelves.metrics.images import images_of, stack
from ganvas.shelves.metrics.ordering import in_canonical_order
from ganvas.types import Evidence, LatentSpec, Metric

if TYPE_CHECKING:
    from ganvas.shelves.metrics.images import Images

FLOAT32_MANTISSA_BITS = 23
CODED_BYTES = 2**21  # as many pixels are coded; more would hardly shorten the code


@metric("noise-budget", system="noise-dimension-gan", paper="Zhu et al. 2024")
class NoiseBudget(Metric):
    """Bits of randomness that a model's latent holds over the bits that a lossless codec needs for a real image.

    A generator is a decoder: to draw images of entropy H(X) exactly, n random numbers of b bits need n b >= H(X). A
    float32 N(0, 1) value holds 26.46 bits; H(X) is bounded from above by the length of the code of the whole set, see
    `codec_bits`. `noise_budget` = n b / bits, from 0: below 1 the latent may be too short, from 1 on it is not what
    limits the model. It looks at the model's first latent space and at real images only.
    """

    needs = frozenset({"real:images", "model"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"noise_budget": False}
    limits: Mapping[str, tuple[float, float]] = {"noise_budget": (0, math.inf)}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        if evidence.model is None:
            raise UsageError("the evidence holds no model, whose latents could be counted")
        needed = codec_bits(images_of(evidence.real, "real"))
        spec = next(iter(evidence.model.latents.values()), None)
        return {"noise_budget": 0.0 if spec is None else latent_bits(spec) / needed}


def float32_normal_entropy_bits() -> float:
    """The entropy of a N(0, 1) value rounded to float32, in bits: 26.46.

    Within a binade [2^e, 2^(e+1)) neighbouring floats are 2^(e-23) apart, so H = h(N) - E log2(spacing) =
    h(N) + 23 - E floor(log2 |x|), h(N) = log2(2 pi e) / 2; E is a sum over binades of their probabilities.
    """
    return math.log2(2 * math.pi * math.e) / 2 + FLOAT32_MANTISSA_BITS - _mean_exponent(_normal_below)


def float32_uniform_entropy_bits() -> float:
    """The entropy of a uniform value in [-1, 1] rounded to float32, in bits: 1 + 23 + 2 = 26."""
    return 1.0 + FLOAT32_MANTISSA_BITS - _mean_exponent(lambda x: min(x, 1.0))


def _normal_below(x: float) -> float:
    return math.erf(x / math.sqrt(2))


def _mean_exponent(below: Callable[[float], float]) -> float:
    """E floor(log2 |x|) from P(|x| < a) as a function of a, over all binades that hold any mass."""
    return float(sum(e * (below(2.0 ** (e + 1)) - below(2.0**e)) for e in range(-126, 8)))


def latent_bits(spec: LatentSpec) -> float:
    """Bits of randomness of one draw from a latent space's prior; 0 where it is not drawn from."""
    count = math.prod(spec.shape)
    if spec.prior == "normal":
        return count * float32_normal_entropy_bits()
    return count * float32_uniform_entropy_bits() if spec.prior == "uniform" else 0.0


def codec_bits(images: Images) -> float:
    """Bits an image that the whole set of images (N, C, H, W) takes in its shortest code: a bound on H(X) from above.

    Codes are bzip2 and LZMA over all images one after the other, of pixels or of their differences from the left,
    upper, or mean of both neighbours as in PNG. Of a large set, a fixed choice of as many as fit into `CODED_BYTES`.

    Raises
    ------
    UsageError : no images.
    DataError : NaN, or floats outside [-1, 1].
    """
    pixels = np.asarray(stack(images, "given"))
    x = in_canonical_order(pixels.reshape(len(pixels), -1)).reshape(pixels.shape)
    count = max(1, CODED_BYTES // x[0].size)
    if len(x) > count:
        x = x[np.sort(np.random.default_rng(0).permutation(len(x))[:count])]
    left, above = np.zeros_like(x), np.zeros_like(x)
    left[..., 1:], above[..., 1:, :] = x[..., :-1], x[..., :-1, :]
    mean = ((left.astype(np.uint16) + above) // 2).astype(np.uint8)
    streams = [residual.tobytes() for residual in (x, x - left, x - above, x - mean)]  # modulo 256
    as_is = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
    codes = [len(bz2.compress(stream)) for stream in streams]
    codes += [len(lzma.compress(stream, lzma.FORMAT_RAW, filters=as_is)) for stream in streams]
    return 8 * min(x.size, *codes) / len(x)


def dimensions_needed(bits: float) -> int:
    """The least number of float32 N(0, 1) values that hold `bits` bits: n >= H(X) / b.

    Raises
    ------
    UsageError : a negative or infinite number of bits.
    """
    if not 0 <= bits < math.inf:
        raise UsageError(f"{bits} bits is no amount of information", hint="give a finite number from 0")
    return math.ceil(bits / float32_normal_entropy_bits())


def divergence_at_entropy(p: npt.ArrayLike, bits: float) -> tuple[float, Double]:
    """D(R) = min KL(p || q) over q with H(q) <= R, in bits, and a q (K,) that reaches it.

    The best divergence that a sampler with R bits of randomness can reach from a source p (K,). The set of q is not
    convex: H is replaced by its tangent at the last q, H(q) <= -sum q log2 q_last, which keeps to the constraint, and
    the convex problem is solved exactly, q_i = p_i / (1 + mu (c_i - R)) with c = -log2 q_last, until nothing moves.
    Starts lean on each symbol in turn; the best end counts.

    Raises
    ------
    UsageError : `p` is no distribution, or R is negative. R = 0 leaves one symbol: infinite unless p is one, too.
    """
    p_ = np.asarray(p, dtype=np.float64)
    if p_.ndim != 1 or not p_.size or (p_ < 0).any() or not math.isclose(p_.sum(), 1, abs_tol=1e-9) or not bits >= 0:
        raise UsageError("p must be a distribution (K,), not negative, of sum 1, and bits at least 0")
    if entropy_bits(p_) <= bits:
        return 0.0, p_
    q = np.zeros_like(p_)
    if bits == 0:
        q[p_.argmax()] = 1
        return math.inf, q
    possible = p_ > 0
    source = p_[possible]
    ends = [_descend(source, bits, _lean(source, symbol, bits)) for symbol in range(len(source))]
    q[possible] = min(ends, key=lambda end: _kl_bits(source, end))
    return _kl_bits(source, q[possible]), q


def entropy_bits(p: npt.ArrayLike) -> float:
    """-sum p log2 p of a distribution (K,)."""
    values = np.asarray(p, dtype=np.float64)
    values = values[values > 0]
    return float(-(values * np.log2(values)).sum())


def _kl_bits(p: Double, q: Double) -> float:
    return max(0.0, float((p * np.log2(p / q)).sum()))


def _lean(p: Double, symbol: int, bits: float) -> Double:
    """The mixture of p and one symbol whose entropy is `bits`, or just below."""
    from scipy.optimize import brentq

    one = np.zeros_like(p)
    one[symbol] = 1
    # The entropy rises to a maximum and may fall again towards p, which lies above `bits`: one crossing.
    share = brentq(lambda w: entropy_bits((1 - w) * one + w * p) - bits, 0, 1, xtol=1e-14)
    share = max(1e-300, share * (1 - 1e-12))
    mixture: Double = (1 - share) * one + share * p
    return mixture


def _descend(p: Double, R: float, q: Double) -> Double:
    from scipy.optimize import brentq

    last = math.inf
    for _ in range(10_000):
        c = -np.log2(q)
        lowest = float(c.min())
        if float((p * c).sum()) <= R or lowest >= R:
            return q  # the tangent allows p itself, or nothing: q is as far as this goes
        top = 1 / (R - lowest)

        def total(mu: float, c: Double = c) -> float:
            return float((p / (1 + mu * (c - R))).sum()) - 1

        mu = brentq(total, 1e-12 * top, top * (1 - 1e-13), xtol=1e-16)
        q = p / (1 + mu * (c - R))
        q = q / q.sum()
        now = _kl_bits(p, q)
        if last - now <= 1e-12:
            return q
        last = now
    return q
