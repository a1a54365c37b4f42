"""Generators and critics made of attention."""
