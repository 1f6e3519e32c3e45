"""`kws new`: from phrases, recordings or both to a model file, its thresholds and a report."""
