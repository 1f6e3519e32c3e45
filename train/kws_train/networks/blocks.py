"""Blocks of several layers: in turn, or with a sum around them (residual, broadcasted residual)."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kws_train.networks.convolution import Causal
from kws_train.networks.keras_backend import constants
from kws_train.networks.streaming import (
    BatchNormalization,
    Shape,
    States,
    Streaming,
    Tensor,
    step_through,
)

__all__ = ["Block", "Broadcast", "Residual", "SubSpectral"]


class Block(Streaming):
    """Layers in turn, which are trained or frozen together by `trainable`."""

    def __init__(self, layers: Sequence[Streaming], **options: Any) -> None:
        super().__init__(**options)
        self.layers = list(layers)
        self.time_stride = math.prod(layer.time_stride for layer in layers)

    def build(self, shape: Shape) -> None:
        """Build the layers in turn."""
        for layer in self.layers:
            layer.build(shape)
            layer.built = True
            shape = layer.compute_output_shape(shape)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Run the layers over (batch, time, bands, channels)."""
        for layer in self.layers:
            x = layer(x, training=training)
        return x

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
        return step_through(self.layers, x, states)


class Residual(Block):
    """relu(x + layers(x)), or relu(shortcut(x) + layers(x)) where the layers change the shape.

    Parameters
    ----------
    layers : sequence of Streaming
    shortcut : Streaming, optional
        Applied to x before the sum; it has no state.
    """

    points = ("output",)

    def __init__(
        self, layers: Sequence[Streaming], *, shortcut: Streaming | None = None, **options: Any
    ) -> None:
        super().__init__(layers, **options)
        self.shortcut = shortcut

    def build(self, shape: Shape) -> None:
        """Build the shortcut, then the layers in turn."""
        if self.shortcut:
            self.shortcut.build(shape)
            self.shortcut.built = True
        super().build(shape)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Add the output of the layers to x."""
        y = super().call(x, training=training)
        return self._add(y, self.shortcut(x, training=training) if self.shortcut else x)

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Step through the layers, and add."""
        y, states = super().step(x, states)
        return self._add(y, self.shortcut.step(x, [])[0] if self.shortcut else x), states

    def _add(self, y: Tensor, x: Tensor) -> Tensor:
        return self.quantized("output", ops.relu(y + x))


class SubSpectral(Streaming):
    """Separate batch normalisation of each of several groups of bands (Chang et al. 2021).

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
        """Normalise, with the groups as channels."""
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
            self.quantized_kernel(
                ops.repeat(ops.reshape(row, (n_groups, n_channels)), n_bands, axis=0), axis=None
            )
            for row in (scale, beta - mean * scale)
        ]

    def _scale(self, x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        return self.quantized("output", self.quantized("scaled", x * scale) + offset)


class Broadcast(Streaming):
    """Broadcasted residual block (Kim et al. 2021, equation 2): y = relu(x + f2(x) + f1(mean f2)).

    f2 is a depthwise convolution over bands with sub-spectral normalisation; f1 a depthwise one
    over time, causal here, on the mean over bands; its result is added to every band. In a
    transition block, which changes channels or bands, f2 begins with a 1x1 convolution and the sum
    has no x.

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
        Of the output of f1.
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
        y = self.quantized("mean", ops.mean(wide, axis=2, keepdims=True))
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
        mean = self.quantized("mean", ops.mean(wide, axis=2, keepdims=True))
        y, states = self.time[0].step(mean, states)
        return self._add(x, wide, self.time[1].step(y, [])[0]), states

    def _add(self, x: Tensor, wide: Tensor, y: Tensor) -> Tensor:
        if self.transition:
            return self.quantized("output", ops.relu(wide + y))
        return self.quantized("output", ops.relu(x + self.quantized("wide", wide + y)))
