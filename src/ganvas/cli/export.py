"""`ganvas export`."""
