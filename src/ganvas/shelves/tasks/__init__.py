"""What is trained against what: lists of updates."""
