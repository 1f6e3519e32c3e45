"""More streaming layers: what the published architectures of the zoo are made of.

As in `kws.train.layers`, each runs over a sequence with `call` and frame by frame with `step`, and
both give the same.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from kws.train.layers import (
    BATCH_NORM_MOMENTUM,
    Causal,
    Shape,
    States,
    Streaming,
    Tensor,
    constants,
    joined,
)

__all__ = ["LSTM", "Average", "Broadcast", "Stack", "SubSpectral"]


class Stack(Streaming):
    """Put frames together: (time, bands, 1) to (time / n, 1, n * bands), a lower frame rate."""

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

    A network for clips averages over the whole clip before its classifier. A stream has no such
    end, so the mean goes over the last `n_outputs` of the layer before, about a clip's length, kept
    in a ring buffer; before the stream they count as zero. An exponential mean would need one
    vector alone, but never forgets entirely, and in int8 its small steps are rounded away.
    """

    def __init__(self, n_outputs: int, **options: Any) -> None:
        super().__init__(**options)
        self.n_outputs = n_outputs

    def build(self, shape: Shape) -> None:
        """Note the shape of (batch, time, bands, channels)."""
        self.n_channels = shape[3]

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Average (batch, time, bands, channels)."""
        x = ops.mean(x, axis=2, keepdims=True)
        return self._mean(ops.pad(x, ((0, 0), (self.n_outputs - 1, 0), (0, 0), (0, 0))))

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape with one band."""
        return (shape[0], shape[1], 1, shape[3])

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Return the shape of the ring buffer."""
        return [(1, self.n_outputs - 1, 1, self.n_channels)] if self.n_outputs > 1 else []

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Average the next outputs with those in the buffer."""
        if x.shape[2] > 1:
            x = ops.mean(x, axis=2, keepdims=True)
        if states:
            x = ops.concatenate([states[0], x], axis=1)
            states = [x[:, 1 - self.n_outputs :]]
        return self._mean(x), states

    def _mean(self, x: Tensor) -> Tensor:
        return ops.average_pool(x, (self.n_outputs, 1), strides=1, padding="valid")


class SubSpectral(Streaming):
    """Batch normalisation of each of several groups of bands by itself (Chang et al. 2021).

    Parameters
    ----------
    n_groups : int
        Sub-bands; must divide the number of bands.
    """

    def __init__(self, n_groups: int, **options: Any) -> None:
        super().__init__(**options)
        self.n_groups = n_groups
        self.norm = keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)

    def build(self, shape: Shape) -> None:
        """Build for (batch, time, bands, channels)."""
        if shape[2] % self.n_groups:
            raise ValueError(f"{shape[2]} bands do not divide into {self.n_groups} sub-bands")
        self.sizes = (self.n_groups, shape[2] // self.n_groups, shape[3])
        self.norm.build((None, None, None, self.n_groups * shape[3]))

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Normalise: groups become channels, and bands again."""
        n_groups, n_bands, n_channels = self.sizes
        time = x.shape[1] or ops.shape(x)[1]
        x = ops.reshape(x, (-1, time, n_groups, n_bands, n_channels))
        x = ops.reshape(ops.swapaxes(x, 2, 3), (-1, time, n_bands, n_groups * n_channels))
        x = self.norm(x, training=training)
        x = ops.reshape(x, (-1, time, n_bands, n_groups, n_channels))
        return ops.reshape(ops.swapaxes(x, 2, 3), (-1, time, n_groups * n_bands, n_channels))

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Scale and shift each band and channel by the moving statistics."""
        gamma, beta, mean, variance = constants(self.norm.weights)
        scale = gamma / np.sqrt(variance + self.norm.epsilon)
        n_groups, n_bands, n_channels = self.sizes
        scale, offset = (
            np.repeat(row.reshape(n_groups, n_channels), n_bands, axis=0).astype(np.float32)
            for row in (scale, beta - mean * scale)
        )
        return x * scale + offset, states


class Broadcast(Streaming):
    """Broadcasted residual block (Kim et al. 2021, equation 2): y = relu(x + f2(x) + f1(mean f2)).

    f2 is a depthwise convolution over bands with sub-spectral normalisation; f1 a depthwise one
    over time, causal here, on the mean over bands, whose result is added to every band. Where
    channels or bands change (a transition block) f2 begins with a 1x1 convolution and x itself is
    left out of the sum.

    Parameters
    ----------
    channels : int
    band_stride : int
    dilation : int
        Of the convolution over time.
    n_groups : int
        Sub-bands of the normalisation.
    transition : bool
    dropout : float
        Of what is added to every band.
    """

    def __init__(
        self,
        channels: int,
        *,
        band_stride: int = 1,
        dilation: int = 1,
        n_groups: int,
        transition: bool = False,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.transition = transition
        self.widen = [Causal(channels)] if transition else []
        self.bands = [
            Causal(None, kernel=(1, 3), stride=(1, band_stride), activation="linear"),
            SubSpectral(n_groups),
        ]
        self.time = [
            Causal(None, kernel=(3, 1), dilation=dilation, activation=_swish),
            Causal(channels, activation="linear"),
        ]
        self.dropout = keras.layers.SpatialDropout2D(dropout)

    def build(self, shape: Shape) -> None:
        """Build the layers in turn."""
        for layer in (*self.widen, *self.bands):
            layer.build(shape)
            layer.built = True
            shape = layer.compute_output_shape(shape)
        shape = (*shape[:2], 1, shape[3])
        for layer in self.time:
            layer.build(shape)
            layer.built = True

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Run over (batch, time, bands, channels)."""
        wide = x
        for layer in (*self.widen, *self.bands):
            wide = layer(wide, training=training)
        y = ops.mean(wide, axis=2, keepdims=True)
        for layer in self.time:
            y = layer(y, training=training)
        y = wide + self.dropout(y, training=training)
        return ops.relu(y if self.transition else x + y)

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape after the layers over bands."""
        for layer in (*self.widen, *self.bands):
            shape = layer.compute_output_shape(shape)
        return shape

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Return the ring buffer of the convolution over time."""
        return self.time[0].state_shapes()

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Run the next frames."""
        wide = x
        for layer in (*self.widen, *self.bands):
            wide, _ = layer.step(wide, [])
        y, states = self.time[0].step(ops.mean(wide, axis=2, keepdims=True), states)
        y = wide + self.time[1].step(y, [])[0]
        return ops.relu(y if self.transition else x + y), states


class LSTM(Streaming):
    """Long short-term memory over time (Hochreiter & Schmidhuber 1997), one band.

    i = s(Wi x + Ui h + bi), f and o likewise, c' = f c + i tanh(Wc x + Uc h + bc), h' = o tanh(c').
    Its states are h, which stays within -1..1, and c, which has no bound of its own.
    """

    def __init__(self, units: int, *, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.cell = keras.layers.LSTM(units, return_sequences=True, use_cudnn=False)
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
        """Return the shapes of h and c."""
        return [(1, self.units), (1, self.units)]

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Run the next frames one after another, unrolled."""
        h, c = self.bound(states[0]), self.bound_cell(states[1])
        kernel, recurrent, bias = constants(self.cell.weights)
        kernels, recurrents, biases = (
            np.split(weight, 4, axis=-1) for weight in (kernel, recurrent, bias)
        )
        outputs = []
        for t in range(x.shape[1]):
            frame = x[:, t, 0, :]
            i, f, new, o = (
                ops.matmul(frame, w) + ops.matmul(h, u) + b
                for w, u, b in zip(kernels, recurrents, biases, strict=True)
            )
            c = self.bound_cell(ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(new))
            h = self.bound(ops.sigmoid(o) * ops.tanh(c))
            outputs.append(ops.reshape(h, (1, 1, 1, self.units)))
        return joined(outputs), [h, c]

    def bound(self, h: Tensor) -> Tensor:
        """Return h; export replaces this to fix the range of h in the quantised model."""
        return h

    def bound_cell(self, c: Tensor) -> Tensor:
        """Return c; export replaces this, with a range found on examples."""
        return c


def _swish(x: Tensor) -> Tensor:
    """Return x s(x) (Ramachandran et al. 2017); Keras's own brings operations of its gradient."""
    return x * ops.sigmoid(x)
