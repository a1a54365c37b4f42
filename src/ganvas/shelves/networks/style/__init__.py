"""Generators with a style for each layer, and their critics."""
