"""The head that tells keywords apart in vectors of the speech embedding.

A 1x1 convolution, then three causal convolutions of three taps: 1.7 s of audio in all.
"""

from kws_train.networks.convolution import Causal
from kws_train.networks.layers import Classify, Dropout, Flatten
from kws_train.networks.spotting import Spotting
from kws_train.networks.streaming import Streaming

__all__ = ["N_CONTEXT_VECTORS", "embedding_head", "head_layers"]

N_CONTEXT_VECTORS = 13
"""Vectors that an output depends on."""

_DILATIONS = (1, 2, 3)


def embedding_head(
    n_labels: int, *, size: int = 96, channels: int = 64, dropout: float = 0.2
) -> Spotting:
    """Return an untrained head, vectors (batch, k, size) to logits (batch, k, labels).

    Parameters
    ----------
    n_labels : int
    size : int
        Values of a vector.
    channels : int
        Of the convolutions in time.
    dropout : float
        Share, before each of them and the last layer.
    """
    layers = head_layers(size=size, channels=channels, dropout=dropout)
    model = Spotting([*layers, Classify(n_labels, dropout=dropout)])
    model.build((None, None, size))
    return model


def head_layers(*, size: int, channels: int, dropout: float) -> list[Streaming]:
    """Return the untrained layers of a head below its classifier."""
    layers: list[Streaming] = [Flatten(), Causal(size)]
    for dilation in _DILATIONS:
        layers += [Dropout(dropout), Causal(channels, kernel=(3, 1), dilation=dilation)]
    return layers
