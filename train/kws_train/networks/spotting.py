"""The model of a stack of streaming layers: whole sequences in training, steps in the runtime."""

import math
from collections.abc import Sequence
from typing import Any

import keras

from kws_train.networks.layers import Normalize
from kws_train.networks.streaming import States, Streaming, Tensor, step_through

__all__ = ["Spotting"]


class Spotting(keras.Model):
    """A stack of streaming layers, with a vector of logits per `time_stride` frames."""

    def __init__(self, layers: Sequence[Streaming], **options: Any) -> None:
        super().__init__(**options)
        self.stack = list(layers)
        self.time_stride = math.prod(layer.time_stride for layer in self.stack)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Build for (batch, frames, features)."""
        self.n_features = shape[-1] or 0
        shape = (*shape, 1)
        for layer in self.stack:
            layer.build(shape)
            layer.built = True
            shape = layer.compute_output_shape(shape)
        self.built = True

    def call(self, frames: Tensor, training: bool = False) -> Tensor:
        """Turn frames (batch, frames, features) into logits (batch, frames / stride, labels)."""
        x = keras.ops.expand_dims(frames, -1)
        for layer in self.stack:
            x = layer(x, training=training)
        return x

    @property
    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each feature, as the first layer normalises with them.

        0 and 1 if the features go in as they are.
        """
        first = self.stack[0]
        if isinstance(first, Normalize):
            return first.statistics
        return [0.0] * self.n_features, [1.0] * self.n_features

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of all states, first layer first."""
        return [shape for layer in self.stack for shape in layer.state_shapes()]

    def step(self, frames: Tensor, states: States) -> tuple[Tensor, States]:
        """Turn the next frames (1, n, features) into posteriors (1, n / stride, labels)."""
        return step_through(self.stack, keras.ops.expand_dims(frames, -1), states)
