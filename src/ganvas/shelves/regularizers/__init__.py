"""Terms beside the loss and constraints on weights."""
