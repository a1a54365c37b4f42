"""Looks at a model that end in pictures."""
