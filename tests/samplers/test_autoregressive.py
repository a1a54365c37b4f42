"""The autoregressive sampler: temperature, limits and guidance in closed form."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ganvas import parts
from ganvas.parts import data_spec
from ganvas.recipe.check import check_node
from ganvas.types import NO_CONDITION, Condition, Latent, TokenModel, label_of

CHANCES = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])


class Fixed(TokenModel):
    """Draws each token from the same chances, with label 1 from those in reverse."""

    vocabulary, outputs, length = 6, 5, 4

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, tokens: Tensor, label: Tensor | None = None) -> Tensor:
        self.seen.append(tokens.clone())
        logits = CHANCES.log().expand(*tokens.shape, 5)
        return logits if label is None else torch.where(label[:, None, None] == 1, logits.flip(-1), logits)


def sampler(**keys: object) -> object:
    return parts.build("sampler", check_node("sampler", {"use": "autoregressive", **keys}))


def model(net: TokenModel) -> SimpleNamespace:
    spec = data_spec({"use": "text", "vocabulary": list("abcde")}, (2, 2), label_of(2))
    return SimpleNamespace(maker=net, nets={"model": net}, spec=spec)


def draw(n: int, condition: Condition = NO_CONDITION, seed: int = 0, **keys: object) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return sampler(**keys)(model(Fixed()), Latent(torch.empty(n, 0)), condition, rng)


def test_limits_keep_the_likeliest() -> None:
    logits = CHANCES.log()[None]
    torch.testing.assert_close(sampler().probabilities(logits)[0], CHANCES)
    two = sampler(top_k=2).probabilities(logits)[0]
    torch.testing.assert_close(two, torch.tensor([0, 4 / 7, 0, 3 / 7, 0]))
    # 0.4 + 0.3 does not reach 0.75, 0.4 + 0.3 + 0.15 does; and the likeliest alone reaches what is below it.
    assert sampler(top_p=0.75).probabilities(logits)[0].nonzero().flatten().tolist() == [1, 3, 4]
    assert sampler(top_p=0.3).probabilities(logits)[0].nonzero().flatten().tolist() == [1]
    cold = sampler(temperature=0.5).probabilities(logits)[0]
    torch.testing.assert_close(cold, CHANCES**2 / (CHANCES**2).sum())
    both = sampler(top_k=3, top_p=0.5).probabilities(logits)[0]  # of three, 8/17 and 6/17 come first
    assert both.nonzero().flatten().tolist() == [1, 3]


def test_tokens_come_as_often_as_they_are_likely() -> None:
    data = draw(2000)
    assert data.shape == (2000, 2, 2)
    shares = torch.bincount(data.flatten(), minlength=5) / data.numel()
    torch.testing.assert_close(shares, CHANCES, rtol=0, atol=0.025)  # 4.5 standard errors of 8000 draws
    assert draw(50, temperature=0).unique().tolist() == [1]


def test_it_begins_with_the_start_token_and_goes_in_raster_order() -> None:
    net = Fixed()
    data = sampler()(model(net), Latent(torch.empty(3, 0)), NO_CONDITION, torch.Generator().manual_seed(0))
    assert [tuple(tokens.shape) for tokens in net.seen] == [(3, 1), (3, 2), (3, 3), (3, 4)]
    assert net.seen[0].unique().tolist() == [5]
    assert torch.equal(net.seen[-1][:, 1:], data.flatten(1)[:, :3])


def test_chance_comes_from_the_generator_alone() -> None:
    torch.manual_seed(0)
    one = draw(20, seed=1)
    torch.manual_seed(1)
    assert torch.equal(draw(20, seed=1), one)
    assert not torch.equal(draw(20, seed=2), one)


@pytest.mark.parametrize(("guidance", "power"), [(0, 0), (2, 2)])
def test_guidance_goes_beyond_the_label(guidance: float, power: int) -> None:
    """p ~ p(nothing known) (p(label) / p(nothing known))^w."""
    data = draw(3000, Condition(label=torch.ones(3000, dtype=torch.int64)), guidance=guidance)
    wanted = CHANCES * (CHANCES.flip(0) / CHANCES) ** power
    shares = torch.bincount(data.flatten(), minlength=5) / data.numel()
    torch.testing.assert_close(shares, wanted / wanted.sum(), rtol=0, atol=0.02)
