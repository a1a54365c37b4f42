"""Generators and critics, by family."""
