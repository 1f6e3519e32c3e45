"""Synthetic speech: voices, phrases, confusable negatives, and quality checks of the clips."""
