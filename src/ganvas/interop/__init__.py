"""Official checkpoints of other code bases, carried over to our networks, and export to ONNX."""
