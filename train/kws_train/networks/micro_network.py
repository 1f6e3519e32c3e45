"""A small network for microcontrollers: frames of the micro frontend in, an output every 30 ms.

Two convolutions over time and bands, which tolerate shifts in pitch, then residual blocks of a
depthwise convolution over time and a 1x1 convolution (as in MixedNet of microWakeWord and DS-CNN of
Zhang et al. 2017), each looking back further than the one before. All of it are operators that
ESPHome's interpreter has.
"""

from kws_train.networks.blocks import Residual
from kws_train.networks.convolution import Causal
from kws_train.networks.layers import Classify, Dropout, Flatten
from kws_train.networks.spotting import Spotting
from kws_train.networks.streaming import Streaming

__all__ = ["N_CONTEXT_FRAMES", "STRIDE_FRAMES", "micro_network"]

STRIDE_FRAMES = 3
"""Frames of an output."""

_FIRST_KERNEL, _SECOND_KERNEL = 5, 3
_KERNELS = (5, 9, 13, 21)  # outputs

N_CONTEXT_FRAMES = _FIRST_KERNEL + STRIDE_FRAMES * sum(
    kernel - 1 for kernel in (_SECOND_KERNEL, *_KERNELS)
)
"""Frames that an output depends on: 1.4 s."""


def micro_network(
    n_labels: int, *, size: int = 40, channels: int = 64, dropout: float = 0.1
) -> Spotting:
    """Return an untrained network, frames (batch, k, size) to logits (batch, k / 3, labels).

    Parameters
    ----------
    n_labels : int
    size : int
        Values of a frame.
    channels : int
        Of the blocks.
    dropout : float
        Share, before each block and the last layer.
    """
    layers: list[Streaming] = [
        Causal(16, kernel=(_FIRST_KERNEL, 5), stride=(STRIDE_FRAMES, 2)),
        Causal(None, kernel=(_SECOND_KERNEL, 3), stride=(1, 2)),
        Causal(16),
        Flatten(),
        Causal(channels),
    ]
    for kernel in _KERNELS:
        block = Residual(
            [
                Causal(None, kernel=(kernel, 1), activation="linear"),
                Causal(channels, activation="linear"),
            ]
        )
        layers += [Dropout(dropout), block]
    model = Spotting([*layers, Classify(n_labels, dropout=dropout)])
    model.build((None, None, size))
    return model
