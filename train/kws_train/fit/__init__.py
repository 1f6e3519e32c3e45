"""Training: from a recipe to a run folder.

- `training`: train a recipe or its stages; restore a trained model from its run folder.
- `batches`: batches of features, targets and weights from random scenes.
- `losses`: losses over sets of labels, CTC, and distillation.
- `soft_targets`: what a model says of each clip, to distil from.
- `checkpoints`: callbacks that save or stop a training, and resuming.
- `hard_negatives`: places in speech and noise where a model gives false alarms.
- `prefetch`: batches computed ahead by another process.
- `vector_training`: training on vectors of a front end, for heads and microcontrollers.
- `vector_windows`: the windows of vectors that it trains on.
- `search`: hyper-parameter search.
"""
