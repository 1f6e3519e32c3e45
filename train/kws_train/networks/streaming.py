"""The interface of streaming layers, which run over whole sequences in training and in steps later.

Every layer has `call(x)` for a sequence and `step(x, state)` for its next few frames; a sequence
that is pushed through `step` in pieces, beginning with `initial_states`, gives the result of
`call` for the whole. Tensors are (batch, time, bands, channels) throughout; `step` has batch 1.
Time is causal: output t depends on input up to (t + 1) * stride - 1. `step` reads weights as
constants with batch normalisation folded in, so that it can be converted to TensorFlow Lite.

A layer with quantisation ranges is quantisation-aware: `call` and `step` round weights and tensors
as the int8 model does, and batch normalisation is folded into the weights with its moving
statistics.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from kws_train.networks.fake_quant import QuantRanges
from kws_train.networks.keras_backend import batch_norm

__all__ = ["BatchNormalization", "Shape", "States", "Streaming", "Tensor", "joined", "step_through"]

Tensor: TypeAlias = Any
States: TypeAlias = list[Tensor]
Shape: TypeAlias = tuple[Any, ...]


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer with `keras_backend.batch_norm` for training over four axes with TensorFlow.

    The momentum of the moving statistics is 0.9: 0.99 lags behind on data sets of tens of thousands
    of clips.
    """

    def __init__(self, *, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(momentum=momentum, **options)

    def call(self, inputs: Tensor, training: bool | None = None, mask: None = None) -> Tensor:
        """Normalise with the batch's statistics in training, otherwise with the moving ones."""
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

    `points` names its tensors that have a quantisation range of their own in the int8 model.
    """

    time_stride = 1
    points: tuple[str, ...] = ()
    ranges: QuantRanges | None = None

    def add_ranges(self) -> None:
        """Make the layer quantisation-aware; call it before the layer is built."""
        if self.points:
            self.ranges = QuantRanges(self.points, name="ranges")

    def quantized(self, point: str, x: Tensor) -> Tensor:
        """Return a tensor, quantised to its range if the layer is quantisation-aware."""
        return self.ranges.apply(point, x) if self.ranges else x

    def quantized_kernel(self, kernel: Tensor, *, axis: int | None = -1) -> Tensor:
        """Return weights, quantised if the layer is quantisation-aware."""
        return self.ranges.apply_to_kernel(kernel, axis=axis) if self.ranges else kernel

    def sigmoid(self, x: Tensor) -> Tensor:
        """Return 1 / (1 + exp(-x))."""
        y = ops.sigmoid(x)
        return self.ranges.apply_unit("sigmoid", y) if self.ranges else y

    def tanh(self, x: Tensor) -> Tensor:
        """Return the hyperbolic tangent."""
        y = ops.tanh(x)
        return self.ranges.apply_unit("tanh", y) if self.ranges else y

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


def joined(pieces: Sequence[Tensor]) -> Tensor:
    """Concatenate pieces along time."""
    return pieces[0] if len(pieces) == 1 else ops.concatenate(pieces, axis=1)


def step_through(layers: Sequence[Streaming], x: Tensor, states: States) -> tuple[Tensor, States]:
    """Step through layers in turn; `states` holds the states of all layers in order."""
    after: States = []
    for layer in layers:
        n_states = len(layer.state_shapes())
        x, new = layer.step(x, states[len(after) : len(after) + n_states])
        after.extend(new)
    return x, after
