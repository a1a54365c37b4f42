"""Ganvas: generative image models from recipes of named parts."""

__version__ = "0.1.0"
