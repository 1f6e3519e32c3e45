"""Export of a head as a model of openWakeWord: a window of 16 vectors or more in, one score out.

The head's streaming step becomes a window without state: its convolutions give as many outputs as
have whole context, whose last ones are averaged as the decision of kws averages them. The window is
as long as that takes; programs on openWakeWord read its length from the file. The bundled
embedding's standardisation is folded into the first layer, so that the file takes the values of the
published network.
"""

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.errors import ModelError
from kws.manifest import Manifest
from kws.model import model_path, open_model
from kws.model_file import read_model
from kws.stderr import quiet_stderr
from kws_train.atomic import replacing
from kws_train.data.audio_files import read_samples
from kws_train.data.front_ends import speech_embedding
from kws_train.networks.speech_embedding import load_weights
from kws_train.optional import load_library

__all__ = [
    "Convolution",
    "ExportedHead",
    "HeadWeights",
    "export_openwakeword",
    "read_head",
]

log = logging.getLogger("kws_export")

_FEWEST_VECTORS, _MOST_VECTORS = 16, 120
"""Of the window: those of openWakeWord's own models, and what its programs keep."""

Array: TypeAlias = npt.NDArray[np.float32]

_OPSET, _IR_VERSION = 13, 8  # of ONNX; what onnxruntime 1.10 knows
_LARGEST_DIFFERENCE, _RECORDING = 0.05, "demo.wav"


class Convolution(NamedTuple):
    """A causal convolution with a rectifier."""

    kernel: Array  # (taps, inputs, outputs)
    bias: Array  # (outputs,)
    dilation: int


class HeadWeights(NamedTuple):
    """The layers of a head."""

    convolutions: list[Convolution]
    kernel: Array  # (channels, labels)
    bias: Array  # (labels,)

    @property
    def size(self) -> int:
        """Values of a vector."""
        return int(self.convolutions[0].kernel.shape[1])

    @property
    def n_context(self) -> int:
        """Vectors that an output depends on."""
        return 1 + sum(one.dilation * (len(one.kernel) - 1) for one in self.convolutions)

    def n_vectors(self, n_outputs: int) -> int:
        """Return the vectors of a window that has so many outputs with whole context."""
        return self.n_context + n_outputs - 1


class ExportedHead(NamedTuple):
    """What was written for a keyword."""

    keyword: str
    files: tuple[Path, ...]
    largest_difference: float
    """Between the scores of the files and those of the head, averaged as far as they can be."""
    n_averaged: int
    """Outputs that the files average."""


def export_openwakeword(source: Path, out: Path) -> list[ExportedHead]:
    """Write a head as .tflite and .onnx, with a note of its settings; a set for each keyword.

    Parameters
    ----------
    source : Path
        A head's .tflite, or the working folder of `kws new` that it was made in.
    out : Path
        The .tflite; with several keywords, `_` and the keyword are put before its suffix.

    Raises
    ------
    ModelError
        If the file is no head on the speech embedding, its context is longer than the window, or
        what was written gives other scores.
    ConfigError
        If the library onnx is not installed.
    """
    path = source / "model.tflite" if source.is_dir() else source
    manifest, _ = read_model(path)
    if manifest.takes is None or manifest.input_affine is not None:
        raise ModelError(
            f"Only a head of `kws new` becomes a model of openWakeWord. Received: {path}. Train "
            f"one with `kws new`, without --small or --format."
        )
    weights = read_head(path)
    if (n_context := weights.n_context) > _MOST_VECTORS:
        raise ModelError(
            f"A head must depend on {_MOST_VECTORS} vectors at most to become a model of "
            f"openWakeWord. Received: {path}, which depends on {n_context}. Train it again with "
            f"this version."
        )
    n_wanted = max(1, round(manifest.decision.smoothing_ms / manifest.call_ms))
    n_averaged = min(n_wanted, _MOST_VECTORS - n_context + 1)
    if n_averaged < n_wanted:
        log.warning(
            "kws averages %d scores of this head, of which a window of %d vectors has %d.",
            n_wanted,
            _MOST_VECTORS,
            n_averaged,
        )
    published = _published(weights)
    results = []
    for keyword in manifest.keywords:
        named = out if len(manifest.keywords) == 1 else _named(out, keyword)
        column = manifest.labels.index(keyword)
        results.append(
            _write(published, path, manifest, column=column, n_averaged=n_averaged, out=named)
        )
    return results


def read_head(path: Path) -> HeadWeights:
    """Return the layers of a head's file, as floating-point numbers.

    Raises
    ------
    ModelError
        If the network is not a chain of causal convolutions and a dense layer.
    """
    runtime = load_library("ai_edge_litert.interpreter", purpose="Reading a head")
    kernels = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = runtime.Interpreter(str(path), experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    tensors = {one["index"]: one for one in interpreter.get_tensor_details()}
    convolutions, dense, n_past = [], [], 0
    for operator in interpreter._get_ops_details():
        match operator["op_name"]:
            case "CONCATENATION":
                n_past = int(tensors[operator["inputs"][0]]["shape"][1])
            case "CONV_2D":
                kernel, bias = _parameters(interpreter, tensors, operator)
                taps = kernel[:, :, 0].transpose(1, 2, 0)  # from (outputs, taps, 1, inputs)
                dilation = n_past // (len(taps) - 1) if len(taps) > 1 else 1
                convolutions.append(Convolution(taps, bias, dilation))
                _check_rectified(tensors[operator["outputs"][0]], path)
            case "FULLY_CONNECTED":
                dense.append(_parameters(interpreter, tensors, operator))
            case "RESHAPE" | "STRIDED_SLICE" | "SOFTMAX":
                pass
            case other:
                raise _unknown(path, other)
    if len(dense) != 1 or not convolutions:
        raise _unknown(path, f"{len(convolutions)} convolutions and {len(dense)} dense layers")
    ((kernel, bias),) = dense
    return HeadWeights(convolutions, kernel.T, bias)


def _parameters(interpreter: Any, tensors: Any, operator: Any) -> tuple[Array, Array]:
    """Return kernel and bias; their quantisation is undone."""
    values = []
    for index in operator["inputs"][1:3]:
        scales = tensors[index]["quantization_parameters"]["scales"]
        value = interpreter.get_tensor(index).astype(np.float32)
        if len(scales):
            value *= scales.reshape(-1, *[1] * (value.ndim - 1))
        values.append(value)
    return values[0], values[1]


def _check_rectified(tensor: Any, path: Path) -> None:
    """Refuse an output that can be negative: it has another activation."""
    scale, zero_point = tensor["quantization"]
    if scale and zero_point != np.iinfo(tensor["dtype"]).min:
        raise _unknown(path, "a convolution without a rectifier")


def _unknown(path: Path, received: str) -> ModelError:
    return ModelError(
        f"A head must be a chain of convolutions over time. Received: {received} in {path}. Train "
        f"it again with this version of kws."
    )


def _published(weights: HeadWeights) -> HeadWeights:
    """Return layers that take the values of the published embedding."""
    statistics = load_weights()
    first, *others = weights.convolutions
    kernel = first.kernel / statistics["std"][None, :, None]
    bias = first.bias - np.einsum("tio,i->o", kernel, statistics["mean"])
    return weights._replace(
        convolutions=[Convolution(kernel.astype(np.float32), bias, first.dilation), *others]
    )


def _named(out: Path, keyword: str) -> Path:
    return out.with_name(f"{out.stem}_{keyword}{out.suffix}")


def _write(
    weights: HeadWeights,
    head: Path,
    manifest: Manifest,
    *,
    column: int,
    n_averaged: int,
    out: Path,
) -> ExportedHead:
    """Write the files of a keyword, and compare them with the head."""
    choice = np.zeros((len(manifest.labels), 1), np.float32)
    choice[column] = 1
    n_outputs = max(n_averaged, _FEWEST_VECTORS - weights.n_context + 1)
    mean = np.zeros((1, n_outputs), np.float32)
    mean[0, n_outputs - n_averaged :] = 1 / n_averaged
    note = json.dumps(_note(manifest, column, n_averaged), indent=1)
    contents = {
        out: _tflite(weights, choice, mean),
        out.with_suffix(".onnx"): _onnx(weights, choice, mean),
        out.with_suffix(".openwakeword.json"): note.encode(),
    }
    difference = _difference(
        head,
        contents,
        column=column,
        n_averaged=n_averaged,
        n_vectors=weights.n_vectors(n_outputs),
    )
    if difference > _LARGEST_DIFFERENCE:
        raise ModelError(
            f"An exported head must give the scores of the head. Received: a difference of "
            f"{difference:.3f} for {out}. Train the head again with this version of kws."
        )
    for path, content in contents.items():
        with replacing(path) as begun:
            begun.write_bytes(content)
    return ExportedHead(manifest.labels[column], tuple(contents), difference, n_averaged)


def _tflite(weights: HeadWeights, choice: Array, mean: Array) -> bytes:
    with quiet_stderr():  # TensorFlow logs while it is imported and converts
        return _converted(weights, choice, mean)


def _converted(weights: HeadWeights, choice: Array, mean: Array) -> bytes:
    tf = load_library("tensorflow", purpose="Writing a .tflite")

    n_vectors = weights.n_vectors(mean.shape[1])

    @tf.function(input_signature=[tf.TensorSpec((1, n_vectors, weights.size), tf.float32)])  # type: ignore[untyped-decorator]
    def score(vectors: Any) -> Any:
        x = vectors[:, :, None, :]
        for one in weights.convolutions:
            kernel = one.kernel[:, None]  # (taps, 1, inputs, outputs)
            x = tf.nn.conv2d(x, kernel, 1, "VALID", dilations=(one.dilation, 1))
            x = tf.nn.relu(x + one.bias)
        posteriors = tf.nn.softmax(x[0, :, 0] @ weights.kernel + weights.bias)
        return tf.constant(mean) @ posteriors @ tf.constant(choice)

    concrete = score.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
    content: bytes = converter.convert()
    return content


def _onnx(weights: HeadWeights, choice: Array, mean: Array) -> bytes:
    onnx = load_library("onnx", purpose="Writing an .onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    constants = [
        onnx.numpy_helper.from_array(value, name)
        for name, value in _constants(weights, choice, mean)
    ]
    nodes = [helper.make_node("Transpose", ["vectors"], ["x0"], perm=[0, 2, 1])]
    n = len(weights.convolutions)
    for i, one in enumerate(weights.convolutions):
        inputs = [f"x{i}", f"kernel{i}", f"bias{i}"]
        nodes += [
            helper.make_node("Conv", inputs, [f"y{i}"], dilations=[one.dilation]),
            helper.make_node("Relu", [f"y{i}"], [f"x{i + 1}"]),
        ]
    nodes += [
        helper.make_node("Transpose", [f"x{n}"], ["channels"], perm=[0, 2, 1]),
        helper.make_node("Squeeze", ["channels", "axes"], ["outputs"]),
        helper.make_node("Gemm", ["outputs", "kernel", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["posteriors"], axis=1),
        helper.make_node("MatMul", ["mean", "posteriors"], ["averages"]),
        helper.make_node("MatMul", ["averages", "choice"], ["score"]),
    ]
    shape = [1, weights.n_vectors(mean.shape[1]), weights.size]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("vectors", kinds.FLOAT, shape)],
        [helper.make_tensor_value_info("score", kinds.FLOAT, [1, 1])],
        constants,
    )
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _constants(weights: HeadWeights, choice: Array, mean: Array) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [("axes", np.array([0], np.int64))]
    found += [("kernel", weights.kernel), ("bias", weights.bias)]
    found += [("choice", choice), ("mean", mean)]
    for i, one in enumerate(weights.convolutions):
        kernel = np.ascontiguousarray(one.kernel.transpose(2, 1, 0))  # (outputs, inputs, taps)
        found += [(f"kernel{i}", kernel), (f"bias{i}", one.bias)]
    return found


def _note(manifest: Manifest, column: int, n_averaged: int) -> dict[str, Any]:
    """Return what openWakeWord's files have no place for."""
    keyword, decision = manifest.labels[column], manifest.decision
    return {
        "keyword": keyword,
        "threshold": decision.threshold,
        "thresholds": {
            f"{one.false_alarms_per_hour:g} false alarms/h": one.thresholds[keyword]
            for one in manifest.calibration
            if keyword in one.thresholds
        },
        "averaged_scores": n_averaged,
        "averaged_scores_of_kws": round(decision.smoothing_ms / manifest.call_ms),
        "refractory_seconds": decision.refractory_ms / 1000,
        "licence": manifest.licence,
        "data": [one.name for one in manifest.data],
    }


def _difference(
    head: Path, contents: Mapping[Path, bytes], *, column: int, n_averaged: int, n_vectors: int
) -> float:
    """Return the largest difference of the models' scores from the head's, on a minute of words."""
    vectors = (
        speech_embedding()
        .vectors(read_samples(model_path("commands").with_name(_RECORDING)))
        .astype(np.float32)
    )
    weights = np.full(n_averaged, 1 / n_averaged)
    expected = np.convolve(open_model(head).run(vectors)[:, column], weights, mode="valid")
    expected = expected[n_vectors - n_averaged :]
    largest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for out, content in contents.items():
            if out.suffix in {".tflite", ".onnx"}:
                path = Path(folder) / out.name
                path.write_bytes(content)
                scores = open_model(path).run(vectors)[n_vectors - 1 :, 0]
                largest = max(largest, float(np.abs(scores - expected).max()))
    return largest
