"""How a trained model draws."""
