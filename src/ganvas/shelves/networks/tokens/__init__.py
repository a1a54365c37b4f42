"""Tokenizers, which turn data into tokens and back, and networks over tokens."""
