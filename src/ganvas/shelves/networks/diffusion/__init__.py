"""Denoisers of diffusion and flow models."""
