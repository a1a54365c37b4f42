"""Convolutional generators and critics."""
