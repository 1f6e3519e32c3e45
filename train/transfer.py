"""Transfer: a model begins with the weights of another, which may know other words."""

from collections.abc import Sequence

import keras
import numpy as np

from kws.errors import ConfigError

__all__ = ["transfer"]


def transfer(
    to: Sequence[keras.Variable],
    of: Sequence[keras.Variable],
    *,
    labels: Sequence[str],
    labels_before: Sequence[str],
) -> None:
    """Take over the weights of another model; of the last layer, those of labels that both know.

    Parameters
    ----------
    to, of : sequence of Variable
        The weights of two models of the same architecture but for the number of labels; the
        classifier's kernel and bias come last.
    labels, labels_before : sequence of str
        In the order of their outputs.

    Raises
    ------
    ConfigError
        If the architectures differ.
    """
    learned = [np.array(weight) for weight in of]
    if list(labels) != list(labels_before) and len(to) == len(learned):
        known = [label for label in labels if label in labels_before]
        mine = [labels.index(label) for label in known]
        theirs = [labels_before.index(label) for label in known]
        for i in (-2, -1):
            last = np.array(to[i])
            last[..., mine] = learned[i][..., theirs]
            learned[i] = last
    if [tuple(weight.shape) for weight in to] != [weight.shape for weight in learned]:
        raise ConfigError(
            "A training can begin with a run of the same architecture and features only. Received: "
            "one with other shapes of weights. Give another --start, or its `[model]` and "
            "`[features]`."
        )
    for weight, value in zip(to, learned, strict=True):
        weight.assign(value)
