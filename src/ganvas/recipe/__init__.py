"""Recipes: what to build as plain data, read, laid over each other, checked and filled."""
