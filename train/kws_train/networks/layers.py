"""Layers that run two ways: over whole sequences in training, and step by step on the device.

Every layer has `call(x)` for a sequence and `step(x, state)` for the next few frames of it; pushed
through `step` in pieces, with `initial_state` first, a sequence gives what `call` gives for the
whole. Tensors are (batch, time, bands, channels) throughout; `step` has batch 1. Time is causal:
output t sees input up to (t + 1) * stride - 1. `step` reads weights as constants with batch
normalisation folded in, so that it can be converted to TensorFlow Lite.

A layer that has been given ranges is quantisation-aware: both ways round weights and tensors as the
int8 model does, and batch normalisation is folded into weights with the moving statistics as they
are.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import ops

from kws_train.networks.fake_quant import Ranges
from kws_train.networks.keras_backend import batch_norm, constants, has_gpu

__all__ = [
    "GRU",
    "BatchNormalization",
    "Causal",
    "Classify",
    "Flatten",
    "Normalize",
    "Recurrent",
    "Residual",
    "Streaming",
    "joined",
    "step_through",
]

Tensor: TypeAlias = Any
States: TypeAlias = list[Tensor]
Shape: TypeAlias = tuple[Any, ...]


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's, per channel; with TensorFlow, training over four axes takes `backend.batch_norm`.

    Its moving statistics have a momentum of 0.9: 0.99 lags behind on data sets of tens of thousands
    of clips.
    """

    def __init__(self, *, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(momentum=momentum, **options)

    def call(self, inputs: Tensor, training: bool | None = None, mask: None = None) -> Tensor:
        """Normalise by the batch's statistics in training, by the moving ones else."""
        is_tensorflow = keras.backend.backend() == "tensorflow"
        if not (is_tensorflow and training and self.trainable and len(inputs.shape) == 4):
            return super().call(inputs, training=training, mask=mask)
        x = ops.cast(inputs, "float32")  # half precision overflows
        y, mean, variance = batch_norm(x, self.gamma, self.beta, epsilon=self.epsilon)
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return ops.cast(y, self.compute_dtype)


class Streaming(keras.layers.Layer):
    """A layer with a step. By default it has no state and its step is its call.

    `points` are the tensors within it that the int8 model holds with a range of their own.
    """

    time_stride = 1
    points: tuple[str, ...] = ()
    ranges: Ranges | None = None

    def add_ranges(self) -> None:
        """Make the layer quantisation-aware; to be done before it is built."""
        if self.points:
            self.ranges = Ranges(self.points, name="ranges")

    def ranged(self, point: str, x: Tensor) -> Tensor:
        """Return a tensor as the int8 model will hold it, if the layer is to learn that."""
        return self.ranges.hold(point, x) if self.ranges else x

    def rounded(self, kernel: Tensor, *, axis: int | None = -1) -> Tensor:
        """Return weights as the int8 model will hold them, if the layer is to learn that."""
        return self.ranges.round(kernel, axis=axis) if self.ranges else kernel

    def sigmoid(self, x: Tensor) -> Tensor:
        """Return 1 / (1 + exp(-x))."""
        y = ops.sigmoid(x)
        return self.ranges.hold_unit("sigmoid", y) if self.ranges else y

    def tanh(self, x: Tensor) -> Tensor:
        """Return the hyperbolic tangent."""
        y = ops.tanh(x)
        return self.ranges.hold_unit("tanh", y) if self.ranges else y

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
        return [self.rounded(row, axis=None) for row in (self.scale, self.offset)]

    def _normalize(self, x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        x = self.ranged("scaled", self.ranged("frames", x) * scale)
        return self.ranged("output", x + offset)


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
    activation : "relu", "linear" or "swish"
        `linear` where a residual sum follows; swish is x s(x) (Ramachandran et al. 2017).
    """

    def __init__(
        self,
        filters: int | None,
        *,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        dilation: int = 1,
        activation: Literal["relu", "linear", "swish"] = "relu",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.filters = filters
        self.kernel_size = kernel
        self.stride = stride
        self.dilation = dilation
        self.time_stride = stride[0]
        self.activation = activation
        self.points = ("convolved", "output") if activation == "swish" else ("output",)
        self.norm = BatchNormalization()

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
        kernel, bias = self._fold() if self.ranges else (self.kernel, None)
        convolved = (
            self._convolve_evenly(x, kernel)
            if self._is_uneven(x)
            else self._convolve(x, kernel, dilation=self.dilation)
        )
        if bias is None:
            return self._activate(self.norm(convolved, training=training))
        return self._activate(convolved + bias)

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
        kernel, bias = constants(self._fold)
        return self._activate(self._convolve_taps(x, kernel) + bias), states

    def _fold(self) -> tuple[Tensor, Tensor]:
        """Return kernel and bias with the normalisation's moving statistics folded in."""
        gamma, beta, mean, variance = self.norm.weights
        scale = gamma / ops.sqrt(variance + self.norm.epsilon)
        axis = 2 if self.filters is None else 3
        kernel = self.kernel * ops.reshape(scale, (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1))
        return self.rounded(kernel, axis=axis), beta - mean * scale

    def _activate(self, y: Tensor) -> Tensor:
        if self.activation == "swish":  # Keras's own brings operations of its gradient
            y = self.ranged("convolved", y)
            y = y * self.sigmoid(y)
        return self.ranged("output", ops.relu(y) if self.activation == "relu" else y)

    def _is_uneven(self, x: Tensor) -> bool:
        """Return whether TensorFlow refuses these strides: only float32 on a CPU may have them."""
        if self.filters is not None or self.stride[0] == self.stride[1]:
            return False
        single = keras.backend.standardize_dtype(x.dtype) == "float32"
        return keras.backend.backend() == "tensorflow" and (not single or has_gpu())

    def _convolve_evenly(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Convolve at every place and drop those between the strides: slower, and the same."""
        everywhere = ops.depthwise_conv(x, kernel, strides=1, padding="valid")
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

    points = ("output",)

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
        return self._add(y, self.shortcut(x, training=training) if self.shortcut else x)

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
        return self._add(y, self.shortcut.step(x, [])[0] if self.shortcut else x), states

    def _add(self, y: Tensor, x: Tensor) -> Tensor:
        return self.ranged("output", ops.relu(y + x))


class Flatten(Streaming):
    """Fold bands into channels: (..., bands, channels) to (..., 1, bands * channels)."""

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Reshape."""
        return ops.reshape(x, (-1, x.shape[1] or ops.shape(x)[1], 1, x.shape[2] * x.shape[3]))

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape after folding."""
        return (shape[0], shape[1], 1, shape[2] * shape[3])


class Recurrent(Streaming):
    """A recurrent layer over time, one band.

    Keras's own runs over sequences; its equations, written out, run in steps, and over sequences
    too where the layer is quantisation-aware.
    """

    cell_type: type[keras.layers.RNN]
    gates: tuple[str, ...]
    n_states = 1

    def __init__(self, units: int, *, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.cell = self.cell_type(units, return_sequences=True, use_cudnn=False)
        self.dropout = keras.layers.Dropout(dropout)

    def build(self, shape: Shape) -> None:
        """Build the cell for (batch, time, 1, channels)."""
        self.cell.build((shape[0], shape[1], shape[3]))

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Run over (batch, time, 1, channels)."""
        x = self.dropout(x, training=training)[:, :, 0, :]
        if not self.ranges:
            return ops.expand_dims(self.cell(x, training=training), 2)
        weights = self._weights()
        shapes = [(ops.shape(x)[0], self.units)] * self.n_states
        follow = partial(self._update, weights=weights)
        unroll = self.ranges.mode == "observe"
        return ops.expand_dims(_recur(follow, self._inputs(x, weights), shapes, unroll=unroll), 2)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape with `units` channels."""
        return (shape[0], shape[1], 1, self.units)

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the states."""
        return [(1, self.units)] * self.n_states

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Run the next frames one after another, unrolled."""
        states = self._bounded(states)
        weights = constants(self._weights)
        outputs = []
        for t in range(x.shape[1]):
            states = self._update(states, self._inputs(x[:, t, 0, :], weights), weights)
            outputs.append(ops.reshape(states[0], (1, 1, 1, self.units)))
        return joined(outputs), states

    def bound(self, h: Tensor) -> Tensor:
        """Return h; export replaces this to fix the range of h in the quantised model."""
        return self.ranges.hold_unit("tanh", h) if self.ranges else h

    def _bounded(self, states: States) -> States:
        return [self.bound(states[0])]

    def _weights(self) -> list[Tensor]:
        """Return weights of the input, of h, and biases of the input, each of all gates."""
        raise NotImplementedError

    def _inputs(self, x: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        """Return what the input gives to each gate: (..., units)."""
        n = len(self.gates)
        gates = zip(self.gates, weights[:n], weights[2 * n : 3 * n], strict=True)
        return [self.ranged(f"{gate}_x", ops.matmul(x, w) + b) for gate, w, b in gates]

    def _update(
        self, states: States, inputs: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> States:
        """Return the states after a time, h first."""
        raise NotImplementedError


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014), `reset_after` form.

    z = s(Wz x + Uz h + bz), r likewise, c = tanh(Wc x + bc + r * (Uc h + dc)), h' = c + z (h - c).
    """

    cell_type = keras.layers.GRU
    gates = ("z", "r", "c")
    points = ("z_x", "r_x", "c_x", "z_h", "r_h", "c_h", "z", "r", "reset", "c", "gap", "change")

    def _weights(self) -> list[Tensor]:
        """Return those of the gates, and c's bias of the state.

        The biases of z and r are sums of both.
        """
        kernel, recurrent, bias = self.cell.weights
        (bz, br, bc), (dz, dr, dc) = (ops.split(row, 3) for row in (bias[0], bias[1]))
        weights = [*ops.split(kernel, 3, axis=1), *ops.split(recurrent, 3, axis=1)]
        return [*(self.rounded(weight) for weight in weights), bz + dz, br + dr, bc, dc]

    def _update(
        self, states: States, inputs: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> States:
        (h,), (z_x, r_x, c_x), (uz, ur, uc), dc = states, inputs, weights[3:6], weights[9]
        z = self.sigmoid(self.ranged("z", z_x + self.ranged("z_h", ops.matmul(h, uz))))
        r = self.sigmoid(self.ranged("r", r_x + self.ranged("r_h", ops.matmul(h, ur))))
        past = self.ranged("reset", r * self.ranged("c_h", ops.matmul(h, uc) + dc))
        c = self.tanh(self.ranged("c", c_x + past))
        return [self.bound(c + self.ranged("change", z * self.ranged("gap", h - c)))]


class Classify(Streaming):
    """Dropout and a dense layer: one logit a label, softmax in the step.

    The sequence call gives logits (losses want them); the step gives posteriors.
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
        return self.rounded(kernel), bias

    def _logits(self, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        return self.ranged("logits", ops.matmul(x, kernel) + bias)


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


def _recur(
    follow: Callable[[States, Sequence[Tensor]], States],
    inputs: Sequence[Tensor],
    shapes: Sequence[Shape],
    *,
    unroll: bool = False,
) -> Tensor:
    """Run a function from states and inputs to new states over time.

    Parameters
    ----------
    follow : function
    inputs : sequence of tensors [shape=(batch, time, ...)]
    shapes : sequence of shapes
        Of the states, which begin with zeros.
    unroll : bool
        Run without tracing, which `follow` sees values in.

    Returns
    -------
    tensor [shape=(batch, time, ...)]
        The first of the states after each time.
    """

    def body(states: States, now: Sequence[Tensor]) -> tuple[States, States]:
        states = follow(states, now)
        return states, states  # Keras wants outputs of the structure of states

    states = [ops.zeros(shape) for shape in shapes]
    if unroll:
        outputs = []
        for t in range(inputs[0].shape[1]):
            states = follow(states, [one[:, t] for one in inputs])
            outputs.append(states[0])
        return ops.stack(outputs, axis=1)
    _, outputs = ops.scan(body, states, [ops.swapaxes(one, 0, 1) for one in inputs])
    return ops.swapaxes(outputs[0], 0, 1)
