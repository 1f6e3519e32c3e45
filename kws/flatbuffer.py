"""The graphs of a TFLite file, read without an interpreter.

Interpreters report neither subgraphs nor what runs before the first step. Field numbers are those
of tensorflow/compiler/mlir/lite/schema/schema.fbs. Offsets in an untrusted file may lead anywhere.
"""

import struct
from typing import NamedTuple

from kws.errors import ModelError

__all__ = ["FLOAT32", "INT8", "UINT8", "Graph", "Operator", "Tensor", "read_graphs"]

FLOAT32, UINT8, INT8 = 0, 3, 9
"""Types of tensors."""

_IF = 118


class Tensor(NamedTuple):
    """A tensor as the file states it."""

    name: str
    type: int
    shape: tuple[int, ...]
    is_variable: bool


class Operator(NamedTuple):
    """An operator; tensors by their index in the graph."""

    code: int
    inputs: list[int]
    outputs: list[int]
    branches: tuple[int, ...]
    """Of IF: the indices of its two subgraphs."""


class Graph(NamedTuple):
    """A subgraph."""

    inputs: list[int]
    outputs: list[int]
    tensors: list[Tensor]
    operators: list[Operator]


def read_graphs(content: bytes, *, name: str) -> list[Graph]:
    """Read the subgraphs of a TFLite file; the first one is the network.

    Parameters
    ----------
    content : bytes
        The flatbuffer.
    name : str
        For messages.

    Raises
    ------
    ModelError
        If the flatbuffer is damaged.
    """
    try:
        model = _Table(content, _unsigned(content, 0))
        codes = [max(code.int8(0), code.int32(3)) for code in model.tables(1)]
        graphs = [_graph(one, codes) for one in model.tables(2)]
        _check_indices(graphs)
    except (struct.error, IndexError, ValueError) as error:
        raise ModelError(
            f"The model must be a whole flatbuffer. Received: {name}, in which an offset leads "
            f"outside the file. Copy or export it again."
        ) from error
    return graphs


def _graph(table: "_Table", codes: list[int]) -> Graph:
    tensors = [
        Tensor(one.text(3), one.int8(1), tuple(one.integers(0)), bool(one.int8(5)))
        for one in table.tables(0)
    ]
    operators = [_operator(one, codes) for one in table.tables(3)]
    return Graph(table.integers(1), table.integers(2), tensors, operators)


def _operator(table: "_Table", codes: list[int]) -> Operator:
    code = codes[table.uint32(0)]
    branches: tuple[int, ...] = ()
    if code == _IF and (options := table.table(4)):
        branches = (options.int32(0), options.int32(1))
    return Operator(code, table.integers(1), table.integers(2), branches)


def _check_indices(graphs: list[Graph]) -> None:
    """Refuse a file without a graph, and indices of tensors and subgraphs that there are not."""
    if not graphs:
        raise ValueError
    for graph in graphs:
        ends = [i for one in graph.operators for i in (*one.inputs, *one.outputs)]
        if not all(-1 <= i < len(graph.tensors) for i in (*graph.inputs, *graph.outputs, *ends)):
            raise IndexError
        if not all(0 <= i < len(graphs) for one in graph.operators for i in one.branches):
            raise IndexError


class _Table:
    """A table of a flatbuffer; fields by number, absent ones are 0 or empty."""

    def __init__(self, content: bytes, at: int) -> None:
        self._content, self._at = content, at
        self._fields_at = at - struct.unpack_from("<i", content, at)[0]
        if self._fields_at < 0:
            raise ValueError
        self._n_bytes = struct.unpack_from("<H", content, self._fields_at)[0]

    def int8(self, number: int) -> int:
        return self._number(number, "<b")

    def int32(self, number: int) -> int:
        return self._number(number, "<i")

    def uint32(self, number: int) -> int:
        return self._number(number, "<I")

    def text(self, number: int) -> str:
        start, n = self._vector(number)
        return self._content[start : start + n].decode(errors="replace")

    def table(self, number: int) -> "_Table | None":
        at = self._field(number)
        return _Table(self._content, at + _unsigned(self._content, at)) if at else None

    def integers(self, number: int) -> list[int]:
        start, n = self._vector(number)
        return list(struct.unpack_from(f"<{n}i", self._content, start))

    def tables(self, number: int) -> "list[_Table]":
        start, n = self._vector(number)
        offsets = struct.unpack_from(f"<{n}I", self._content, start)
        return [_Table(self._content, start + 4 * i + one) for i, one in enumerate(offsets)]

    def _number(self, number: int, kind: str) -> int:
        at = self._field(number)
        return int(struct.unpack_from(kind, self._content, at)[0]) if at else 0

    def _vector(self, number: int) -> tuple[int, int]:
        """Return where the vector's items begin, and their number."""
        if not (at := self._field(number)):
            return 0, 0
        start = at + _unsigned(self._content, at)
        n = _unsigned(self._content, start)
        if n > len(self._content):
            raise ValueError
        return start + 4, n

    def _field(self, number: int) -> int:
        """Return where a field is; 0 if it is absent."""
        entry = 4 + 2 * number
        if entry + 2 > self._n_bytes:
            return 0
        offset = int(struct.unpack_from("<H", self._content, self._fields_at + entry)[0])
        return self._at + offset if offset else 0


def _unsigned(content: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", content, at)[0])
