"""Eight bits in training: tensors rounded and clipped as the int8 model will hold them.

A tensor's range, from its least to its greatest value, is learned with the weights (the gradient of
what is clipped moves its ends) and goes into the export as it is. Weights are rounded per channel,
symmetrically, over what they reach at that moment. Rounding passes gradients on as if it were not
there (Bengio et al. 2013, the straight-through estimator). All of it is `keras.ops`, since
TensorFlow's own operation has no deterministic gradient on a GPU.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import ops

from kws_train.networks.keras_backend import constants

__all__ = ["Mode", "Ranges", "at_mode", "fake_quantize", "observe", "ranges_of", "round_kernel"]

Tensor: TypeAlias = Any
Mode: TypeAlias = Literal["learn", "hold", "observe", "off"]
"""`learn`: in training. `hold`: constants that a converter reads. `observe`: note what tensors
reach and leave them alone. `off`: leave them alone."""

_N_STEPS = 255  # of eight bits, from the least value to the greatest
_LEAST = 1e-3  # that a range reaches above zero
_FIXED_UNITS = {"sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}


class Ranges(keras.layers.Layer):
    """The ranges of the tensors within one layer of a network, each by its name.

    Every range holds zero, which the int8 model represents exactly.

    Parameters
    ----------
    points : sequence of str
        Names of the tensors whose range is learned.
    """

    def __init__(self, points: Sequence[str], **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.points = tuple(points)
        self.mode: Mode = "learn"
        shape = (len(self.points),)
        self.low = self.add_weight(
            shape=shape, initializer="zeros", constraint=_not_above_zero, name="low"
        )
        self.high = self.add_weight(
            shape=shape, initializer="ones", constraint=_above_zero, name="high"
        )
        self.built = True
        self._seen = np.zeros((2, *shape), np.float32)

    def hold(self, point: str, x: Tensor) -> Tensor:
        """Return a tensor as eight bits hold it within the range of this name."""
        i = self.points.index(point)
        if self.mode == "observe":
            values = ops.convert_to_numpy(x)
            self._seen[0, i] = min(self._seen[0, i], values.min())
            self._seen[1, i] = max(self._seen[1, i], values.max())
        if self.mode == "hold":
            return _constant_range(x, *self.ends()[point])
        return fake_quantize(x, self.low[i], self.high[i]) if self.mode == "learn" else x

    def hold_unit(self, function: Literal["sigmoid", "tanh"], y: Tensor) -> Tensor:
        """Return the output of a sigmoid or tanh as TensorFlow Lite holds it, always the same."""
        low, high = _FIXED_UNITS[function]
        if self.mode == "hold":
            return _constant_range(y, low, high)
        return fake_quantize(y, low, high) if self.mode == "learn" else y

    def round(self, kernel: Tensor, *, axis: int | None) -> Tensor:
        """Round weights, per channel of an axis; or as one tensor, as operands of sums are."""
        if self.mode not in ("learn", "hold"):
            return kernel
        if axis is None:
            low, high = ops.minimum(ops.min(kernel), 0.0), ops.maximum(ops.max(kernel), _LEAST)
            return fake_quantize(kernel, low, high)
        return round_kernel(kernel, axis=axis)

    def ends(self) -> dict[str, tuple[float, float]]:
        """Return each range as the int8 model has it: moved so that zero is one of its steps."""
        scale, zero = constants(lambda: _steps(self.low, self.high))
        return {
            point: (float(-zero[i] * scale[i]), float((_N_STEPS - zero[i]) * scale[i]))
            for i, point in enumerate(self.points)
        }

    def settle(self) -> None:
        """Let the ranges be what was observed."""
        self.low.assign(self._seen[0])
        self.high.assign(np.maximum(self._seen[1], _LEAST))


def ranges_of(model: keras.Model) -> list[Ranges]:
    """Return the ranges of all layers; none of a model that is not quantisation-aware."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, Ranges)]


@contextmanager
def at_mode(model: keras.Model, mode: Mode) -> Iterator[None]:
    """Let the ranges of a model be in a mode within this, and in `learn` after it."""
    found = ranges_of(model)
    for ranges in found:
        ranges.mode = mode
    try:
        yield
    finally:
        for ranges in found:
            ranges.mode = "learn"


def observe(model: keras.Model, batches: Iterable[Tensor]) -> None:
    """Set the ranges of a model to what its tensors reach on batches of frames, unrounded."""
    with at_mode(model, "observe"):
        for frames in batches:
            model(frames)
    for ranges in ranges_of(model):
        ranges.settle()


def fake_quantize(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Clip a tensor to a range that holds zero and round it to the nearest of 256 values.

    Jacob et al. 2018, section 3, equation 12, with the range moved so that zero is a value.
    """
    scale, zero = _steps(low, high)
    low = low + ops.stop_gradient(-zero * scale - low)
    high = high + ops.stop_gradient((_N_STEPS - zero) * scale - high)
    clipped = ops.minimum(ops.maximum(x, low), high)
    return clipped + ops.stop_gradient(_nearest(clipped / scale) * scale - clipped)


def round_kernel(kernel: Tensor, *, axis: int) -> Tensor:
    """Round weights to 127 steps either way, whose size each channel of an axis has its own of."""
    others = [i for i in range(len(kernel.shape)) if i != axis % len(kernel.shape)]
    greatest = ops.max(ops.absolute(kernel), axis=others, keepdims=True)
    scale = ops.stop_gradient(ops.maximum(greatest, 1e-12) / 127)
    return kernel + ops.stop_gradient(_nearest(kernel / scale) * scale - kernel)


def _steps(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the size of a range's steps, and how many of them lie below zero."""
    scale = (high - low) / _N_STEPS
    return scale, ops.stop_gradient(_nearest(-low / scale))


def _nearest(x: Tensor) -> Tensor:
    return ops.floor(x + 0.5)


def _constant_range(x: Tensor, low: float, high: float) -> Tensor:
    """Do the same by the operation that TensorFlow Lite's converter takes ranges from."""
    import tensorflow as tf

    return tf.quantization.fake_quant_with_min_max_args(x, low, high)


def _not_above_zero(low: Tensor) -> Tensor:
    return ops.minimum(low, 0.0)


def _above_zero(high: Tensor) -> Tensor:
    return ops.maximum(high, _LEAST)
