"""Transfer: a model begins with the weights of another, which may know other words."""

from collections.abc import Sequence

import numpy as np

from kws.errors import ConfigError
from kws.train.zoo import Network

__all__ = ["transfer"]


def transfer(
    model: Network, before: Network, *, labels: Sequence[str], labels_before: Sequence[str]
) -> None:
    """Give `model` the weights of `before`; of the last layer, those of the labels that both know.

    Parameters
    ----------
    model, before : Network
        Of the same architecture but for the number of labels; the classifier's kernel and bias are
        the last of their weights.
    labels, labels_before : sequence of str
        In the order of their outputs.

    Raises
    ------
    ConfigError
        If the architectures differ.
    """
    fresh, learned = model.get_weights(), before.get_weights()
    if list(labels) != list(labels_before) and len(fresh) == len(learned):
        known = [label for label in labels if label in labels_before]
        to = [labels.index(label) for label in known]
        of = [labels_before.index(label) for label in known]
        last = [weights.copy() for weights in fresh[-2:]]
        for mine, theirs in zip(last, learned[-2:], strict=True):
            mine[..., to] = theirs[..., of]
        learned[-2:] = last
    if [np.shape(weights) for weights in fresh] != [np.shape(weights) for weights in learned]:
        raise ConfigError(
            "A training can begin with a run of the same architecture and features only. Received: "
            "one with other shapes of weights. Give another --start, or its `[model]` and "
            "`[features]`."
        )
    model.set_weights(learned)
