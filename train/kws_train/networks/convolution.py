"""Causal convolution over time, with batch normalisation and activation, as one streaming layer."""

from typing import Any, Literal

import keras
from keras import ops

from kws_train.networks.keras_backend import constants, has_gpu
from kws_train.networks.streaming import (
    BatchNormalization,
    Shape,
    States,
    Streaming,
    Tensor,
    joined,
)

__all__ = ["Causal"]


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
        return self.quantized_kernel(kernel, axis=axis), beta - mean * scale

    def _activate(self, y: Tensor) -> Tensor:
        if self.activation == "swish":  # Keras's own brings operations of its gradient
            y = self.quantized("convolved", y)
            y = y * self.sigmoid(y)
        return self.quantized("output", ops.relu(y) if self.activation == "relu" else y)

    def _is_uneven(self, x: Tensor) -> bool:
        """Return whether TensorFlow lacks these strides, which it has for float32 on a CPU only."""
        if self.filters is not None or self.stride[0] == self.stride[1]:
            return False
        single = keras.backend.standardize_dtype(x.dtype) == "float32"
        return keras.backend.backend() == "tensorflow" and (not single or has_gpu())

    def _convolve_evenly(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Convolve with stride 1 and drop the outputs between the strides: slower, same result."""
        everywhere = ops.depthwise_conv(x, kernel, strides=1, padding="valid")
        return everywhere[:, :: self.stride[0], :: self.stride[1]]

    def _convolve_taps(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Convolve few frames; dilated taps are selected first, which TF Lite can convert."""
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
