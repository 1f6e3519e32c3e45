"""Conversion of a trained model to a TensorFlow Lite flatbuffer: float32, int8, 16-bit activations.

Quantisation is post-training: the step is run over features of real audio and calibrated on those
frames and the states they lead to. A quantisation-aware model brings trained ranges, and int8 uses
these.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kws_export.compact import compact
from kws_export.step import (
    cell_ranges,
    concrete_step,
    concrete_window,
    run_float,
    state_tensors,
)
from kws_train.networks.architectures import Network
from kws_train.networks.fake_quant import quant_ranges
from kws_train.networks.spotting import Spotting
from kws_train.networks.window_models import Windowed

__all__ = ["Quantization", "convert"]

Quantization: TypeAlias = Literal["int8", "int16x8", "float32"]

_N_RANGE_EXAMPLES = 24  # for the ranges of LSTM cells
# fake_quant of 16 bits does not convert; at that precision a state may be scaled anew every step.
_STATE_BITS = {"int8": 8, "int16x8": None, "float32": None}


def convert(
    model: Network,
    *,
    quantization: Quantization,
    n_frames: int,
    examples: Sequence[npt.NDArray[np.float32]],
) -> bytes:
    """Convert the step of a step model, or the window function of a window model.

    Parameters
    ----------
    model : Spotting or Windowed
    quantization : "int8", "int16x8" or "float32"
        int16x8 is 8-bit weights with 16-bit activations and states.
    n_frames : int
        Frames per call of a step model; a multiple of its time stride.
    examples : sequence of float32 [shape=(k, n_features)]
        Features of real streams to calibrate on.

    Returns
    -------
    bytes
        A flatbuffer with integer inputs and outputs, unless float32.
    """
    n_features = examples[0].shape[1]
    is_aware = bool(quant_ranges(model))
    if isinstance(model, Windowed):
        step = concrete_window(model, n_features=n_features)
        calls = partial(_window_calls, model, examples)
    else:
        ranged = examples[: 0 if is_aware else _N_RANGE_EXAMPLES]
        step = concrete_step(
            model,
            n_frames=n_frames,
            n_features=n_features,
            state_bits=_STATE_BITS[quantization],
            cell_ranges=cell_ranges(model, ranged, n_frames=n_frames),
        )
        calls = partial(_step_calls, step, model, examples, n_frames)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([step])
    if quantization != "float32":
        has_ranges = is_aware and quantization == "int8"  # of all tensors, in the graph
        _set_quantization(converter, quantization, calls=None if has_ranges else calls)
    if not is_aware:
        return compact(converter.convert())
    states = state_tensors(model)
    return compact(
        converter.convert(),  # the quantiser renames tensors
        inputs=["frames", *(one.input for one in states)],
        outputs=["Identity", *(one.output for one in states)],
    )


def _set_quantization(converter: Any, quantization: Quantization, *, calls: Any) -> None:
    """Set the converter to integers, calibrated on calls; on trained ranges without any."""
    dtype, kernels = {
        "int8": (tf.int8, tf.lite.OpsSet.TFLITE_BUILTINS_INT8),
        "int16x8": (
            tf.int16,
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        ),
    }[quantization]
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = dtype
    if calls is not None:
        converter.target_spec.supported_ops = [kernels]
        converter.representative_dataset = calls


def _step_calls(
    step: Any,
    model: Spotting,
    examples: Sequence[npt.NDArray[np.float32]],
    n_frames: int,
) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Give the inputs of every seventh call while the step runs over the examples."""
    for example in examples:
        _, inputs = run_float(step, model, example, n_frames=n_frames)
        yield from inputs[::7]


def _window_calls(
    model: Windowed, examples: Sequence[npt.NDArray[np.float32]]
) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Give all windows of the examples, at the runtime's hop.

    A word activates the last layers in one or two windows only; a subset that misses them would
    calibrate ranges that clip their outputs.
    """
    n_frames, hop = model.window_frames, model.time_stride
    for example in examples:
        before = np.repeat(example[:1], n_frames - hop, axis=0)
        padded = np.concatenate((before, example)).astype(np.float32)
        for start in range(0, len(padded) - n_frames + 1, hop):
            yield [padded[None, start : start + n_frames]]
