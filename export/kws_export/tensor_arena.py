"""Memory that TensorFlow Lite Micro needs for a network, estimated from its file.

The arena holds what lasts (a structure for each tensor and operator, scales of each channel,
variables) and what is reused within a call (activations, scratch memory of kernels). Structures are
counted as they are on a 64-bit machine, where `benchmarks/tflite_micro.py` compares the estimate
with TensorFlow Lite Micro itself; a microcontroller's pointers have half the size. Scratch memory
is that of Espressif's kernels (ESP-NN), which TensorFlow Lite Micro's own do not need.
"""

import math

from kws.flatbuffer import Graph, Operator, Tensor, read_graphs

__all__ = ["tensor_arena_bytes"]

_TENSOR_BYTES, _OPERATOR_BYTES, _KERNEL_BYTES = 24, 64, 64
_CHANNEL_BYTES = 8  # multiplier and shift
_FIXED_BYTES = 1500  # interpreter, allocator, input and output
_MARGIN = 1.1
_STEP = 1024
_ALIGNMENT = 16
_CONV_2D, _DEPTHWISE_CONV_2D, _READ_VARIABLE = 3, 4, 143
_SIZES = {2: 4, 3: 1, 4: 8, 9: 1, 7: 2}  # bytes of int32, uint8, int64, int8, int16
_REAL_BYTES = 4


def tensor_arena_bytes(content: bytes) -> int:
    """Return what to reserve for a network: the estimate and a tenth, in whole kilobytes.

    Parameters
    ----------
    content : bytes
        A .tflite.

    Raises
    ------
    ModelError
        If the flatbuffer is damaged.
    """
    graphs = read_graphs(content, name="the network")
    lasting = sum(map(_lasting_bytes, graphs))
    reused = max(map(_reused_bytes, graphs))
    return math.ceil(_MARGIN * (_FIXED_BYTES + lasting + reused) / _STEP) * _STEP


def _lasting_bytes(graph: Graph) -> int:
    """Return the size of structures, scales of channels, and variables."""
    operators = graph.operators
    n_channels = sum(
        graph.tensors[one.outputs[0]].shape[-1]
        for one in operators
        if one.code in {_CONV_2D, _DEPTHWISE_CONV_2D}
    )
    variables = sum(
        _bytes(graph.tensors[one.outputs[0]]) for one in operators if one.code == _READ_VARIABLE
    )
    structures = len(graph.tensors) * _TENSOR_BYTES
    structures += len(operators) * (_OPERATOR_BYTES + _KERNEL_BYTES)
    return structures + n_channels * _CHANNEL_BYTES + variables


def _reused_bytes(graph: Graph) -> int:
    """Return the greatest size of activations and scratch memory that are needed at once."""
    operators = graph.operators
    first = dict.fromkeys(graph.inputs, 0)
    last = dict.fromkeys(graph.outputs, len(operators))
    for at, operator in enumerate(operators):
        for i in operator.outputs:
            first.setdefault(i, at)
        for i in (*operator.inputs, *operator.outputs):
            last[i] = max(last.get(i, at), at)
    needed = [*(_scratch_bytes(graph, one) for one in operators), 0]
    for i, begun in first.items():
        for at in range(begun, last[i] + 1):
            needed[at] += _bytes(graph.tensors[i])
    return max(needed)


def _scratch_bytes(graph: Graph, operator: Operator) -> int:
    """Return a bound on what ESP-NN asks for: copies of weights and input, padded."""
    if operator.code not in {_CONV_2D, _DEPTHWISE_CONV_2D}:
        return 0
    taken, weights = (graph.tensors[i] for i in operator.inputs[:2])
    n_taken = math.prod(taken.shape)
    if operator.code == _DEPTHWISE_CONV_2D:
        if weights.shape[1:3] != (3, 3):
            return _ALIGNMENT * 2
        padded = n_taken * (taken.shape[2] + 2) // taken.shape[2]
        return 2 * (math.prod(weights.shape) + padded) + _ALIGNMENT
    n_out, *_, n_in = weights.shape
    rounded = -(-n_in // _ALIGNMENT) * _ALIGNMENT
    copied = math.prod(weights.shape) // n_in * rounded
    return copied + n_taken + _ALIGNMENT * n_in + 4 * n_out + 64


def _bytes(tensor: Tensor) -> int:
    n_bytes = math.prod(tensor.shape) * _SIZES.get(tensor.type, _REAL_BYTES)
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
