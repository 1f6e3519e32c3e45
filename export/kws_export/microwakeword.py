"""Export for microcontrollers: a streaming int8 .tflite and its JSON, as ESPHome loads them.

The network keeps its memory in variables of its own: TensorFlow Lite Micro has no other that lasts
from one call to the next. An initialisation that runs once sets them to zero. A call takes the
newest frames, int8 (1, 3, 40), and returns the probability of the word, uint8 (1, 1): the logistic
of the difference of two logits, which is their softmax.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import ops

from kws.errors import ModelError
from kws.flatbuffer import read_graphs
from kws_export.compact import compact
from kws_export.tensor_arena import tensor_arena_bytes
from kws_export.verify import MIN_AGREEMENT, Agreement, verify
from kws_train.atomic import replacing
from kws_train.networks.micro_network import STRIDE_FRAMES
from kws_train.networks.spotting import Spotting
from kws_train.networks.streaming import step_through

__all__ = [
    "ESPHOME_OPERATORS",
    "MicroDescription",
    "copy_description",
    "cutoff_of",
    "export_microwakeword",
    "write_description",
]

ESPHOME_OPERATORS = {
    "ADD": 0,
    "AVERAGE_POOL_2D": 1,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 4,
    "FULLY_CONNECTED": 9,
    "LOGISTIC": 14,
    "MAX_POOL_2D": 17,
    "MUL": 18,
    "RESHAPE": 22,
    "PAD": 34,
    "MEAN": 40,
    "STRIDED_SLICE": 45,
    "PACK": 83,
    "SPLIT_V": 102,
    "QUANTIZE": 114,
    "CALL_ONCE": 129,
    "VAR_HANDLE": 142,
    "READ_VARIABLE": 143,
    "ASSIGN_VARIABLE": 144,
}
"""What the component micro_wake_word of ESPHome registers, by name in the TFLite schema."""

_MOST_VARIABLES = 20
"""That ESPHome reserves room for."""
_FRAME_MS = 10
_HIGHEST = 26.0
"""The greatest value of a frame: ESPHome scales 0..26 to eight bits, whatever the file says."""
_STEPS = 255
"""ESPHome compares with the cut-off in these, rounded down."""
_MINIMUM_ESPHOME_VERSION = "2024.7.0"  # the first with steps of several frames


class MicroDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What the JSON says beside the name and needs of the network.

    Attributes
    ----------
    wake_word : str
    language : str
        Such as `en`.
    probability_cutoff : float
        The mean probability of the window has to be above it.
    sliding_window_size : int
        Outputs of the network.
    author : str
    """

    wake_word: str
    language: str
    probability_cutoff: float
    sliding_window_size: int
    author: str = "kws"


def export_microwakeword(
    model: Spotting,
    out: Path,
    *,
    description: MicroDescription,
    examples: npt.NDArray[np.float32],
) -> Agreement:
    """Write a trained network as .tflite and .json of the same name.

    Parameters
    ----------
    model : Spotting
        Of `micro_network`, with two labels.
    out : Path
        The .tflite.
    description : MicroDescription
    examples : float32 [shape=(n, k, 40)]
        Frames of scenes, to calibrate on and to compare outputs on.

    Returns
    -------
    Agreement
        Of the file, as kws runs it, with the trained network.

    Raises
    ------
    ModelError
        If the file cannot be run, or disagrees with the trained network.
    """
    n_frames = examples.shape[1] // STRIDE_FRAMES * STRIDE_FRAMES
    calibrating, compared = np.split(examples[:, :n_frames], [len(examples) // 2])
    content = _convert(model, calibrating)
    _check_operators(content)
    posteriors = np.asarray(ops.softmax(model.predict(compared, verbose=0)))[..., 1:]
    with tempfile.TemporaryDirectory() as folder:
        candidate, expected = Path(folder) / "micro.tflite", Path(folder) / "expected.npz"
        candidate.write_bytes(content)
        write_description(candidate, description, content=content)
        np.savez(expected, frames=compared, posteriors=posteriors)
        agreement = verify(candidate, expected)
    if agreement.argmax < MIN_AGREEMENT:
        raise ModelError(
            f"An exported network must agree with the trained one at {MIN_AGREEMENT:.1%} of the "
            f"outputs. Received: {agreement.argmax:.2%} over {agreement.n_outputs}. Train again "
            f"with another `--seed`."
        )
    write_description(out, description, content=content)
    with replacing(out) as begun:
        begun.write_bytes(content)
    return agreement


def write_description(model: Path, description: MicroDescription, *, content: bytes) -> None:
    """Write the JSON of version 2 beside a .tflite of this content."""
    _write_json(
        model,
        {
            "type": "micro",
            "wake_word": description.wake_word,
            "author": description.author,
            "model": model.name,
            "trained_languages": [description.language],
            "version": 2,
            "micro": {
                "probability_cutoff": description.probability_cutoff,
                "sliding_window_size": description.sliding_window_size,
                "feature_step_size": _FRAME_MS,
                "tensor_arena_size": tensor_arena_bytes(content),
                "minimum_esphome_version": _MINIMUM_ESPHOME_VERSION,
            },
        },
    )


def copy_description(model: Path, out: Path) -> None:
    """Copy the JSON beside a model to that beside another file of the same content."""
    known = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))
    _write_json(out, known | {"model": out.name})


def cutoff_of(threshold: float) -> float:
    """Return the cut-off that is the same on a device and in kws, from a threshold of kws up.

    A device rounds it down to a multiple of 1/255; four digits above a multiple stay that one.
    """
    steps = min(_STEPS - 1, int(np.ceil(threshold * _STEPS)))
    return float(np.ceil(1e4 * steps / _STEPS) / 1e4)


def _write_json(model: Path, content: dict[str, Any]) -> None:
    with replacing(model.with_suffix(".json")) as begun:
        begun.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _convert(model: Spotting, examples: npt.NDArray[np.float32]) -> bytes:
    """Convert a network with variables for its states; calibrate on examples one after another."""
    with tempfile.TemporaryDirectory() as folder:
        network = _Streamed(model, n_values=examples.shape[2])
        tf.saved_model.save(network, folder, signatures=network.step)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.experimental_enable_resource_variables = True
        converter._experimental_variable_quantization = True
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.uint8
        converter.representative_dataset = lambda: _calls(examples)
        return compact(converter.convert())


class _Streamed(tf.Module):
    """A network whose step reads its states from variables and assigns the new ones."""

    def __init__(self, model: Spotting, *, n_values: int) -> None:
        super().__init__()
        *body, classify = model.stack
        self._states = [
            tf.Variable(tf.zeros(shape), trainable=False, name=f"state_{i}")
            for i, shape in enumerate(model.state_shapes())
        ]
        kernel, bias = (np.asarray(weights) for weights in classify.dense.weights)
        frames = tf.TensorSpec((1, model.time_stride, n_values), tf.float32, name="frames")

        def step(frames: Any) -> Any:
            x = tf.reshape(frames, (*frames.shape, 1))
            x, after = step_through(body, x, [one.read_value() for one in self._states])
            for state, value in zip(self._states, after, strict=True):
                state.assign(value)
            x = tf.reshape(x, (1, x.shape[3]))
            logit = tf.matmul(x, kernel[:, 1:] - kernel[:, :1]) + (bias[1:] - bias[:1])
            return tf.sigmoid(logit)

        self.step = tf.function(step, input_signature=[frames], autograph=False)


def _calls(examples: npt.NDArray[np.float32]) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Give the frames of every call, the first with the bounds of their values."""
    bounds = np.zeros((1, STRIDE_FRAMES, examples.shape[2]), np.float32)
    bounds[0, 0, 0] = _HIGHEST
    yield [bounds]
    for example in examples:
        for call in np.split(example, len(example) // STRIDE_FRAMES):
            yield [call[None].astype(np.float32)]


def _check_operators(content: bytes) -> None:
    """Refuse what a device could not run."""
    graphs = read_graphs(content, name="the exported network")
    found = {operator.code for graph in graphs for operator in graph.operators}
    if strange := found - set(ESPHOME_OPERATORS.values()):
        raise ModelError(
            f"A network for ESPHome must have operators that it registers. Received: those "
            f"numbered {', '.join(map(str, sorted(strange)))}. Report this as a fault of kws."
        )
    n_variables = sum(one.code == ESPHOME_OPERATORS["READ_VARIABLE"] for one in graphs[0].operators)
    if n_variables > _MOST_VARIABLES:
        raise ModelError(
            f"A network for ESPHome must have {_MOST_VARIABLES} variables at most. Received: "
            f"{n_variables}. Report this as a fault of kws."
        )
