"""The training loop, checkpoints, averages, precision and the order of the data; it knows no part by name."""
