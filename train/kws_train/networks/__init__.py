"""Streaming layers and the network architectures built from them."""
