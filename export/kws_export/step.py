"""The step of a trained model as a TensorFlow function that converts to TensorFlow Lite.

The function takes `frames` (1, n_frames, n_features) and one tensor per state, and returns the
posteriors (1, outputs, labels) and the new states. Weights are constants in it, with batch
normalisation folded in; recurrent layers are unrolled over the outputs of one call. A window model
becomes a function of one window, its recurrent layers unrolled over the window.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kws.manifest import StateTensor
from kws_train.networks.fake_quant import quant_mode, quant_ranges
from kws_train.networks.recurrent import LSTM, Recurrent
from kws_train.networks.spotting import Spotting
from kws_train.networks.window_models import Windowed

__all__ = ["cell_ranges", "concrete_step", "concrete_window", "run_float", "state_tensors"]


def concrete_step(
    model: Spotting,
    *,
    n_frames: int,
    n_features: int,
    state_bits: int | None,
    cell_ranges: Sequence[float] = (),
) -> Any:
    """Trace the step for `n_frames` frames per call.

    With `state_bits`, the range of a recurrent state is fixed to that many bits of symmetric fixed
    point, so that a state's output tensor is quantised like its input tensor. LSTM cells are
    unbounded: `cell_ranges` gives the range of each, first layer first. A quantisation-aware model
    has trained ranges of all tensors; they are applied at eight bits of state and omitted
    otherwise.

    Returns
    -------
    concrete function
        Inputs `frames`, `state_0` ...; outputs posteriors, then states, in that order.
    """
    if not quant_ranges(model):
        _bound_recurrent_states(model, state_bits, cell_ranges)

    def step(frames: Any, *states: Any) -> tuple[Any, ...]:
        posteriors, after = model.step(frames, list(states))
        return (posteriors, *after)

    signature = [tf.TensorSpec((1, n_frames, n_features), tf.float32, name="frames")]
    signature += [
        tf.TensorSpec(one.shape, tf.float32, name=one.input) for one in state_tensors(model)
    ]
    with quant_mode(model, "constant" if state_bits == 8 else "off"):
        return tf.function(step, autograph=False).get_concrete_function(*signature)


def state_tensors(model: Spotting) -> tuple[StateTensor, ...]:
    """Return the names and shapes of a step's states, in the order of `concrete_step`.

    TensorFlow names the outputs: `Identity` is the posteriors, `Identity_1` the first state.
    """
    return tuple(
        StateTensor(input=f"state_{i}", output=f"Identity_{i + 1}", shape=shape)
        for i, shape in enumerate(model.state_shapes())
    )


def run_float(
    step: Any, model: Spotting, frames: npt.NDArray[np.float32], *, n_frames: int
) -> tuple[npt.NDArray[np.float32], list[list[npt.NDArray[np.float32]]]]:
    """Run a traced step over frames; return posteriors (outputs, labels) and every call's inputs.

    Parameters
    ----------
    frames : float32 [shape=(k, n_features)]
        Frames after the last whole call are not used.
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


def cell_ranges(
    model: Spotting, examples: Sequence[npt.NDArray[np.float32]], *, n_frames: int
) -> list[float]:
    """Return the largest magnitude of each LSTM's cell state over examples."""
    if not examples or not any(isinstance(layer, LSTM) for layer in model.stack):
        return []
    step = concrete_step(model, n_frames=n_frames, n_features=examples[0].shape[1], state_bits=None)
    calls = [call for one in examples for call in run_float(step, model, one, n_frames=n_frames)[1]]
    ranges, at = [], 1  # the frames come first
    for layer in model.stack:
        if isinstance(layer, LSTM):
            ranges.append(max(float(np.abs(call[at + 1]).max()) for call in calls))
        at += len(layer.state_shapes())
    return ranges


def concrete_window(model: Windowed, *, n_features: int) -> Any:
    """Trace a window model: `frames` (1, window_frames, features) to (1, 1, labels)."""
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    frames = tf.TensorSpec((1, model.window_frames, n_features), tf.float32, name="frames")
    with _unrolled(model.net):
        window = tf.function(model.window, autograph=False)
        return convert_variables_to_constants_v2(window.get_concrete_function(frames))


@contextmanager
def _unrolled(net: keras.Model) -> Iterator[None]:
    """Unroll recurrent layers: TensorFlow Lite does not quantise loops."""
    found = [layer for layer in net._flatten_layers() if isinstance(layer, keras.layers.RNN)]
    for layer in found:
        layer.unroll = True
    try:
        yield
    finally:
        for layer in found:
            layer.unroll = False


def _bound_recurrent_states(
    model: Spotting, n_bits: int | None, cell_ranges: Sequence[float]
) -> None:
    """Fix the range of h to [-1, 1), which a tanh and its averages never leave, and the cells'."""

    def bound_to(limit: float) -> Any:
        def bound(state: Any) -> Any:
            if n_bits is None:
                return state
            highest = limit * (1 - 2.0 ** (1 - n_bits))
            return tf.quantization.fake_quant_with_min_max_args(
                state, -limit, highest, num_bits=n_bits
            )

        return bound

    ranges = iter(cell_ranges)
    for layer in model.stack:
        if isinstance(layer, Recurrent):
            layer.bound = bound_to(1.0)  # type: ignore[method-assign]
        if isinstance(layer, LSTM):
            layer.bound_cell = bound_to(next(ranges, 1.0))  # type: ignore[method-assign]
