"""Models of microWakeWord: frames of the micro frontend in, a probability out, memory inside.

NAME.tflite has a JSON of version 2 beside it, as ESPHome takes it; either file may be named.
"""

import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from kws.errors import ModelError
from kws.flatbuffer import INT8, UINT8, Graph, read_graphs
from kws.manifest import DecisionDefaults, Manifest
from kws.micro_features import MICRO_FEATURES

__all__ = ["microwakeword_manifest", "microwakeword_model"]

_VERSION = 2
_FRAME_MS = 10
_VALUES = MICRO_FEATURES.n_values
_MOST_FRAMES = 64
_MAX_JSON_BYTES = 1 << 20
_READ_VARIABLE = 143
_ABOVE = 4e-7
"""A detection needs a mean above the cut-off, where the threshold of kws has to be reached."""
_REFRACTORY_MS, _WORD_MS = 1000, 800


class _Micro(msgspec.Struct, frozen=True, kw_only=True):
    probability_cutoff: Annotated[float, Meta(ge=0, le=1)]
    sliding_window_size: Annotated[int, Meta(ge=1, le=200)]
    feature_step_size: Annotated[int, Meta(ge=_FRAME_MS, le=_FRAME_MS)] = _FRAME_MS


class _Description(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON; keys beyond these are ESPHome's or a person's concern."""

    wake_word: Annotated[str, Meta(min_length=1, max_length=200)]
    model: str = ""
    author: str = ""
    micro: _Micro


def microwakeword_model(path: Path) -> Path:
    """Return the model that a JSON of microWakeWord names, beside it; another path as it is.

    Raises
    ------
    ModelError
        If the JSON names no file of its folder.
    """
    if path.suffix != ".json":
        return path
    text = _text(path)
    if text is None:
        return path
    name = _decoded(text, path).model
    model = path.with_name(name) if name and Path(name).name == name else None
    if model is None or not model.is_file():
        raise ModelError(
            f"The JSON of a microWakeWord model must name a file beside it in `model`. Received: "
            f"`{name}` in {path}. Put the .tflite into that folder."
        )
    return model


def microwakeword_manifest(path: Path, content: bytes) -> Manifest | None:
    """Return the manifest of a model of microWakeWord; None if the file is something else.

    Parameters
    ----------
    path : Path
        The .tflite; its JSON lies beside it under the same name.
    content : bytes

    Raises
    ------
    ModelError
        If the network is microWakeWord's but its JSON is missing or of another version, or if the
        JSON is microWakeWord's and the network has other shapes.
    """
    description = path.with_suffix(".json")
    text = _text(description)
    try:
        graph = read_graphs(content, name=str(path))[0]
    except ModelError:
        return None
    if text is None:
        if _has_shapes(graph):
            raise ModelError(
                f"A microWakeWord model must have its JSON of version {_VERSION} beside it. "
                f"Received: {path} without {description.name}. Copy that too."
            )
        return None
    stated = _decoded(text, description)
    if not _has_shapes(graph):
        raise _other_shapes(path, graph)
    n_frames = graph.tensors[graph.inputs[0]].shape[1]
    step_ms = n_frames * _FRAME_MS
    window_ms = stated.micro.sliding_window_size * step_ms
    return Manifest(
        name=re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)[:64],
        description=" by ".join(filter(None, ("microWakeWord model", stated.author))),
        labels=("_".join(stated.wake_word.lower().split()),),
        kind="step",
        features=MICRO_FEATURES,
        n_frames=n_frames,
        hop_frames=n_frames,
        kernels="reference",
        decision=DecisionDefaults(
            threshold=min(1.0, stated.micro.probability_cutoff + _ABOVE),
            smoothing_ms=window_ms,
            refractory_ms=_REFRACTORY_MS,
            word_ms=_WORD_MS,
            delay_ms=window_ms - step_ms,  # a mean rises so much later than the last output
        ),
        context_frames=n_frames * (1 + _n_remembered(graph)),
    )


def _text(path: Path) -> bytes | None:
    """Return a JSON that is microWakeWord's; None for any other, which is left alone."""
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_JSON_BYTES)
        keys = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return text if keys.get("type") == msgspec.Raw(b'"micro"') or "micro" in keys else None


def _decoded(text: bytes, path: Path) -> _Description:
    """Check the version, then the keys that are needed."""
    version = msgspec.json.decode(text).get("version", "none")
    if version != _VERSION:
        raise ModelError(
            f"The JSON of a microWakeWord model must have version {_VERSION}. Received: {version} "
            f"in {path}. {_REMEDIES.get(str(version), 'Take the JSON that belongs to the model.')}"
        )
    try:
        return msgspec.json.decode(text, type=_Description)
    except msgspec.ValidationError as error:
        raise ModelError(
            f"The JSON of a microWakeWord model must keep the rules of version {_VERSION}. "
            f"Received: {error} in {path}. Take the JSON that belongs to the model."
        ) from error


_REMEDIES = {
    "1": "Models of version 1 take other features: use the model's version 2, or train anew.",
    "3": "This version of kws does not know it: update kws, or use the model's version 2.",
}


def _has_shapes(graph: Graph) -> bool:
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return False
    taken, given = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    if taken.type not in {INT8, UINT8} or given.type not in {INT8, UINT8}:
        return False
    is_frames = len(taken.shape) == 3 and (taken.shape[0], taken.shape[2]) == (1, _VALUES)
    return is_frames and 1 <= taken.shape[1] <= _MOST_FRAMES and given.shape == (1, 1)


def _other_shapes(path: Path, graph: Graph) -> ModelError:
    taken, given = (
        ", ".join(str(list(graph.tensors[i].shape)) for i in ends)
        for ends in (graph.inputs, graph.outputs)
    )
    return ModelError(
        f"A microWakeWord model must have one 8-bit input [1, n, {_VALUES}] and one output [1, 1]. "
        f"Received: {path}, which takes {taken} and gives {given}. Take the .tflite that belongs "
        f"to its JSON."
    )


def _n_remembered(graph: Graph) -> int:
    """Return how many steps back all variables together reach: their sizes in time."""
    shapes = [
        graph.tensors[one.outputs[0]].shape for one in graph.operators if one.code == _READ_VARIABLE
    ]
    return sum(shape[1] for shape in shapes if len(shape) > 1)
