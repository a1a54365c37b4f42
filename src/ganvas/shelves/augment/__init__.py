"""Differentiable changes to the images that a critic sees."""
