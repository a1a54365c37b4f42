"""Scores of data of tokens against closed forms."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.errors import UsageError
from ganvas.parts import data_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics.ngram_distance import total_variation
from ganvas.types import Evidence, EvidenceSet, TokenModel


def rows(*texts: str) -> np.ndarray:
    return np.array([[ord(each) for each in text] for text in texts])


def test_total_variation_of_known_shares() -> None:
    assert total_variation(rows("aabb"), rows("abab"), n=1) == 0
    # aa, ab, bb each 1/3 against ab 2/3, ba 1/3: half of 1/3 + 1/3 + 1/3 + 1/3.
    assert total_variation(rows("aabb"), rows("abab"), n=2) == pytest.approx(2 / 3)
    assert total_variation(rows("aaaa"), rows("bbbb"), n=3) == 1
    # No sequence crosses from one datum to the next: ab and ba, but no bb.
    assert total_variation(rows("ab", "ba"), rows("aba"), n=2) == 0


def test_sets_of_other_sizes_and_shapes_are_compared_by_shares() -> None:
    real = torch.randint(4, (30, 2, 3, 4), generator=torch.Generator().manual_seed(0))
    metric = parts.build("metric", check_node("metric", {"use": "ngram-distance", "n": 3}))
    same = metric(Evidence(EvidenceSet(images=real), EvidenceSet(images=real.repeat(2, 1, 1, 1))))
    assert same == {"ngram_distance": 0}
    other = metric(Evidence(EvidenceSet(images=real), EvidenceSet(images=torch.zeros_like(real))))
    assert 0.9 < other["ngram_distance"] <= 1


def test_what_is_no_token_is_refused() -> None:
    with pytest.raises(UsageError, match="n-grams are of tokens"):
        total_variation(np.zeros((2, 4)), np.zeros((2, 4)), n=1)
    with pytest.raises(UsageError, match="no sequence of 5"):
        total_variation(rows("abab"), rows("abab"), n=5)


class Known(TokenModel):
    """A first token from known chances, then always the one before it."""

    vocabulary, outputs, length = 3, 2, 5

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([0.25, 0.75]).log())

    def forward(self, tokens: Tensor) -> Tensor:
        certain = torch.tensor([[0.0, -50.0], [-50.0, 0.0], [0.0, 0.0]])[tokens]
        return torch.where((tokens == 2)[..., None], self.first, certain)


def score(data: Tensor, net: nn.Module) -> dict[str, float]:
    spec = data_spec({"use": "text", "vocabulary": ["a", "b"]}, (5,))
    model = SimpleNamespace(maker=net, nets={"model": net}, spec=spec)
    metric = parts.build("metric", check_node("metric", "bits-per-token"))
    return metric(Evidence(EvidenceSet(images=data), EvidenceSet(), None, model))


def test_bits_per_token_is_the_likelihood_of_the_reference() -> None:
    data = torch.cat([torch.zeros(10, 5), torch.ones(30, 5)]).long()
    entropy = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))  # of the first token; the others cost nothing
    assert score(data, Known())["bits_per_token"] == pytest.approx(entropy / 5, abs=1e-6)
    with pytest.raises(UsageError, match="tokens up to 2"):
        score(torch.full((3, 5), 2), Known())


def test_nothing_is_said_of_other_models() -> None:
    with pytest.warns(UserWarning, match="no token model"):
        assert score(torch.zeros(2, 5), nn.Identity()) == {}


def test_token_counts_are_shares() -> None:
    extractor = parts.build("extractor", check_node("extractor", "token-counts"))
    features, logits = extractor(torch.tensor([[3, 3, 7, 3], [0, 1, 0, 1]]))
    assert logits is None
    assert features.shape == (2, 512)
    torch.testing.assert_close(features[:, :256].sum(1), torch.ones(2))
    torch.testing.assert_close(features[:, 256:].sum(1), torch.ones(2))
    assert (float(features[0, 3]), float(features[0, 7])) == (0.75, 0.25)
    assert float(features[1, 256 + 17]) == pytest.approx(2 / 3)  # the pair (0, 1), twice of three
    with pytest.raises(UsageError, match="takes tokens"):
        extractor(torch.zeros(2, 4))
