"""Critics that learn an embedding per datum and a proxy per class: ContraGAN's 2C loss and ReACGAN's D2D-CE.

Both compare by cosine, so that the length of an embedding plays no part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.parts import Flat, conditioning
from ganvas.shelves.conditioning.classifier import fake_of, real_of
from ganvas.shelves.conditioning.head import LinearHead, classes_of, given, in_full
from ganvas.types import DataSpec, Objective, Scores, Turn


def cosines(embedding: Tensor, proxy: Tensor) -> tuple[Tensor, Tensor]:
    """(N, E) twice -> cosines of all pairs of data (N, N), and of each datum with its proxy (N,)."""
    with torch.autocast(embedding.device.type, enabled=False):
        f, v = F.normalize(in_full(embedding), dim=1), F.normalize(in_full(proxy), dim=1)
        return f @ f.T, (f * v).sum(1)


def others(n: int, device: torch.device) -> Tensor:
    """(N, N) bool: all pairs but those of a datum with itself."""
    return ~torch.eye(n, dtype=torch.bool, device=device)


# Kang & Park 2020, the 2C loss; s = cosine / t:
# −log (exp s(x_i, e_{y_i}) + Σ_{k≠i, y_k=y_i} exp s(x_i, x_k)) / (exp s(x_i, e_{y_i}) + Σ_{k≠i} exp s(x_i, x_k))
def conditional_contrastive(embedding: Tensor, proxy: Tensor, label: Tensor, temperature: float) -> Tensor:
    """2C: pull data to the proxy of their class and to each other within it, and away from all others of the batch.

    Parameters
    ----------
    embedding, proxy : (N, E) of the data, and of the class of each.
    label : (N,) int64.
    temperature : t.
    """
    pairs, to_proxy = cosines(embedding, proxy)
    s = torch.cat([to_proxy[:, None], pairs], 1) / temperature  # (N, 1 + N)
    other = others(len(label), label.device)
    same = other & (label[:, None] == label)
    with_proxy = torch.ones_like(other[:, :1])  # the proxy counts above and below
    above = s.masked_fill(~torch.cat([with_proxy, same], 1), -torch.inf).logsumexp(1)  # (N,)
    below = s.masked_fill(~torch.cat([with_proxy, other], 1), -torch.inf).logsumexp(1)
    return (below - above).mean()


# Kang et al. 2021, the D2D-CE loss, with m_n = 1 − m_p as in the authors' code; [·]_− = min(·, 0), [·]_+ = max(·, 0):
# −log exp([f·v − m_p]_− / τ) / (exp([f·v − m_p]_− / τ) + Σ_{j: y_j≠y_i} exp([f_i·f_j − m_n]_+ / τ))
def data_to_data_cross_entropy(
    embedding: Tensor,
    proxy: Tensor,
    label: Tensor,
    temperature: float,
    margin: float,
    shifted: bool = False,
) -> Tensor:
    """D2D-CE: cross entropy between the proxy of a datum's class and the data of other classes, with two margins.

    Easy pairs, nearer to their proxy than m_p or farther from each other than m_n, no longer pull.

    Parameters
    ----------
    embedding, proxy : (N, E) of the data, and of the class of each.
    label : (N,) int64.
    temperature : τ.
    margin : m_p.
    shifted : divide each datum's negative terms by the exp of its largest similarity, and not the positive one, as the
        authors' code does for stability. It weighs positives more than the paper's equation.
    """
    pairs, to_proxy = cosines(embedding, proxy)
    attraction = (to_proxy - margin).clamp(max=0) / temperature  # (N,)
    distance = (pairs + margin - 1) / temperature  # (N, N)
    repulsion = distance.relu()
    if shifted:
        others_only = distance.masked_fill(~others(len(label), label.device), -torch.inf)
        repulsion = repulsion - others_only.amax(1, keepdim=True).detach()
    negatives = repulsion.masked_fill(label[:, None] == label, -torch.inf)
    return (torch.cat([attraction[:, None], negatives], 1).logsumexp(1) - attraction).mean()


@dataclass(frozen=True)
class Contrast:
    """Keys that both heads have.

    Parameters
    ----------
    embedding_dim : E, the length of embeddings and proxies.
    weight : of the loss in the critic's update.
    generator_weight : of that in the generator's update; None means as `weight`.
    auxiliary : a twin embedding of fakes as in TAC-GAN, or a second proxy per class for fakes as in ADC-GAN.
    """

    embedding_dim: Annotated[int, Gt(0)] = 512
    weight: Annotated[float, Ge(0)] = 1.0
    generator_weight: Annotated[float, Ge(0)] | None = None
    auxiliary: Literal["twin", "adc"] | None = None


_DEFAULTS = Contrast()


class ContrastiveHead(LinearHead, ABC):
    """What both heads share: embeddings, proxies, and ADC-GAN's or TAC-GAN's correction on top."""

    pairing = "optional"
    least_batch = 2  # one datum has none to be compared with
    name: ClassVar[str]

    def __init__(
        self, features: int, spec: DataSpec, wrap: Callable[[nn.Module], nn.Module], bias: bool, options: Contrast
    ) -> None:
        K, E = classes_of(spec, self.name), options.embedding_dim
        super().__init__(features, spec, wrap, bias)
        self.weight = options.weight
        self.generator_weight = options.weight if options.generator_weight is None else options.generator_weight
        self.auxiliary = options.auxiliary
        self.embed = wrap(nn.Linear(features, E))
        self.proxies = wrap(nn.Embedding(2 * K if self.auxiliary == "adc" else K, E))
        if self.auxiliary == "twin":
            self.twin_embed = wrap(nn.Linear(features, E))
            self.twin_proxies = wrap(nn.Embedding(K, E))

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) and label (N,) int64 -> logits (N,), extra "embedding" and "proxy", both (N, E).

        With `adc` there is "fake_proxy" too, with `twin` "twin_embedding" and "twin_proxy".
        """
        y = given(label, self.name)
        extra = {"embedding": self.embed(features)}
        if self.auxiliary == "adc":
            extra |= {"proxy": self.proxies(real_of(y)), "fake_proxy": self.proxies(fake_of(y))}
        else:
            extra["proxy"] = self.proxies(y)
        if self.auxiliary == "twin":
            extra |= {"twin_embedding": self.twin_embed(features), "twin_proxy": self.twin_proxies(y)}
        return Scores(self.logit(features, label), features, extra)

    @abstractmethod
    def contrast(self, embedding: Tensor, proxy: Tensor, label: Tensor) -> Tensor:
        """The loss of embeddings (N, D) against proxies (N, D)."""

    def term(self, scores: Scores, label: Tensor | None, prefix: str = "", proxy: str = "proxy") -> Tensor:
        extra = scores.extra
        return self.contrast(extra[f"{prefix}embedding"], extra[f"{prefix}{proxy}"], given(label, self.name))

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "contrastive" of real data; with an auxiliary also of generated ones."""
        terms = {"contrastive": self.weight * self.term(turn.real_scores, turn.label)}
        if self.auxiliary == "twin":
            terms["twin"] = self.weight * self.term(turn.fake_scores, turn.fake_label, "twin_")
        if self.auxiliary == "adc":
            terms["contrastive_fake"] = self.weight * self.term(turn.fake_scores, turn.fake_label, proxy="fake_proxy")
        return terms

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "contrastive" of generated data; the auxiliary's with the sign turned."""
        terms = {"contrastive": self.generator_weight * self.term(turn.fake_scores, turn.fake_label)}
        if self.auxiliary == "twin":
            terms["twin"] = -self.generator_weight * self.term(turn.fake_scores, turn.fake_label, "twin_")
        if self.auxiliary == "adc":
            fake = self.term(turn.fake_scores, turn.fake_label, proxy="fake_proxy")
            terms["contrastive_fake"] = -self.generator_weight * fake
        return terms


@conditioning("2c", paper="Kang & Park 2020")
class ConditionalContrastiveHead(ContrastiveHead):
    """ContraGAN: data are pulled to the proxy of their class and to each other within it (2C loss).

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`; the data must have classes.
    temperature : t; low ones look at the nearest pairs only.
    embedding_dim, weight, generator_weight, auxiliary : see `Contrast`.

    Raises
    ------
    BadValue : the data have no labels.
    """

    name = "2c"

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        temperature: Annotated[float, Gt(0)] = 1.0,
        options: Annotated[Contrast, Flat()] = _DEFAULTS,
    ) -> None:
        super().__init__(features, spec, wrap, bias, options)
        self.temperature = temperature

    def contrast(self, embedding: Tensor, proxy: Tensor, label: Tensor) -> Tensor:
        return conditional_contrastive(embedding, proxy, label, self.temperature)


@conditioning("d2d-ce", paper="Kang et al. 2021")
class DataToDataHead(ContrastiveHead):
    """ReACGAN: each datum against the proxy of its class and the data of other classes, easy pairs left out (D2D-CE).

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`; the data must have classes.
    temperature : τ.
    margin : m_p, the cosine with its proxy from which on a datum is easy; pairs are easy below m_n = 1 − m_p.
    shifted : the authors' code, which weighs positives more than the paper's equation; see the function.
    embedding_dim, weight, generator_weight, auxiliary : see `Contrast`.

    Raises
    ------
    BadValue : the data have no labels.
    """

    name = "d2d-ce"

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        temperature: Annotated[float, Gt(0)] = 0.5,
        margin: Annotated[float, Interval(ge=-1, le=1)] = 0.98,
        shifted: bool = True,
        options: Annotated[Contrast, Flat()] = _DEFAULTS,
    ) -> None:
        super().__init__(features, spec, wrap, bias, options)
        self.temperature, self.margin, self.shifted = temperature, margin, shifted

    def contrast(self, embedding: Tensor, proxy: Tensor, label: Tensor) -> Tensor:
        return data_to_data_cross_entropy(embedding, proxy, label, self.temperature, self.margin, self.shifted)
