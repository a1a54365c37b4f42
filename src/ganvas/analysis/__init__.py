"""Looks at a model and its data that end in pictures: the sections of `ganvas inspect`."""
