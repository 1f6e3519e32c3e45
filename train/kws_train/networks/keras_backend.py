"""What training asks of Keras's backend, whichever that is: seeds, determinism, precision."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kws_train.recipe import Precision

__all__ = ["at_precision", "batch_norm", "constants", "has_gpu", "prepare"]


def prepare(*, seed: int) -> None:
    """Seed everything random, and make what runs in parallel come out the same every time."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def at_precision(precision: Precision) -> Iterator[None]:
    """Build models within this that compute so; their weights stay float32.

    `auto` is mixed_float16 where there is a GPU, which Keras trains with a scaled loss, and float32
    elsewhere: on CPUs half precision is slower.
    """
    before = keras.config.dtype_policy()
    if precision == "auto":
        precision = "mixed_float16" if has_gpu() else "float32"
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def constants(make: Callable[[], Sequence[Any]]) -> list[np.ndarray]:
    """Return the values of what a function makes of weights, also while TensorFlow traces."""
    if keras.backend.backend() != "tensorflow":
        return [ops.convert_to_numpy(weight) for weight in make()]
    import tensorflow as tf

    with tf.init_scope():
        return [np.asarray(weight) for weight in make()]


def batch_norm(x: Any, scale: Any, offset: Any, *, epsilon: float) -> tuple[Any, Any, Any]:
    """Normalise a batch, float32 (batch, time, bands, channels), to a scale and offset per channel.

    By TensorFlow's one operation, which takes a third of the time of Keras's several.

    Returns
    -------
    tensors
        The batch, and mean and variance of each channel before.
    """
    import tensorflow as tf

    y, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, scale, offset, epsilon=epsilon)
    n = ops.cast(ops.size(x) / x.shape[-1], variance.dtype)
    return y, mean, variance * (1 - 1 / n)  # it estimates that of all there could be


def has_gpu() -> bool:
    """Return whether the backend sees a GPU."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if backend == "torch":
        import torch

        return bool(torch.cuda.is_available())
    return any(name.startswith("gpu") for name in keras.distribution.list_devices())
