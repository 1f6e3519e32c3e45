"""ONNX files: inputs, outputs and operators, read without a library.

Only networks whose steps have a bounded cost are run: a fixed list of operators, without control
flow, functions and weights in other files. The wire format is that of Protocol Buffers, the field
numbers are those of onnx/onnx.proto.
"""

from collections.abc import Iterator
from typing import NamedTuple

from kws.errors import ModelError
from kws.flatbuffer import FLOAT32, Tensor

__all__ = ["OnnxNetwork", "check_onnx_operators", "read_onnx"]

_ONNX_FLOAT = 1
_OTHER_TYPE = -1
_OPERATORS = frozenset(
    {
        "Abs", "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Constant", "Conv",
        "Div", "Dropout", "Elu", "Erf", "Exp", "Flatten", "Gemm", "GlobalAveragePool",
        "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LayerNormalization", "LeakyRelu",
        "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pow",
        "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Selu", "Sigmoid", "Softmax",
        "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators without control flow or state, whose sizes do not depend on values of the input."""


class OnnxNetwork(NamedTuple):
    """What an ONNX file states."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    operators: set[str]
    """With its domain where it is not ONNX's own."""
    others: tuple[str, ...]
    """What beyond operators is not run, such as functions."""


def read_onnx(content: bytes, *, name: str) -> OnnxNetwork:
    """Read inputs, outputs and operators of an ONNX file; a dimension that is not fixed is 1.

    Raises
    ------
    ModelError
        If the file is not ONNX, or damaged.
    """
    try:
        model = _Message(content)
        (graph,) = model.messages(7)
        weights = {one.text(8) for one in graph.messages(5)}
        inputs = [_tensor(one) for one in graph.messages(11) if one.text(1) not in weights]
        outputs = [_tensor(one) for one in graph.messages(12)]
        nodes = graph.messages(1)
        others = tuple(_others(model, graph, nodes))
    except (IndexError, ValueError) as error:
        raise ModelError(
            f"An .onnx model must be a whole ONNX file. Received: {name}, {len(content)} bytes "
            f"that cannot be read as one. Copy or export it again."
        ) from error
    operators = {".".join(filter(None, (one.text(7), one.text(4)))) for one in nodes}
    return OnnxNetwork(inputs, outputs, operators, others)


def check_onnx_operators(content: bytes, *, name: str) -> None:
    """Check that each step of an ONNX network has a bounded cost.

    Raises
    ------
    ModelError
        If it has other operators than a fixed list of plain ones, functions, or weights in other
        files; or if the file is damaged.
    """
    network = read_onnx(content, name=name)
    unknown = [f"the operator {one}" for one in sorted(network.operators - _OPERATORS)]
    if refused := (*unknown, *network.others):
        raise ModelError(
            f"An ONNX network must be made of plain operators, without control flow and other "
            f"files. Received: {', '.join(refused)} in {name}. Use its .tflite, or export it "
            f"without them."
        )


def _tensor(value: "_Message") -> Tensor:
    kind = value.message(2).message(1)
    dimensions = kind.message(2).messages(1)
    shape = tuple(one.integer(1) or 1 for one in dimensions)
    is_float = kind.integer(1) == _ONNX_FLOAT
    return Tensor(value.text(1), FLOAT32 if is_float else _OTHER_TYPE, shape, False)


def _others(model: "_Message", graph: "_Message", nodes: "list[_Message]") -> Iterator[str]:
    if model.messages(25):
        yield "functions"
    tensors = graph.messages(5)
    for node in nodes:
        for attribute in node.messages(5):
            if attribute.messages(6) or attribute.messages(11):
                yield f"a subgraph of {node.text(4)}"
            tensors += attribute.messages(5) + attribute.messages(10)
    if graph.messages(15) or any(one.messages(13) or one.integer(14) for one in tensors):
        yield "weights in other files, or sparse ones"


class _Message:
    """A message of Protocol Buffers; fields by number, absent ones are 0 or empty.

    Raises
    ------
    ValueError, IndexError
        If it is damaged.
    """

    def __init__(self, content: bytes) -> None:
        self._fields: dict[int, list[bytes | int]] = {}
        at = 0
        while at < len(content):
            key, at = _varint(content, at)
            kind = key & 7
            value: bytes | int
            if kind == 0:
                value, at = _varint(content, at)
            elif kind in {1, 5}:
                n = 8 if kind == 1 else 4
                value, at = content[at : at + n], at + n
            elif kind == 2:
                n, at = _varint(content, at)
                value, at = content[at : at + n], at + n
            else:
                raise ValueError
            if at > len(content):
                raise IndexError
            self._fields.setdefault(key >> 3, []).append(value)

    def messages(self, number: int) -> "list[_Message]":
        return [_Message(one) for one in self._bytes(number)]

    def message(self, number: int) -> "_Message":
        return next(iter(self.messages(number)), _Message(b""))

    def text(self, number: int) -> str:
        return b"".join(self._bytes(number)[-1:]).decode(errors="replace")

    def integer(self, number: int) -> int:
        last = self._fields.get(number, [0])[-1]
        if isinstance(last, int):
            return last
        raise ValueError

    def _bytes(self, number: int) -> list[bytes]:
        values = self._fields.get(number, [])
        if not all(isinstance(one, bytes) for one in values):
            raise ValueError
        return [one for one in values if isinstance(one, bytes)]


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
    raise ValueError
