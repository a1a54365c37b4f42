"""Heads of critics: how a label or another condition enters a score."""
