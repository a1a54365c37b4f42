"""Networks over text and other sequences of tokens."""
