"""The trained model: frozen weights that sample, and that everything else measures, edits and exports."""

from ganvas.model.model import BLOCK, Capability, HasCritic, HasEncoder, HasLatents, Model, load, model_header

__all__ = ["BLOCK", "Capability", "HasCritic", "HasEncoder", "HasLatents", "Model", "load", "model_header"]
