"""Losses of generator and critic."""
