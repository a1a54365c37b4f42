"""Generators that are driven by a style, and their critics."""
