"""Data sets, and how images and tables are read."""
