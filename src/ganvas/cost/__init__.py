"""What a computation costs, in FLOPs, bytes and seconds."""
