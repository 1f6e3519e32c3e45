"""Training: loop, batches, losses, checkpoints, hard negatives, hyper-parameter search."""
