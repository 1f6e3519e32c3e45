"""Size reduction of a TensorFlow Lite flatbuffer without a change of its outputs.

A quantised tensor carries a scale and a zero point per channel. Zero points of weights are all
zero, and many other vectors are equal; stored once, they make the file of a small model a seventh
smaller.
Names of inner tensors and the converter's metadata are removed.
"""

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

__all__ = ["compact"]


def compact(flatbuffer: bytes, *, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> bytes:
    """Return the model without names of inner tensors and with equal vectors stored once.

    Parameters
    ----------
    flatbuffer : bytes
    inputs, outputs : sequence of str
        New names of the input and output tensors, in order; by default they keep theirs. The
        manifest refers to tensors by name.
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
    """A builder that writes a vector equal to an earlier one as a reference to it."""

    def __init__(self, n_bytes: int) -> None:
        super().__init__(n_bytes)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, vector: np.ndarray) -> Any:  # noqa: N802
        """Write a vector, or return the offset of an equal one."""
        key = vector.dtype.str, vector.tobytes()
        if key not in self._written:
            self._written[key] = super().CreateNumpyVector(vector)
        return self._written[key]
