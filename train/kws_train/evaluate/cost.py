"""Computational cost of a model file: weights, and multiply-accumulates per second of audio."""

import math
from typing import Any, NamedTuple

from ai_edge_litert import schema_py_generated as schema

from kws.manifest import Manifest

__all__ = ["Operations", "count_operations"]

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL")


class Operations(NamedTuple):
    """Operators, weights and multiply-accumulates of a model."""

    n_operators: int
    n_weights: int
    """Constants of convolutions and dense layers, biases included."""
    macs_per_call: int
    macs_per_s: float


def count_operations(content: bytes, manifest: Manifest) -> Operations:
    """Count operations by the tensor shapes in a model file.

    Convolutions, dense layers and matrix products are counted, as is usual; element-wise operators
    are not.

    Parameters
    ----------
    content : bytes
        The file, or its flatbuffer.
    manifest : Manifest
    """
    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    graph = model.subgraphs[0]
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    n_macs, weights = 0, {}
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if name not in _WEIGHTED:
            continue
        tensors = [graph.tensors[i] for i in operator.inputs if i >= 0]
        output = math.prod(_shape(graph.tensors[operator.outputs[0]]))
        n_macs += output * _sum_length(name, tensors)
        for tensor in tensors:
            if model.buffers[tensor.buffer].data is not None:
                weights[tensor.buffer] = math.prod(_shape(tensor))  # names may be stripped
    calls_per_s = manifest.features.sample_rate_hz / manifest.call_samples
    return Operations(
        n_operators=len(graph.operators),
        n_weights=sum(weights.values()),
        macs_per_call=n_macs,
        macs_per_s=n_macs * calls_per_s,
    )


def _sum_length(name: str, tensors: list[Any]) -> int:
    """Return the number of products that one output of an operator sums up."""
    shape = _shape(tensors[1])
    if name == "CONV_2D":  # [out, height, width, in]
        return math.prod(shape[1:])
    if name == "DEPTHWISE_CONV_2D":  # [1, height, width, channels]
        return shape[1] * shape[2]
    if name == "FULLY_CONNECTED":  # [out, in]
        return shape[-1]
    return _shape(tensors[0])[-1]


def _shape(tensor: Any) -> list[int]:
    return [int(size) for size in tensor.shape]
