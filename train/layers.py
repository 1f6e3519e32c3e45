"""Layers that run two ways: over whole sequences in training, and step by step on the device.

Every layer has `call(x)` for a sequence and `step(x, state)` for the next few frames of it; pushed
through `step` in pieces, with `initial_state` first, a sequence gives what `call` gives for the
whole. Tensors are (batch, time, bands, channels) throughout; `step` has batch 1. Time is causal:
output t sees input up to (t + 1) * stride - 1. `step` reads weights as constants with batch
normalisation folded in, so that it can be converted to TensorFlow Lite.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from kws.train.backend import has_gpu

__all__ = [
    "GRU",
    "Causal",
    "Classify",
    "Flatten",
    "Normalize",
    "Residual",
    "Streaming",
    "constants",
    "joined",
    "step_through",
]

Tensor: TypeAlias = Any
States: TypeAlias = list[Tensor]
Shape: TypeAlias = tuple[Any, ...]
BATCH_NORM_MOMENTUM = 0.9  # 0.99 lags behind on data sets of tens of thousands of clips


class Streaming(keras.layers.Layer):
    """A layer with a step. By default it has no state and its step is its call."""

    time_stride = 1

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the states, each with batch 1; known once the layer is built."""
        return []

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Return the output for the next frames, and the states after them."""
        return self.call(x), states

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape after this layer."""
        return shape

    def initial_states(self) -> States:
        """Return the states before the first frame: zeros."""
        return [ops.zeros(shape) for shape in self.state_shapes()]


class Normalize(Streaming):
    """Shift and scale each band by fixed numbers: (x - mean) / std.

    Parameters
    ----------
    mean, std : sequence of float [shape=(bands,)]
        Statistics of the training features.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **options: Any) -> None:
        super().__init__(**options)
        self.statistics = (list(mean), list(std))
        self.scale = (1.0 / np.asarray(std, np.float32))[:, None]
        self.offset = -np.asarray(mean, np.float32)[:, None] * self.scale

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Normalise (batch, time, bands, 1)."""
        return x * self.scale + self.offset


class Causal(Streaming):
    """Convolution, batch normalisation, activation; causal in time, `same` over bands.

    Parameters
    ----------
    filters : int or None
        Output channels; None makes the convolution depthwise.
    kernel, stride : (time, bands)
        Sizes in frames and bands.
    dilation : int
        Frames from one tap of the kernel to the next; above 1 only where nothing is strided.
    activation : str or callable
        A Keras activation; `linear` where a residual sum follows.
    """

    def __init__(
        self,
        filters: int | None,
        *,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        dilation: int = 1,
        activation: str | Callable[[Tensor], Tensor] = "relu",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.filters = filters
        self.kernel_size = kernel
        self.stride = stride
        self.dilation = dilation
        self.time_stride = stride[0]
        self.activation = keras.activations.get(activation)
        self.norm = keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)

    def build(self, shape: Shape) -> None:
        """Create the kernel for inputs (batch, time, bands, channels)."""
        _, _, n_bands, n_channels = shape
        self.n_past = max(0, 1 + self.dilation * (self.kernel_size[0] - 1) - self.time_stride)
        total = max(0, self.kernel_size[1] - self.stride[1]) if n_bands != 1 else 0
        if n_bands % self.stride[1] and n_bands != 1:
            total = max(0, self.kernel_size[1] - n_bands % self.stride[1])
        self.band_padding = (total // 2, total - total // 2)
        self.input_bands, self.input_channels = n_bands, n_channels
        n_out = 1 if self.filters is None else self.filters
        self.kernel = self.add_weight(
            shape=(*self.kernel_size, n_channels, n_out), initializer="he_normal", name="kernel"
        )
        self.norm.build((None, None, None, self.filters or n_channels))

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Convolve (batch, time, bands, channels); time shrinks by the stride."""
        x = ops.pad(x, ((0, 0), (self.n_past, 0), self.band_padding, (0, 0)))
        convolved = (
            self._convolve_evenly(x)
            if self._is_uneven(x)
            else self._convolve(x, self.kernel, dilation=self.dilation)
        )
        return self.activation(self.norm(convolved, training=training))

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return (batch, time / stride, bands / stride, filters)."""
        time = None if shape[1] is None else shape[1] // self.time_stride
        n_bands = -(-self.input_bands // self.stride[1])
        return (shape[0], time, n_bands, self.filters or self.input_channels)

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Return the shape of the ring buffer, if the kernel looks back."""
        if not self.n_past:
            return []
        return [(1, self.n_past, self.input_bands, self.input_channels)]

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Convolve the next frames, a multiple of the stride."""
        if self.n_past:
            x = ops.concatenate([states[0], x], axis=1)
            states = [x[:, -self.n_past :]]
        x = ops.pad(x, ((0, 0), (0, 0), self.band_padding, (0, 0))) if any(self.band_padding) else x
        kernel, bias = self.folded()
        return self.activation(self._convolve_taps(x, kernel) + bias), states

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Return kernel and bias with the normalisation's moving statistics folded in."""
        gamma, beta, mean, variance = constants(self.norm.weights)
        scale = gamma / np.sqrt(variance + self.norm.epsilon)
        shape = (1, 1, -1, 1) if self.filters is None else (1, 1, 1, -1)
        kernel = constants([self.kernel])[0] * scale.reshape(shape)
        return kernel.astype(np.float32), (beta - mean * scale).astype(np.float32)

    def _is_uneven(self, x: Tensor) -> bool:
        """Return whether TensorFlow refuses these strides: only float32 on a CPU may have them."""
        if self.filters is not None or self.stride[0] == self.stride[1]:
            return False
        single = keras.backend.standardize_dtype(x.dtype) == "float32"
        return keras.backend.backend() == "tensorflow" and (not single or has_gpu())

    def _convolve_evenly(self, x: Tensor) -> Tensor:
        """Convolve at every place and drop those between the strides: slower, and the same."""
        everywhere = ops.depthwise_conv(x, self.kernel, strides=1, padding="valid")
        return everywhere[:, :: self.stride[0], :: self.stride[1]]

    def _convolve_taps(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Convolve few frames: taps that lie apart are picked first, which converts as it is."""
        if self.dilation == 1:
            return self._convolve(x, kernel)
        span = 1 + self.dilation * (self.kernel_size[0] - 1)
        starts = range(x.shape[1] - span + 1)
        taps = [x[:, start : start + span : self.dilation] for start in starts]
        return joined([self._convolve(one, kernel) for one in taps])

    def _convolve(self, x: Tensor, kernel: Tensor, *, dilation: int = 1) -> Tensor:
        convolve = ops.depthwise_conv if self.filters is None else ops.conv
        return convolve(
            x, kernel, strides=self.stride, padding="valid", dilation_rate=(dilation, 1)
        )


class Residual(Streaming):
    """relu(x + layers(x)): the layers keep shape and time, or a shortcut changes x as they do.

    Parameters
    ----------
    layers : sequence of Streaming
    shortcut : Streaming, optional
        What x goes through before the sum, in place of nothing; it has no state.
    """

    def __init__(
        self, layers: Sequence[Streaming], *, shortcut: Streaming | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.layers = list(layers)
        self.shortcut = shortcut
        self.time_stride = math.prod(layer.time_stride for layer in layers)

    def build(self, shape: Shape) -> None:
        """Build the layers in turn."""
        if self.shortcut:
            self.shortcut.build(shape)
            self.shortcut.built = True
        for layer in self.layers:
            layer.build(shape)
            layer.built = True
            shape = layer.compute_output_shape(shape)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Add what the layers make of x to x."""
        y = x
        for layer in self.layers:
            y = layer(y, training=training)
        return ops.relu(y + (self.shortcut(x, training=training) if self.shortcut else x))

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape after the layers."""
        for layer in self.layers:
            shape = layer.compute_output_shape(shape)
        return shape

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Return the states of all layers."""
        return [shape for layer in self.layers for shape in layer.state_shapes()]

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Step through the layers."""
        y, states = step_through(self.layers, x, states)
        return ops.relu(y + (self.shortcut.step(x, [])[0] if self.shortcut else x)), states


class Flatten(Streaming):
    """Fold bands into channels: (..., bands, channels) to (..., 1, bands * channels)."""

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Reshape."""
        return ops.reshape(x, (-1, x.shape[1] or ops.shape(x)[1], 1, x.shape[2] * x.shape[3]))

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape after folding."""
        return (shape[0], shape[1], 1, shape[2] * shape[3])


class GRU(Streaming):
    """Gated recurrent unit over time (Cho et al. 2014), `reset_after` form, one band.

    z = s(Wz x + Uz h + bz), r likewise, c = tanh(Wc x + bc + r * (Uc h + dc)), h' = c + z (h - c).
    """

    def __init__(self, units: int, *, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.cell = keras.layers.GRU(units, return_sequences=True, use_cudnn=False)
        self.dropout = keras.layers.Dropout(dropout)

    def build(self, shape: Shape) -> None:
        """Build the cell for (batch, time, 1, channels)."""
        self.cell.build((shape[0], shape[1], shape[3]))

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Run over (batch, time, 1, channels)."""
        y = self.cell(self.dropout(x, training=training)[:, :, 0, :], training=training)
        return ops.expand_dims(y, 2)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape with `units` channels."""
        return (shape[0], shape[1], 1, self.units)

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Return the shape of h."""
        return [(1, self.units)]

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Run the next frames one after another, unrolled."""
        h = self.bound(states[0])
        outputs = []
        for t in range(x.shape[1]):
            h = self._cell_step(x[:, t, 0, :], h)
            outputs.append(ops.reshape(h, (1, 1, 1, self.units)))
        return joined(outputs), [h]

    def _cell_step(self, x: Tensor, h: Tensor) -> Tensor:
        kernel, recurrent, bias = constants(self.cell.weights)
        wz, wr, wc = np.split(kernel, 3, axis=1)
        uz, ur, uc = np.split(recurrent, 3, axis=1)
        (bz, br, bc), (dz, dr, dc) = (np.split(row, 3) for row in bias)
        z = ops.sigmoid(ops.matmul(x, wz) + (bz + dz) + ops.matmul(h, uz))
        r = ops.sigmoid(ops.matmul(x, wr) + (br + dr) + ops.matmul(h, ur))
        c = ops.tanh(ops.matmul(x, wc) + bc + r * (ops.matmul(h, uc) + dc))
        return self.bound(c + z * (h - c))

    def bound(self, h: Tensor) -> Tensor:
        """Return h; export replaces this to fix the range of h in the quantised model."""
        return h


class Classify(Streaming):
    """Dropout and a dense layer: one logit a label, softmax in the step.

    The sequence call gives logits (losses want them); the step gives posteriors.
    """

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
        return self.dense(self.dropout(x, training=training)[:, :, 0, :])

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return (batch, time, labels)."""
        return (shape[0], shape[1], self.n_labels)

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Return posteriors (1, time, labels)."""
        kernel, bias = constants(self.dense.weights)
        x = ops.reshape(x, (x.shape[1], x.shape[3]))
        posteriors = ops.softmax(ops.matmul(x, kernel) + bias)
        return ops.reshape(posteriors, (1, x.shape[0], self.n_labels)), states


def constants(weights: Sequence[Any]) -> list[np.ndarray]:
    """Return the values of weights, also while a TensorFlow function is being traced."""
    if keras.backend.backend() != "tensorflow":
        return [ops.convert_to_numpy(weight) for weight in weights]
    import tensorflow as tf

    with tf.init_scope():
        return [np.asarray(weight) for weight in weights]


def joined(pieces: Sequence[Tensor]) -> Tensor:
    """Put pieces of time one after another."""
    return pieces[0] if len(pieces) == 1 else ops.concatenate(pieces, axis=1)


def step_through(layers: Sequence[Streaming], x: Tensor, states: States) -> tuple[Tensor, States]:
    """Step through layers in turn; their states lie one after another in `states`."""
    after: States = []
    for layer in layers:
        n_states = len(layer.state_shapes())
        x, new = layer.step(x, states[len(after) : len(after) + n_states])
        after.extend(new)
    return x, after
