"""Layers in plain torch that several systems share."""
