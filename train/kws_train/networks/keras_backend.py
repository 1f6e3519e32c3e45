"""Backend-dependent parts of training: determinism, precision, fused batch norm, GPU detection."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kws_train.recipe import Precision

__all__ = ["at_precision", "batch_norm", "constants", "has_gpu", "make_deterministic"]


def make_deterministic(*, seed: int) -> None:
    """Seed all random generators and make parallel operations deterministic."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def at_precision(precision: Precision) -> Iterator[None]:
    """Let models built in this block compute at a precision; their weights stay float32.

    `auto` is mixed_float16 on a GPU, which Keras trains with loss scaling, and float32 otherwise:
    on CPUs half precision is slower.
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
    """Return the values of tensors that a function computes from weights, also during tracing."""
    if keras.backend.backend() != "tensorflow":
        return [ops.convert_to_numpy(weight) for weight in make()]
    import tensorflow as tf

    with tf.init_scope():
        return [np.asarray(weight) for weight in make()]


def batch_norm(x: Any, scale: Any, offset: Any, *, epsilon: float) -> tuple[Any, Any, Any]:
    """Normalise a batch, float32 (batch, time, bands, channels), per channel; scale and shift it.

    Uses TensorFlow's fused operation, which takes a third of the time of Keras's separate ones.

    Returns
    -------
    tensors
        The normalised batch; mean and variance of each channel of the input.
    """
    import tensorflow as tf

    y, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, scale, offset, epsilon=epsilon)
    n = ops.cast(ops.size(x) / x.shape[-1], variance.dtype)
    return y, mean, variance * (1 - 1 / n)  # from the unbiased to the biased estimate


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
