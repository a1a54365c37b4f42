"""Extractors: networks whose features metrics read."""
