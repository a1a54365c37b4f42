"""What a process runs on: devices, seeds, and the ranks that train together."""
