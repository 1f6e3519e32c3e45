"""The same TensorFlow Lite flatbuffer in fewer bytes.

A quantised tensor carries a scale and a zero point for every channel. Those of weights are all zero
and many more are equal: written once and pointed to, they need a seventh less of a small model's
file. What the converter notes down for itself, tensors' names and metadata, goes as well.
"""

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

__all__ = ["compact"]


def compact(flatbuffer: bytes, *, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> bytes:
    """Return the model without names of inner tensors and with equal vectors stored once.

    Names of inputs and outputs stay, or become those given, in order: the manifest calls tensors by
    them.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(flatbuffer), 0))
    for graph in model.subgraphs:
        for tensors, names in ((graph.inputs, inputs), (graph.outputs, outputs)):
            for i, name in zip(tensors, names, strict=bool(names)):
                graph.tensors[i].name = name
        named = {*graph.inputs, *graph.outputs}
        for i, tensor in enumerate(graph.tensors):
            tensor.name = tensor.name if i in named else b""
    model.metadata = None
    builder = _SharingBuilder(len(flatbuffer))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _SharingBuilder(flatbuffers.Builder):
    """Writes a vector that is like an earlier one as a reference to that."""

    def __init__(self, n_bytes: int) -> None:
        super().__init__(n_bytes)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, vector: np.ndarray) -> Any:  # noqa: N802
        """Write a vector, or return where it is."""
        key = vector.dtype.str, vector.tobytes()
        if key not in self._written:
            self._written[key] = super().CreateNumpyVector(vector)
        return self._written[key]
