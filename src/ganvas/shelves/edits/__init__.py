"""Edits: moves of latents that change what is made, fitted once and applied at any strength."""
