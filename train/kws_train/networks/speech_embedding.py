"""Google's speech embedding as streaming layers, with its published weights.

Lin, Kilgour, Roblek and Sharifi 2020, "Training keyword spotters with limited and synthesized
speech data" (arXiv:2002.01322): 20 convolutions in six blocks turn 76 frames of 32 log-mel values
into 96 values that tell words apart. The published network pads nothing in time. Here each
convolution begins with zeros, as a state does; from the output `N_WARM_UP` on they are forgotten,
and the outputs, one every 8 frames, are those of the published network for the 76 frames that end
there. Batch normalisation is folded into the weights.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from kws.errors import ConfigError
from kws_train.networks.blocks import Block
from kws_train.networks.keras_backend import constants
from kws_train.networks.spotting import Spotting
from kws_train.networks.streaming import Shape, States, Streaming, Tensor

__all__ = [
    "LEAST",
    "N_CONTEXT",
    "N_VALUES",
    "N_WARM_UP",
    "SLOPE",
    "WEIGHTS",
    "FrameRange",
    "LeakyConvolution",
    "MaxPool",
    "embed_whole",
    "load_weights",
    "speech_embedding",
]

Weights: TypeAlias = npt.NDArray[np.float32]

N_VALUES = 96
N_CONTEXT = 76
"""Frames that a vector depends on."""
N_WARM_UP = 9
"""First outputs of a stream, which come before a whole window of 76 frames."""
WEIGHTS = Path(__file__).with_suffix(".npz")

LEAST = -0.4
"""Least output of a convolution, the last one excepted."""

SLOPE = 0.2
"""Of an activation below zero."""

_BLOCKS: list[tuple[int, tuple[int, int] | None]] = [
    (3, (2, 2)),
    (4, (1, 2)),
    (4, (2, 2)),
    (4, (1, 2)),
    (4, (2, 2)),
    (1, None),
]
"""Convolutions in each block, and (time, bands) of the maximum after them."""
_N_CONVOLUTIONS = sum(n for n, _ in _BLOCKS)


class FrameRange(Streaming):
    """The frames themselves: gives them a range in the int8 model."""

    points = ("frames",)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Return (batch, time, bands, 1)."""
        return self.quantized("frames", x)


class LeakyConvolution(Streaming):
    """Convolution, then max(leaky_relu(x, 0.2), -0.4); causal in time, `same` over bands.

    In the int8 model the range of the output, which begins at -0.4, does what the maximum does.

    Parameters
    ----------
    kernel : float32 [shape=(time, bands, channels, filters)]
        What the weights are before training.
    bias : float32 [shape=(filters,)], optional
    is_linear : bool
        Leave out the activation.
    """

    def __init__(
        self,
        kernel: Weights,
        bias: Weights | None = None,
        *,
        is_linear: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.is_linear = is_linear
        self.points = ("output",) if is_linear else ("convolved", "output")
        self.initial_kernel, self.initial_bias = kernel, bias
        self.n_past = kernel.shape[0] - 1
        self.band_padding = (kernel.shape[1] // 2, kernel.shape[1] // 2)

    def build(self, shape: Shape) -> None:
        """Create the weights for inputs (batch, time, bands, channels)."""
        self.input_bands = shape[2]
        self.kernel = self._weight(self.initial_kernel, name="kernel")
        self.bias = None
        if self.initial_bias is not None:
            self.bias = self._weight(self.initial_bias, name="bias")

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Convolve (batch, time, bands, channels), with zeros before the first frame."""
        x = ops.pad(x, ((0, 0), (self.n_past, 0), (0, 0), (0, 0)))
        return self._convolve(x, *self._weights())

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape with as many channels as there are filters."""
        return (*shape[:3], self.initial_kernel.shape[3])

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Return the shape of the last frames of the input, if the kernel looks back."""
        if not self.n_past:
            return []
        return [(1, self.n_past, self.input_bands, self.initial_kernel.shape[2])]

    def step(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Convolve the next frames."""
        if self.n_past:
            x = ops.concatenate([states[0], x], axis=1)
            states = [x[:, -self.n_past :]]
        return self._convolve(x, *constants(self._weights)), states

    def _weight(self, value: Weights, *, name: str) -> Any:
        initializer = keras.initializers.Constant(value)
        return self.add_weight(shape=value.shape, initializer=initializer, name=name)

    def _weights(self) -> list[Tensor]:
        kernel = self.quantized_kernel(self.kernel)
        return [kernel] if self.bias is None else [kernel, self.bias]

    def _convolve(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        if any(self.band_padding):
            x = ops.pad(x, ((0, 0), (0, 0), self.band_padding, (0, 0)))
        y = ops.conv(x, kernel, padding="valid")
        y = y if bias is None else y + bias
        if self.is_linear:
            return self.quantized("output", y)
        y = ops.leaky_relu(self.quantized("convolved", y), negative_slope=SLOPE)
        is_clipped = self.ranges is not None and self.ranges.mode in ("learn", "constant")
        return self.quantized("output", y if is_clipped else ops.maximum(y, LEAST))


class MaxPool(Streaming):
    """The greatest of each (time, bands) of inputs, which do not overlap.

    Parameters
    ----------
    size : (time, bands)
        In frames and bands.
    """

    def __init__(self, size: tuple[int, int], **options: Any) -> None:
        super().__init__(**options)
        self.size = size
        self.time_stride = size[0]

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Pool (batch, time, bands, channels)."""
        return ops.max_pool(x, self.size, strides=self.size, padding="valid")

    def compute_output_shape(self, shape: Shape) -> Shape:
        """Return the shape after pooling."""
        time = None if shape[1] is None else shape[1] // self.size[0]
        return (shape[0], time, shape[2] // self.size[1], shape[3])


def speech_embedding(
    weights: Mapping[str, Weights] | None = None, *, standardize: bool = False
) -> list[Block]:
    """Return the six blocks, frames (batch, k, 32, 1) to embeddings (batch, k / 8, 1, 96).

    They are the first layers of a `Spotting`, alone or below a head.

    Parameters
    ----------
    weights : mapping of str to float32 arrays, optional
        As `load_weights` gives them, which is the default.
    standardize : bool
        Take the mean of speech out of every value and divide by the spread, as the bundled
        `speech_embedding.tflite` does.
    """
    values = dict(load_weights() if weights is None else weights)
    if standardize:
        last = f"{_N_CONVOLUTIONS - 1}"
        values[f"kernel_{last}"] = values[f"kernel_{last}"] / values["std"]
        values[f"bias_{last}"] = -values["mean"] / values["std"]
    layers: list[Streaming] = [
        LeakyConvolution(
            values[f"kernel_{i}"],
            values.get(f"bias_{i}"),
            is_linear=i == _N_CONVOLUTIONS - 1,
            name=f"convolution_{i}",
        )
        for i in range(_N_CONVOLUTIONS)
    ]
    blocks, first = [], 0
    for i, (n_layers, pool) in enumerate(_BLOCKS):
        parts = layers[first : first + n_layers]
        parts = [FrameRange(), *parts] if i == 0 else parts
        blocks.append(Block([*parts, MaxPool(pool)] if pool else parts, name=f"block_{i}"))
        first += n_layers
    return blocks


def load_weights(path: Path = WEIGHTS) -> dict[str, Weights]:
    """Return the published weights, float32: `kernel_0`, `bias_0` and so on, `mean` and `std`.

    The last two are statistics of the embeddings of speech, measured by kws.

    Raises
    ------
    ConfigError
        If the file is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"The weights of the speech embedding must be readable. Received: {path} ({error}). "
            f"Install kws again, or run `python -m kws_export.speech_embedding`."
        ) from error


def embed_whole(model: Spotting, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the embeddings of every 76 frames, 8 frames apart, as the published network does.

    Parameters
    ----------
    model : Spotting
        Of the blocks of `speech_embedding` alone.
    frames : float32 [shape=(batch, k, 32)]
        Any number of frames from 76 on.

    Returns
    -------
    float32 [shape=(batch, 1 + (k - 76) // 8, 96)]
    """
    before = 8 * (1 + N_WARM_UP) - 76  # so that the first 76 frames end where a step does
    padded = np.pad(frames, ((0, 0), (before, 0), (0, 0)))
    return np.asarray(model(padded))[:, N_WARM_UP:, 0]
