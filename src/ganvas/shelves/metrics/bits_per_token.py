"""How well a model of tokens foretells data that it may not have seen."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import torch

from ganvas.errors import UsageError
from ganvas.nn.next_token import surprise
from ganvas.parts import metric
from ganvas.types import Condition, Evidence, Metric, Tokenizer, TokenModel

_TOKENS = 2**15  # of one pass


@metric("bits-per-token", paper="Shannon 1951")
class BitsPerToken(Metric):
    """The reference's mean negative log-likelihood under an autoregressive model, in bits a token.

    −1/L log2 p(x_1 … x_L), the mean over all real data: at best the entropy of the source, log2 of the vocabulary for a
    model that knows nothing. Each datum is foretold from its start on, so that short windows cost more than long ones.
    Models that read labels are given those of the data. Of a model with a tokenizer it is the likelihood of tokens,
    which says nothing of what the tokenizer loses. Of other models nothing is said, with a warning.
    """

    needs = frozenset({"model", "real:images"})
    lower_is_better: Mapping[str, bool] = {"bits_per_token": True}
    limits: Mapping[str, tuple[float, float]] = {"bits_per_token": (0, math.inf)}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        model, data = evidence.model, evidence.real.images
        assert model is not None
        assert data is not None
        net = model.maker
        if not isinstance(net, TokenModel):
            warnings.warn(f"bits-per-token is left out: {', '.join(model.nets)} are no token model", stacklevel=2)
            return {}
        condition = Condition.labelled(evidence.real.label).only(net.reads())
        tokenizer = next((network for network in model.nets.values() if isinstance(network, Tokenizer)), None)
        device = next(net.parameters()).device
        total, count = 0.0, 0
        rows = max(1, _TOKENS // net.length)
        with torch.inference_mode():
            for start in range(0, len(data), rows):
                piece = slice(start, start + rows)
                values = model.spec.modality.restored(data[piece]).to(device)
                tokens = values.flatten(1) if tokenizer is None else tokenizer.encode(values).flatten(1)
                if int(tokens.max()) >= net.outputs or tokens.shape[1] > net.length:
                    raise UsageError(
                        f"the data have tokens up to {int(tokens.max())} in rows of {tokens.shape[1]}; the model knows "
                        f"{net.outputs} in rows of {net.length}", hint="score it on data like those it was trained on",
                    )  # fmt: skip
                nats = surprise(net, tokens, condition.rows(piece).to(device))  # (n, L)
                total, count = total + float(nats.double().sum()), count + nats.numel()
        return {"bits_per_token": total / count / math.log(2)}
