"""Searches: what varies, the trials and their trainings, and what was found."""
