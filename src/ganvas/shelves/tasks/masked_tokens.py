"""The task of masked models: tokens that are hidden, from those that are not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, cast

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.nn.masking import ScheduleName, masked_share, masks_of_shares
from ganvas.nn.precise import precise
from ganvas.parts import task
from ganvas.types import Batch, Condition, Facts, Nets, Role, Task, Tokenizer, TokenModel, Update


@task("masked-tokens", paper="Chang et al. 2022 (MaskGIT), eq. 1")
class MaskedTokens(Task):
    """A share γ(r) of each datum's tokens is masked, r ~ U(0, 1), and the transformer says what stood there.

    The loss is the cross-entropy of the masked tokens, averaged over all that are masked in a batch. Data become tokens
    by a frozen tokenizer, which a trained run brings (`from:`) or which has nothing to learn; data that are tokens
    themselves need none.

    Parameters
    ----------
    schedule : γ; see `ganvas.nn.masking.masked_share`.
    label_smoothing : the share of the target that is spread over all tokens.
    condition_dropout : the probability with which a datum's conditions are replaced by those that stand for none
        (`without` of the network), as classifier-free guidance needs.

    Raises
    ------
    BadValue : the data are no tokens and there is no tokenizer, tokens or lengths of the networks do not agree, or
        nothing stands for the lack of a condition.
    """

    roles: ClassVar[Mapping[str, Role]] = {
        "transformer": Role((TokenModel,)),
        "tokenizer": Role((Tokenizer,), optional=True, frozen=True),
    }
    averaged = ("transformer",)
    sampler = "masked-decoding"

    def __init__(
        self,
        nets: Nets,
        facts: Facts,
        *,
        schedule: ScheduleName = "cosine",
        label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.1,
        condition_dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
    ) -> None:
        self.transformer = cast("TokenModel", nets["transformer"])
        self.tokenizer = cast("Tokenizer | None", nets.get("tokenizer"))
        self.schedule: ScheduleName = schedule
        self.label_smoothing = label_smoothing
        self.condition_dropout = condition_dropout
        self.check_sizes(facts)
        self.check_dropout(facts)

    def check_sizes(self, facts: Facts) -> None:
        """Refuse a transformer that knows other tokens, or another number of them, than the data have."""
        if self.tokenizer is None:
            vocabulary, shape = facts.spec.modality.categories, facts.spec.shape
            if not vocabulary:
                raise BadValue(
                    f"the data are no tokens but {facts.spec.modality.part_name} data", where="networks",
                    hint="add a tokenizer: networks.tokenizer={from: RUN}; or networks.tokenizer=grey-levels-tokenizer",
                )  # fmt: skip
        else:
            vocabulary, shape = self.tokenizer.vocabulary, self.tokenizer.token_shape
        for key, has, needed, what in (
            ("vocabulary", self.transformer.outputs, vocabulary, "kinds of tokens"),
            ("length", self.transformer.length, math.prod(shape), "tokens a datum"),
        ):
            if has != needed:
                raise BadValue(
                    f"the transformer is made for {has} {what}, and there are {needed}",
                    where=f"networks.transformer.{key}", hint=f"networks.transformer.{key}={needed}",
                )  # fmt: skip
        if self.transformer.vocabulary <= self.transformer.outputs:
            raise BadValue(
                "the transformer knows no token that could stand for a masked one", where="networks.transformer",
                hint="networks.transformer=maskgit-transformer",
            )  # fmt: skip

    def check_dropout(self, facts: Facts) -> None:
        condition = facts.spec.stand_in(1, torch.Generator().manual_seed(0)).condition
        read = condition.of(self.transformer) if self.transformer.conditional else {}
        missing = sorted(read.keys() - self.transformer.without(condition).keys())
        if missing and self.condition_dropout:
            raise BadValue(
                f"no value stands for the lack of {missing[0]!r} in {self.transformer.called()!r}",
                key="condition_dropout", hint="task.condition_dropout=0",
            )  # fmt: skip

    def updates(self) -> list[Update]:
        return [Update(("transformer",), self.losses)]

    # Chang et al. 2022, eq. 1
    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Cross-entropy of the masked tokens, in nats."""
        tokens = self.tokens(batch.data)  # (N, L)
        share = masked_share(self.schedule, draws.uniform("masked share", (len(tokens),), like=tokens), tokens.shape[1])
        masked = masks_of_shares(share, tokens.shape[1])  # (N, L)
        seen = tokens.masked_fill(masked, self.transformer.outputs)
        logits = self.transformer(seen, **self.dropped(batch.condition).of(self.transformer))  # (N, L, K)
        loss = F.cross_entropy(precise(logits[masked]), tokens[masked], label_smoothing=self.label_smoothing)
        return {"cross_entropy": loss}

    def tokens(self, data: Tensor) -> Tensor:
        """Data (N, *shape) as tokens (N, L)."""
        if self.tokenizer is None:
            return data.flatten(1)
        with torch.no_grad():
            return self.tokenizer.encode(data).flatten(1)

    def dropped(self, condition: Condition) -> Condition:
        """The conditions, of which some data lose all."""
        if not (self.condition_dropout and self.transformer.conditional and len(condition)):
            return condition
        nothing = self.transformer.without(condition)
        some = next(iter(condition.values()))
        lost = draws.uniform("dropped condition", (len(some),), like=some) < self.condition_dropout
        return Condition(
            {
                name: torch.where(lost.view(-1, *[1] * (value.dim() - 1)), nothing[name], value)
                for name, value in condition.items()
                if name in nothing
            }
        )
