"""A run from recipe to trained model: its folder, its session, its check, its forecast and its trace."""
