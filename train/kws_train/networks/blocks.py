"""More streaming layers: what the published architectures of the zoo are made of.

As in `kws_train.networks.layers`, each runs over a sequence with `call` and frame by frame with
`step`, and both give the same.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kws_train.networks.keras_backend import constants
from kws_train.networks.layers import (
    BatchNormalization,
    Causal,
    Recurrent,
    Shape,
    States,
    Streaming,
    Tensor,
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
    vector alone, but never forgets entirely, and in int8 its small steps are rounded away. The
    int8 model holds the mean over time in the range of what it goes over.
    """

    points = ("bands",)

    def __init__(self, n_outputs: int, **options: Any) -> None:
        super().__init__(**options)
        self.n_outputs = n_outputs
        self.quantize_aware = False

    def add_ranges(self) -> None:
        """Make the layer quantisation-aware; it has a range where there are several bands."""
        self.quantize_aware = True

    def build(self, shape: Shape) -> None:
        """Note the shape of (batch, time, bands, channels)."""
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
        return self.ranged("bands", ops.mean(x, axis=2, keepdims=True))

    def _mean(self, x: Tensor) -> Tensor:
        mean = ops.average_pool(x, (self.n_outputs, 1), strides=1, padding="valid")
        return mean if self.n_bands == 1 else self.ranged("bands", mean)


class SubSpectral(Streaming):
    """Batch normalisation of each of several groups of bands by itself (Chang et al. 2021).

    Parameters
    ----------
    n_groups : int
        Sub-bands; must divide the number of bands.
    """

    points = ("scaled", "output")

    def __init__(self, n_groups: int, **options: Any) -> None:
        super().__init__(**options)
        self.n_groups = n_groups
        self.norm = BatchNormalization()

    def build(self, shape: Shape) -> None:
        """Build for (batch, time, bands, channels)."""
        if shape[2] % self.n_groups:
            raise ValueError(f"{shape[2]} bands do not divide into {self.n_groups} sub-bands")
        self.sizes = (self.n_groups, shape[2] // self.n_groups, shape[3])
        self.norm.build((None, None, None, self.n_groups * shape[3]))

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Normalise: groups become channels, and bands again."""
        if self.ranges:
            return self._scale(x, *self._fold())
        n_groups, n_bands, n_channels = self.sizes
        time = x.shape[1] or ops.shape(x)[1]
        x = ops.reshape(x, (-1, time, n_groups, n_bands, n_channels))
        x = ops.reshape(ops.swapaxes(x, 2, 3), (-1, time, n_bands, n_groups * n_channels))
        x = self.norm(x, training=training)
        x = ops.reshape(x, (-1, time, n_bands, n_groups, n_channels))
        return ops.reshape(ops.swapaxes(x, 2, 3), (-1, time, n_groups * n_bands, n_channels))

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Scale and shift each band and channel by the moving statistics."""
        return self._scale(x, *constants(self._fold)), states

    def _fold(self) -> list[Tensor]:
        """Return scale and offset (bands, channels)."""
        gamma, beta, mean, variance = self.norm.weights
        scale = gamma / ops.sqrt(variance + self.norm.epsilon)
        n_groups, n_bands, n_channels = self.sizes
        return [
            self.rounded(
                ops.repeat(ops.reshape(row, (n_groups, n_channels)), n_bands, axis=0), axis=None
            )
            for row in (scale, beta - mean * scale)
        ]

    def _scale(self, x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        return self.ranged("output", self.ranged("scaled", x * scale) + offset)


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
        self.points = ("mean", "output") if transition else ("mean", "wide", "output")
        self.widen = [Causal(channels)] if transition else []
        self.bands = [
            Causal(None, kernel=(1, 3), stride=(1, band_stride), activation="linear"),
            SubSpectral(n_groups),
        ]
        self.time = [
            Causal(None, kernel=(3, 1), dilation=dilation, activation="swish"),
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
        y = self.ranged("mean", ops.mean(wide, axis=2, keepdims=True))
        for layer in self.time:
            y = layer(y, training=training)
        return self._add(x, wide, self.dropout(y, training=training))

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
        mean = self.ranged("mean", ops.mean(wide, axis=2, keepdims=True))
        y, states = self.time[0].step(mean, states)
        return self._add(x, wide, self.time[1].step(y, [])[0]), states

    def _add(self, x: Tensor, wide: Tensor, y: Tensor) -> Tensor:
        if self.transition:
            return self.ranged("output", ops.relu(wide + y))
        return self.ranged("output", ops.relu(x + self.ranged("wide", wide + y)))


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997).

    i = s(Wi x + Ui h + bi), f and o likewise, c' = f c + i tanh(Wc x + Uc h + bc), h' = o tanh(c').
    Its states are h, which stays within -1..1, and c, which has no bound of its own.
    """

    cell_type = keras.layers.LSTM
    gates = ("i", "f", "c", "o")
    n_states = 2
    points = (
        *(f"{gate}_x" for gate in gates),
        *(f"{gate}_h" for gate in gates),
        *gates,
        *("kept", "added", "cell"),
    )

    def bound_cell(self, c: Tensor) -> Tensor:
        """Return c; export replaces this, with a range found on examples."""
        return self.ranged("cell", c)

    def _bounded(self, states: States) -> States:
        return [self.bound(states[0]), self.bound_cell(states[1])]

    def _weights(self) -> list[Tensor]:
        kernel, recurrent, bias = self.cell.weights
        weights = [*ops.split(kernel, 4, axis=1), *ops.split(recurrent, 4, axis=1)]
        return [*(self.rounded(weight) for weight in weights), *ops.split(bias, 4)]

    def _update(
        self, states: States, inputs: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> States:
        h, c = states
        i, f, new, o = (
            self.ranged(gate, sent + self.ranged(f"{gate}_h", ops.matmul(h, u)))
            for gate, sent, u in zip(self.gates, inputs, weights[4:8], strict=True)
        )
        kept = self.ranged("kept", self.sigmoid(f) * c)
        c = self.bound_cell(kept + self.ranged("added", self.sigmoid(i) * self.tanh(new)))
        return [self.bound(self.sigmoid(o) * self.tanh(c)), c]
