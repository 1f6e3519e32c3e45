"""Bundled models, each a .tflite with its card beside it, and the demo recording."""
