"""Streaming layers around the others: normalisation, reshaping, averaging, the classifier."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kws_train.networks.keras_backend import constants
from kws_train.networks.streaming import Shape, States, Streaming, Tensor

__all__ = ["Average", "Classify", "Dropout", "Flatten", "Normalize", "Stack"]


class Normalize(Streaming):
    """Shift and scale each band by fixed numbers: (x - mean) / std.

    Parameters
    ----------
    mean, std : sequence of float [shape=(bands,)]
        Statistics of the training features.
    """

    points = ("frames", "scaled", "output")

    def __init__(self, mean: Sequence[float], std: Sequence[float], **options: Any) -> None:
        super().__init__(**options)
        self.statistics = (list(mean), list(std))
        self.scale = (1.0 / np.asarray(std, np.float32))[:, None]
        self.offset = -np.asarray(mean, np.float32)[:, None] * self.scale

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Normalise (batch, time, bands, 1)."""
        return self._normalize(x, *self._rows())

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Normalise the next frames."""
        return self._normalize(x, *constants(self._rows)), states

    def _rows(self) -> list[Tensor]:
        return [self.quantized_kernel(row, axis=None) for row in (self.scale, self.offset)]

    def _normalize(self, x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        x = self.quantized("scaled", self.quantized("frames", x) * scale)
        return self.quantized("output", x + offset)


class Flatten(Streaming):
    """Fold bands into channels: (..., bands, channels) to (..., 1, bands * channels)."""

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Reshape."""
        return ops.reshape(x, (-1, x.shape[1] or ops.shape(x)[1], 1, x.shape[2] * x.shape[3]))

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape after folding."""
        return (shape[0], shape[1], 1, shape[2] * shape[3])


class Stack(Streaming):
    """Stack n frames: (time, bands, 1) to (time / n, 1, n * bands), a lower frame rate."""

    def __init__(self, n_frames: int, **options: Any) -> None:
        super().__init__(**options)
        self.time_stride = n_frames

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Reshape (batch, time, bands, channels); time is a multiple of the number of frames."""
        n_time = (x.shape[1] or ops.shape(x)[1]) // self.time_stride
        return ops.reshape(x, (-1, n_time, 1, self.time_stride * x.shape[2] * x.shape[3]))

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape after stacking."""
        time = None if shape[1] is None else shape[1] // self.time_stride
        return (shape[0], time, 1, self.time_stride * shape[2] * shape[3])


class Average(Streaming):
    """Mean over bands and over the newest outputs: global average pooling made causal.

    A network for clips averages over the whole clip before its classifier. A stream has no end, so
    the mean is over the last `n_outputs` outputs of the previous layer, about the length of a clip,
    kept in a ring buffer that begins with zeros. An exponential mean would need only one vector,
    but it never forgets entirely, and int8 rounds its small steps to zero. In the int8 model the
    mean over time has the quantisation range of its input.
    """

    points = ("bands",)

    def __init__(self, n_outputs: int, **options: Any) -> None:
        super().__init__(**options)
        self.n_outputs = n_outputs
        self.quantize_aware = False

    def add_ranges(self) -> None:
        """Make the layer quantisation-aware; it has a range only if there are several bands."""
        self.quantize_aware = True

    def build(self, shape: Shape) -> None:
        """Store the shape of (batch, time, bands, channels)."""
        self.n_bands, self.n_channels = shape[2], shape[3]
        if self.quantize_aware and self.n_bands > 1:
            super().add_ranges()

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Average (batch, time, bands, channels)."""
        x = self._over_bands(x)
        return self._mean(ops.pad(x, ((0, 0), (self.n_outputs - 1, 0), (0, 0), (0, 0))))

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape with one band."""
        return (shape[0], shape[1], 1, shape[3])

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Return the shape of the ring buffer."""
        return [(1, self.n_outputs - 1, 1, self.n_channels)] if self.n_outputs > 1 else []

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Average the next outputs with those in the buffer."""
        x = self._over_bands(x)
        if states:
            x = ops.concatenate([states[0], x], axis=1)
            states = [x[:, 1 - self.n_outputs :]]
        return self._mean(x), states

    def _over_bands(self, x: Tensor) -> Tensor:
        if self.n_bands == 1:
            return x
        return self.quantized("bands", ops.mean(x, axis=2, keepdims=True))

    def _mean(self, x: Tensor) -> Tensor:
        mean = ops.average_pool(x, (self.n_outputs, 1), strides=1, padding="valid")
        return mean if self.n_bands == 1 else self.quantized("bands", mean)


class Dropout(Streaming):
    """Zero a share of the inputs in training."""

    def __init__(self, share: float, **options: Any) -> None:
        super().__init__(**options)
        self.dropout = keras.layers.Dropout(share)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Return the inputs, scaled up by as much as is zeroed."""
        return self.dropout(x, training=training)


class Classify(Streaming):
    """Dropout and a dense layer with one output per label.

    `call` returns logits, as losses need them; `step` returns posteriors.
    """

    points = ("logits",)

    def __init__(self, n_labels: int, *, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.n_labels = n_labels
        self.dropout = keras.layers.Dropout(dropout)
        self.dense = keras.layers.Dense(n_labels)

    def build(self, shape: Shape) -> None:
        """Build for (batch, time, 1, channels)."""
        self.dense.build((None, shape[3]))

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Return logits (batch, time, labels)."""
        return self._logits(self.dropout(x, training=training)[:, :, 0, :], *self._weights())

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return (batch, time, labels)."""
        return (shape[0], shape[1], self.n_labels)

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Return posteriors (1, time, labels)."""
        x = ops.reshape(x, (x.shape[1], x.shape[3]))
        posteriors = ops.softmax(self._logits(x, *constants(self._weights)))
        return ops.reshape(posteriors, (1, x.shape[0], self.n_labels)), states

    def _weights(self) -> tuple[Tensor, Tensor]:
        kernel, bias = self.dense.weights
        return self.quantized_kernel(kernel), bias

    def _logits(self, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        return self.quantized("logits", ops.matmul(x, kernel) + bias)
