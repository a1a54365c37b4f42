"""How weights learn."""
