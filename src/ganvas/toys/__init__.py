"""Toy data whose truth is known, so that generators of them are judged exactly."""
