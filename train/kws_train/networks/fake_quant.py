"""Fake quantisation: tensors rounded and clipped in training as the int8 model will do it.

The range of a tensor, its least and greatest value, is learned with the weights (the gradient of
clipped values moves the bounds) and exported unchanged. Weights are quantised symmetrically per
channel, over their current range. Rounding has the gradient of the identity (Bengio et al. 2013,
the straight-through estimator). All of it is `keras.ops`, because TensorFlow's own operation has
no deterministic gradient on a GPU.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import ops

from kws_train.networks.keras_backend import constants

__all__ = [
    "Mode",
    "QuantRanges",
    "fake_quantize",
    "fake_quantize_kernel",
    "observe_ranges",
    "quant_mode",
    "quant_ranges",
]

Tensor: TypeAlias = Any
Mode: TypeAlias = Literal["learn", "constant", "observe", "off"]
"""`learn`: quantise with ranges that are trained. `constant`: quantise with constant ranges, as the
converter reads them. `observe`: record ranges without quantising. `off`: do nothing."""

_N_STEPS = 255  # of eight bits, from the least value to the greatest
_MIN_HIGH = 1e-3  # least upper bound of a range
_FIXED_UNITS = {"sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}


class QuantRanges(keras.layers.Layer):
    """The quantisation ranges of the named tensors within one layer of a network.

    Every range includes zero, which the int8 model represents exactly.

    Parameters
    ----------
    points : sequence of str
        Names of the tensors.
    """

    def __init__(self, points: Sequence[str], **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.points = tuple(points)
        self.mode: Mode = "learn"
        shape = (len(self.points),)
        self.low = self.add_weight(
            shape=shape, initializer="zeros", constraint=_at_most_zero, name="low"
        )
        self.high = self.add_weight(
            shape=shape, initializer="ones", constraint=_at_least_min, name="high"
        )
        self.built = True
        self._observed = np.zeros((2, *shape), np.float32)

    def apply(self, point: str, x: Tensor) -> Tensor:
        """Return a tensor quantised to eight bits within the range of this name."""
        i = self.points.index(point)
        if self.mode == "observe":
            values = ops.convert_to_numpy(x)
            self._observed[0, i] = min(self._observed[0, i], values.min())
            self._observed[1, i] = max(self._observed[1, i], values.max())
        if self.mode == "constant":
            return _constant_range(x, *self.bounds()[point])
        return fake_quantize(x, self.low[i], self.high[i]) if self.mode == "learn" else x

    def apply_unit(self, function: Literal["sigmoid", "tanh"], y: Tensor) -> Tensor:
        """Return the output of a sigmoid or tanh, quantised with the range fixed by TF Lite."""
        low, high = _FIXED_UNITS[function]
        if self.mode == "constant":
            return _constant_range(y, low, high)
        return fake_quantize(y, low, high) if self.mode == "learn" else y

    def apply_to_kernel(self, kernel: Tensor, *, axis: int | None) -> Tensor:
        """Quantise weights per channel of an axis; with None per tensor, as operands of sums."""
        if self.mode not in ("learn", "constant"):
            return kernel
        if axis is None:
            low, high = ops.minimum(ops.min(kernel), 0.0), ops.maximum(ops.max(kernel), _MIN_HIGH)
            return fake_quantize(kernel, low, high)
        return fake_quantize_kernel(kernel, axis=axis)

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Return each range as in the int8 model: shifted so that zero is one of its steps."""
        scale, zero = constants(lambda: _steps(self.low, self.high))
        return {
            point: (float(-zero[i] * scale[i]), float((_N_STEPS - zero[i]) * scale[i]))
            for i, point in enumerate(self.points)
        }

    def set_observed(self) -> None:
        """Set the ranges to the observed ones."""
        self.low.assign(self._observed[0])
        self.high.assign(np.maximum(self._observed[1], _MIN_HIGH))


def quant_ranges(model: keras.Model) -> list[QuantRanges]:
    """Return the ranges of all layers; empty for a model that is not quantisation-aware."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, QuantRanges)]


@contextmanager
def quant_mode(model: keras.Model, mode: Mode) -> Iterator[None]:
    """Set the mode of a model's ranges for this block; afterwards it is `learn`."""
    found = quant_ranges(model)
    for ranges in found:
        ranges.mode = mode
    try:
        yield
    finally:
        for ranges in found:
            ranges.mode = "learn"


def observe_ranges(model: keras.Model, batches: Iterable[Tensor]) -> None:
    """Set the ranges of a model to those of its unquantised tensors on batches of frames."""
    with quant_mode(model, "observe"):
        for frames in batches:
            model(frames)
    for ranges in quant_ranges(model):
        ranges.set_observed()


def fake_quantize(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Clip a tensor to a range that includes zero and round it to the nearest of 256 values.

    Jacob et al. 2018, section 3, equation 12, with the range shifted so that zero is a value.
    """
    scale, zero = _steps(low, high)
    low = low + ops.stop_gradient(-zero * scale - low)
    high = high + ops.stop_gradient((_N_STEPS - zero) * scale - high)
    clipped = ops.minimum(ops.maximum(x, low), high)
    return clipped + ops.stop_gradient(_nearest(clipped / scale) * scale - clipped)


def fake_quantize_kernel(kernel: Tensor, *, axis: int) -> Tensor:
    """Round weights to -127..127 steps; each channel of an axis has its own step size."""
    others = [i for i in range(len(kernel.shape)) if i != axis % len(kernel.shape)]
    greatest = ops.max(ops.absolute(kernel), axis=others, keepdims=True)
    scale = ops.stop_gradient(ops.maximum(greatest, 1e-12) / 127)
    return kernel + ops.stop_gradient(_nearest(kernel / scale) * scale - kernel)


def _steps(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the step size of a range, and the number of steps below zero."""
    scale = (high - low) / _N_STEPS
    return scale, ops.stop_gradient(_nearest(-low / scale))


def _nearest(x: Tensor) -> Tensor:
    return ops.floor(x + 0.5)


def _constant_range(x: Tensor, low: float, high: float) -> Tensor:
    """Quantise with the operation from which TensorFlow Lite's converter reads ranges."""
    import tensorflow as tf

    return tf.quantization.fake_quant_with_min_max_args(x, low, high)


def _at_most_zero(low: Tensor) -> Tensor:
    return ops.minimum(low, 0.0)


def _at_least_min(high: Tensor) -> Tensor:
    return ops.maximum(high, _MIN_HIGH)
