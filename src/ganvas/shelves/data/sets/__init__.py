"""The data sets that a recipe names."""
