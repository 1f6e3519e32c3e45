"""Heads of openWakeWord: a window of vectors of Google's speech embedding in, scores out.

The bundled speech embedding is that network, with each value standardised over speech; the manifest
undoes this. A head has no metadata: its name is that of its file.
"""

import functools
import re
from importlib.resources import files
from pathlib import Path

from kws.errors import ModelError
from kws.flatbuffer import FLOAT32, Tensor, read_graphs
from kws.manifest import (
    UNKNOWN,
    Affine,
    DecisionDefaults,
    EmbeddingReference,
    Manifest,
    read_manifest,
)
from kws.onnx_file import read_onnx

__all__ = ["openwakeword_manifest"]

_EMBEDDING = "speech_embedding"
_VALUES = 96
_RANK = 3
_MOST_VECTORS, _MOST_SCORES = 512, 64
_VERSION_SUFFIX = re.compile(r"[_-]v[0-9][0-9.]*\Z")
_DECISION = DecisionDefaults(threshold=0.5, smoothing_ms=0, refractory_ms=2000, word_ms=800)
"""The defaults of openWakeWord and of wyoming-openwakeword."""


def openwakeword_manifest(path: Path, content: bytes) -> Manifest | None:
    """Return the manifest of a head of openWakeWord; None if the file is something else.

    Parameters
    ----------
    path : Path
        The file's name is the keyword, without a suffix such as `_v0.1`.
    content : bytes
        A .tflite or .onnx.

    Raises
    ------
    ModelError
        If the file is an ONNX model, or a TFLite model with one floating-point input of three
        dimensions or more, of other shapes than a head's.
    """
    is_onnx = path.suffix == ".onnx"
    if is_onnx:
        network = read_onnx(content, name=str(path))
        inputs, outputs = network.inputs, network.outputs
    else:
        inputs, outputs = _ends(content, path)
        if [one.type for one in inputs] != [FLOAT32] or len(inputs[0].shape) < _RANK:
            return None
    if not _is_head(inputs, outputs):
        raise _other_shapes(path, inputs, outputs)
    keyword = _VERSION_SUFFIX.sub("", path.stem)
    n_scores = outputs[0].shape[1]
    labels = (keyword,) if n_scores == 1 else _labels(keyword, n_scores)
    embedding, takes = _embedding()
    n_vectors = inputs[0].shape[1]
    return Manifest(
        name=re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)[:64],
        description="openWakeWord model on the bundled speech embedding",
        labels=labels,
        kind="window",
        features=embedding.features,
        n_frames=n_vectors,
        hop_frames=1,
        quantization="float32",
        decision=_DECISION,
        takes=takes,
        input_affine=_published_scale(),
        context_frames=embedding.context_frames + (n_vectors - 1) * takes.hop_frames,
    )


def _ends(content: bytes, path: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Return inputs and outputs of a TFLite network; none of a file that cannot be read."""
    try:
        graph = read_graphs(content, name=str(path))[0]
    except ModelError:
        return [], []
    inputs, outputs = ([graph.tensors[i] for i in ends] for ends in (graph.inputs, graph.outputs))
    return inputs, outputs


def _is_head(inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != FLOAT32:
        return False
    taken, given = inputs[0].shape, outputs[0].shape
    if len(taken) != _RANK or len(given) != 2 or (taken[0], taken[2], given[0]) != (1, _VALUES, 1):
        return False
    return 1 <= taken[1] <= _MOST_VECTORS and 1 <= given[1] <= _MOST_SCORES


def _other_shapes(path: Path, inputs: list[Tensor], outputs: list[Tensor]) -> ModelError:
    taken, given = (", ".join(str(list(one.shape)) for one in ends) for ends in (inputs, outputs))
    return ModelError(
        f"A model without a manifest must have the shapes of openWakeWord's: one floating-point "
        f"input [1, n, {_VALUES}] and one output [1, k]. Received: {path}, which takes {taken} and "
        f"gives {given}. Name the file of a wake word, not of an embedding or spectrogram; for "
        f"another network write {path.with_suffix('.kws.json').name} (docs/architecture.md)."
    )


def _labels(keyword: str, n_scores: int) -> tuple[str, ...]:
    """Return labels of a head with several scores, of which the first is that of no word."""
    return (UNKNOWN, *(f"{keyword}_{i}" for i in range(1, n_scores)))


@functools.cache
def _embedding() -> tuple[Manifest, EmbeddingReference]:
    """Return the manifest of the bundled speech embedding, and a reference to it."""
    import hashlib  # 4 MB, for heads alone

    path = Path(str(files("kws.models"))) / f"{_EMBEDDING}.tflite"
    manifest, content = read_manifest(path)
    reference = EmbeddingReference(
        name=_EMBEDDING,
        sha256=hashlib.sha256(content).hexdigest(),
        size=_VALUES,
        hop_frames=manifest.hop_frames,
    )
    return manifest, reference


@functools.cache
def _published_scale() -> Affine:
    """Return what turns the bundled embedding's values into those of the published network."""
    import numpy as np

    path = Path(str(files("kws.models"))) / f"{_EMBEDDING}_scale.npz"
    with np.load(path, allow_pickle=False) as stored:
        return Affine(scale=tuple(stored["std"].tolist()), offset=tuple(stored["mean"].tolist()))
