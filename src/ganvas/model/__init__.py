"""The trained model: frozen weights that sample, and that everything else measures, edits and exports."""

from ganvas.model.model import (
    BLOCK,
    Capability,
    HasAutoencoder,
    HasCritic,
    HasEncoder,
    HasLatents,
    HasMaker,
    HasPredictor,
    HasTokenizer,
    Model,
    Rows,
    Wish,
    condition_of,
    load,
    model_header,
)

__all__ = [
    "BLOCK", "Capability", "HasAutoencoder", "HasCritic", "HasEncoder", "HasLatents", "HasMaker", "HasPredictor",
    "HasTokenizer", "Model", "Rows", "Wish", "condition_of", "load", "model_header",
]  # fmt: skip
