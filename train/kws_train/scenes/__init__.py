"""Scenes: continuous audio mixed from clips, speech and noise, with targets, for training."""
