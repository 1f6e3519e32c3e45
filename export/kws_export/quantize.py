"""From a trained model to a TensorFlow Lite flatbuffer: float32, int8, or 16-bit activations.

Quantisation is post-training and needs examples: the step is run over real audio and calibrated on
the frames and on the states that it really reaches. A quantisation-aware model has learned its
ranges, and int8 takes these.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kws_export.compact import compact
from kws_export.step import cell_ranges, concrete_step, concrete_window, run_float
from kws_train.networks.architectures import Network, Spotting
from kws_train.networks.fake_quant import quant_ranges
from kws_train.networks.window_models import Windowed

__all__ = ["Quantization", "convert"]

Quantization: TypeAlias = Literal["int8", "int16x8", "float32"]

# fake_quant of 16 bits does not convert; at that precision a state may be scaled anew every step.
_N_RANGED = 24  # examples that the ranges of LSTM cells are found on
_STATE_BITS = {"int8": 8, "int16x8": None, "float32": None}


def convert(
    model: Network,
    *,
    quantization: Quantization,
    n_frames: int,
    examples: Sequence[npt.NDArray[np.float32]],
) -> bytes:
    """Convert the step of a model, or what a network for windows does with one.

    Parameters
    ----------
    model : Spotting or Windowed
    quantization : "int8", "int16x8" or "float32"
        int16x8 is 8-bit weights with 16-bit activations and states.
    n_frames : int
        Frames to a call of a step; a multiple of the model's time stride.
    examples : sequence of float32 [shape=(k, n_features)]
        Features of real streams to calibrate on.

    Returns
    -------
    bytes
        A flatbuffer with integer inputs and outputs, unless float32.
    """
    n_features = examples[0].shape[1]
    aware = bool(quant_ranges(model))
    if isinstance(model, Windowed):
        step = concrete_window(model, n_features=n_features)
        calls = partial(_windows, model, examples)
    else:
        ranged = examples[: 0 if aware else _N_RANGED]
        step = concrete_step(
            model,
            n_frames=n_frames,
            n_features=n_features,
            state_bits=_STATE_BITS[quantization],
            cell_ranges=cell_ranges(model, ranged, n_frames=n_frames),
        )
        calls = partial(_calls, step, model, examples, n_frames)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([step])
    if quantization != "float32":
        dtype, kernels = {
            "int8": (tf.int8, tf.lite.OpsSet.TFLITE_BUILTINS_INT8),
            "int16x8": (
                tf.int16,
                tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
            ),
        }[quantization]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = converter.inference_output_type = dtype
        if not (aware and quantization == "int8"):  # else all ranges are in the graph
            converter.target_spec.supported_ops = [kernels]
            converter.representative_dataset = calls
    if not aware:
        return compact(converter.convert())
    n_states = len(model.state_shapes())
    return compact(
        converter.convert(),  # calls what it has quantised by names of its own
        inputs=["frames", *(f"state_{i}" for i in range(n_states))],
        outputs=["Identity", *(f"Identity_{i + 1}" for i in range(n_states))],
    )


def _calls(
    step: Any,
    model: Spotting,
    examples: Sequence[npt.NDArray[np.float32]],
    n_frames: int,
) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Give the inputs of the step, one call in seven, as it runs over the examples."""
    for example in examples:
        _, inputs = run_float(step, model, example, n_frames=n_frames)
        yield from inputs[::7]


def _windows(
    model: Windowed, examples: Sequence[npt.NDArray[np.float32]]
) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Give all windows of the examples as the runtime slides them.

    A word is answered in one or two of them, and there alone the last layers reach their greatest
    values: what is not calibrated on these cuts them off.
    """
    n_frames, hop = model.window_frames, model.time_stride
    for example in examples:
        before = np.repeat(example[:1], n_frames - hop, axis=0)
        padded = np.concatenate((before, example)).astype(np.float32)
        for start in range(0, len(padded) - n_frames + 1, hop):
            yield [padded[None, start : start + n_frames]]
