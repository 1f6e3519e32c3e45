"""Keyword spotting on small computers."""
