"""What kinds of things data are: how each is read, rounded, shown and written."""
