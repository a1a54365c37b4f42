"""How often tokens, and pairs of neighbours, come in a text: features without any network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.parts import extractor
from ganvas.types import Extractor

_TOKENS = 256  # bins of single tokens: enough for the characters of one language
_PAIRS = 256
_FACTORS = (31, 17)  # of the first and the second of a pair; odd, so that no bin of a power of two is left out


@extractor("token-counts")
class TokenCounts(Extractor):
    """Shares of tokens and of pairs of neighbouring tokens in each datum: 512 features from 0 to 1, no logits.

    Token t counts in bin t mod 256, the pair (s, t) in bin (31 s + 17 t) mod 256 behind those; so a vocabulary of up to
    256 entries keeps its tokens apart, while several pairs share a bin. Both halves of a datum's features sum to 1; a
    single token has no pairs. Data are int64 and are read in the order of their axes.
    """

    name = "token-counts"
    classes = 0
    modalities = ("text",)

    def __init__(self) -> None:
        rule = f"t mod {_TOKENS}; ({_FACTORS[0]} s + {_FACTORS[1]} t) mod {_PAIRS}"
        self.provenance: Mapping[str, str] = {
            "sha256": hashlib.sha256(rule.encode()).hexdigest(), "layer": f"shares in bins {rule}",
            "resizer": "none", "source": "no weights",
        }  # fmt: skip

    def __call__(self, data: Tensor) -> tuple[Tensor, None]:
        """(features (N, 512) float32, None) of tokens (N, ...).

        Raises
        ------
        UsageError : they are no whole numbers.
        """
        if data.is_floating_point() or data.dim() < 2:
            raise UsageError(
                f"extractor token-counts takes tokens (N, ...), not {tuple(data.shape)} of {data.dtype}",
                hint="ganvas list features",
            )
        rows = data.flatten(1).long()  # (N, L)
        pairs = _FACTORS[0] * rows[:, :-1] + _FACTORS[1] * rows[:, 1:]
        return torch.cat([_shares(rows % _TOKENS, _TOKENS), _shares(pairs % _PAIRS, _PAIRS)], dim=1), None


def _shares(bins: Tensor, count: int) -> Tensor:
    """How much of each row (N, L) lies in each bin: (N, count) float32."""
    share = torch.full(bins.shape, 1 / max(1, bins.shape[1]), device=bins.device)
    return torch.zeros(len(bins), count, device=bins.device).scatter_add_(1, bins, share)
