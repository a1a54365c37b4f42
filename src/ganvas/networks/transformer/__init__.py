"""Transformer GANs."""
