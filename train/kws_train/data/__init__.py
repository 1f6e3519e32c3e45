"""Corpora of clips and speech, and the times of the words in them."""
