"""The trained model: frozen weights that sample, and that everything else measures, edits and exports."""

from ganvas.model.capabilities import (
    Capability,
    HasAutoencoder,
    HasCritic,
    HasEncoder,
    HasLatents,
    HasMaker,
    HasPredictor,
    HasTokenizer,
)
from ganvas.model.conditions import Rows, Wish, condition_of
from ganvas.model.draws import BLOCK
from ganvas.model.model import Model, load, model_header

__all__ = [
    "BLOCK", "Capability", "HasAutoencoder", "HasCritic", "HasEncoder", "HasLatents", "HasMaker", "HasPredictor",
    "HasTokenizer", "Model", "Rows", "Wish", "condition_of", "load", "model_header",
]  # fmt: skip
