"""Numbers about numbers: moments of features, and intervals that say how sure a value is."""
