"""The parts: a folder for each kind, and a file for each system."""
