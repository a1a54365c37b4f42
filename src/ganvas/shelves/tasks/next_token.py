"""The task of autoregressive models: each token from those before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, cast

import torch
from annotated_types import Ge, Le
from torch import Tensor

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.nn.next_token import surprise
from ganvas.parts import task
from ganvas.types import Batch, Condition, Facts, Nets, Role, Task, Tokenizer, TokenModel, Update


@task("next-token", paper="Radford et al. 2018, eq. 1")
class NextToken(Task):
    """Maximum likelihood of sequences, token by token: the mean of −log p(x_l | x_1 … x_(l−1)) over all places.

    For data that are tokens themselves, or that a trained tokenizer turns into tokens, in the order of their axes. A
    start token stands before the first, so that the first is foretold, too. The log holds the loss in nats a token; its
    reading `bits_per_token` is the last one's in bits, before the weights moved.

    Parameters
    ----------
    condition_dropout : the share of data whose label is hidden, as guidance needs it; the label `num_classes` stands
        for a hidden one.

    Raises
    ------
    BadValue : the data are no tokens and there is no tokenizer, or tokens or lengths of the networks do not agree.
    """

    roles: ClassVar[Mapping[str, Role]] = {
        "model": Role((TokenModel,)),
        "tokenizer": Role((Tokenizer,), optional=True, frozen=True),
    }
    averaged = ("model",)
    sampler = "autoregressive"

    def __init__(self, nets: Nets, facts: Facts, *, condition_dropout: Annotated[float, Ge(0), Le(1)] = 0.0) -> None:
        self.model = cast("TokenModel", nets["model"])
        self.tokenizer = cast("Tokenizer | None", nets.get("tokenizer"))
        self.num_classes = facts.spec.num_classes
        self.condition_dropout = condition_dropout
        self.last: Tensor | None = None  # the loss of the last update, in nats
        self.check(facts)

    def check(self, facts: Facts) -> None:
        if self.tokenizer is None:
            categories, shape = facts.spec.modality.categories, facts.spec.shape
            if not categories:
                raise BadValue(
                    f"the data are no tokens but {facts.spec.modality.part_name} data", where="networks.tokenizer",
                    hint="add networks.tokenizer with from: and freeze: all",
                )  # fmt: skip
        else:
            categories, shape = self.tokenizer.vocabulary, self.tokenizer.token_shape
        if self.model.outputs != categories:
            raise BadValue(
                f"the model answers with {self.model.outputs} tokens; there are {categories}", where="networks.model",
                hint=f"networks.model.vocabulary={categories}",
            )  # fmt: skip
        if self.model.vocabulary <= self.model.outputs:
            raise BadValue("the model has no token for the start of a sequence", where="networks.model")
        if self.model.length < math.prod(shape):
            raise BadValue(
                f"the model reads {self.model.length} tokens; a datum has {math.prod(shape)}", where="networks.model",
                hint=f"networks.model.length={math.prod(shape)}",
            )  # fmt: skip
        if self.condition_dropout and not self.num_classes:
            raise BadValue("the data have no labels to hide", key="condition_dropout", hint="task.condition_dropout=0")

    def updates(self) -> list[Update]:
        return [Update(("model",), self.losses)]

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The mean surprise of data (N, *shape), in nats."""
        loss = surprise(self.model, self.tokens(batch.data), self.hidden(batch.condition)).mean()
        self.last = loss.detach()
        return {"cross_entropy": loss}

    def readings(self) -> dict[str, float]:
        """The last update's loss in bits."""
        return {} if self.last is None else {"bits_per_token": float(self.last) / math.log(2)}

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last = state["last"]

    def tokens(self, data: Tensor) -> Tensor:
        """Data (N, *shape) as tokens (N, L)."""
        if self.tokenizer is None:
            return data.flatten(1)
        with torch.no_grad():
            return self.tokenizer.encode(data).flatten(1)

    def hidden(self, condition: Condition) -> Condition:
        """The conditions with some labels hidden at random."""
        if not self.condition_dropout or condition.label is None:
            return condition
        label = condition.label
        hide = draws.uniform("dropped condition", (len(label),), like=label) < self.condition_dropout
        return Condition({**condition, "label": label.masked_fill(hide, self.num_classes)})
