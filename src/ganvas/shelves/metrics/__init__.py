"""Scores of samples and of models."""
