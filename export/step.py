"""The step of a trained model as a TensorFlow function that converts to TensorFlow Lite.

The function takes `frames` (1, n_frames, n_features) and one tensor per state, and gives the
posteriors (1, outputs, labels) and the states after them. Weights are constants in it, with batch
normalisation folded in; recurrent layers are unrolled over the outputs of one call.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kws.train.layers import GRU
from kws.train.zoo import Spotting

__all__ = ["concrete_step", "run_float"]


def concrete_step(
    model: Spotting, *, n_frames: int, n_features: int, state_bits: int | None
) -> Any:
    """Trace the step for `n_frames` frames a call.

    With `state_bits` the range of a recurrent state is fixed to what that many bits of symmetric
    fixed point hold, so that the tensor that comes out is quantised as the one that goes in.

    Returns
    -------
    concrete function
        Inputs `frames`, `state_0` ...; outputs posteriors, then states, in that order.
    """
    _bound_recurrent_states(model, state_bits)
    shapes = model.state_shapes()

    def step(frames: Any, *states: Any) -> tuple[Any, ...]:
        posteriors, after = model.step(frames, list(states))
        return (posteriors, *after)

    signature = [tf.TensorSpec((1, n_frames, n_features), tf.float32, name="frames")]
    signature += [
        tf.TensorSpec(shape, tf.float32, name=f"state_{i}") for i, shape in enumerate(shapes)
    ]
    return tf.function(step, autograph=False).get_concrete_function(*signature)


def run_float(
    step: Any, model: Spotting, frames: npt.NDArray[np.float32], *, n_frames: int
) -> tuple[npt.NDArray[np.float32], list[list[npt.NDArray[np.float32]]]]:
    """Step through a sequence; return posteriors (outputs, labels) and every call's inputs.

    Parameters
    ----------
    frames : float32 [shape=(k, n_features)]
        Frames beyond the last whole call are left out.
    """
    states = [np.zeros(shape, np.float32) for shape in model.state_shapes()]
    posteriors, inputs = [], []
    for start in range(0, len(frames) - n_frames + 1, n_frames):
        call = [frames[None, start : start + n_frames].astype(np.float32), *states]
        inputs.append(call)
        out, *after = step(*(tf.constant(value) for value in call))
        states = [state.numpy() for state in after]
        posteriors.append(out.numpy()[0])
    return np.concatenate(posteriors), inputs


def _bound_recurrent_states(model: Spotting, n_bits: int | None) -> None:
    """Fix h's range to [-1, 1): a tanh and averages of it never leave that."""

    def bound(h: Any) -> Any:
        if n_bits is None:
            return h
        most = 1 - 2.0 ** (1 - n_bits)
        return tf.quantization.fake_quant_with_min_max_args(h, -1.0, most, num_bits=n_bits)

    for layer in model.stack:
        if isinstance(layer, GRU):
            layer.bound = bound  # type: ignore[method-assign]
