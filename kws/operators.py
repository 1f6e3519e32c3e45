"""Operators of an untrusted network, read from its flatbuffer before an interpreter runs it.

A network may take part in a pipeline only if a step has a bounded cost whatever the audio is: no
control flow, and no tensor whose size depends on audio. Interpreters do not report either before
the first step, and never report the subgraphs, so the file itself is read, following
tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

from kws.errors import ModelError

__all__ = ["check_operators"]

_CONTROL_FLOW = {31: "CALL", 118: "IF", 119: "WHILE", 51: "DELEGATE"}
_CALL_ONCE = 129
_INITIALISATION = frozenset((136, 138, 142, 144))  # hash tables, VAR_HANDLE, ASSIGN_VARIABLE
_RESHAPE = 22
_FIRST_STABLEHLO, _LAST_KNOWN = 162, 208
_KNOWN_LATER = frozenset((203, 205))  # DILATE, REDUCE_WINDOW

# Inputs of operators that decide the size of an output: position by operator code.
_SIZES: dict[int, tuple[int, ...]] = {
    _RESHAPE: (1,),
    23: (1,),  # RESIZE_BILINEAR
    30: (0,),  # SKIP_GRAM
    33: (0, 1, 2),  # EMBEDDING_LOOKUP_SPARSE
    34: (1,),  # PAD
    37: (1, 2),  # BATCH_TO_SPACE_ND
    38: (1, 2),  # SPACE_TO_BATCH_ND
    39: (1,),  # TRANSPOSE
    40: (1,),  # MEAN
    45: (1, 2, 3),  # STRIDED_SLICE
    48: (1,),  # TOPK_V2
    49: (0,),  # SPLIT
    56: (1,),  # ARG_MAX
    60: (1,),  # PADV2
    65: (1, 2),  # SLICE
    67: (0,),  # TRANSPOSE_CONV
    68: (0, 1),  # SPARSE_TO_DENSE
    69: (1,),  # TILE
    70: (1,),  # EXPAND_DIMS
    74: (1,),  # SUM
    79: (1,),  # ARG_MIN
    81: (1,),  # REDUCE_PROD
    82: (1,),  # REDUCE_MAX
    85: (1,),  # ONE_HOT
    89: (1,),  # REDUCE_MIN
    91: (1,),  # REDUCE_ANY
    94: (0,),  # FILL
    96: (0, 1, 2),  # RANGE
    97: (1,),  # RESIZE_NEAREST_NEIGHBOR
    100: (1,),  # MIRROR_PAD
    102: (1, 2),  # SPLIT_V
    103: (0,),  # UNIQUE
    109: (0,),  # WHERE
    120: (0, 1, 2),  # NON_MAX_SUPPRESSION_V4
    121: (0, 1, 2),  # NON_MAX_SUPPRESSION_V5
    122: (2,),  # SCATTER_ND
    125: (1,),  # SEGMENT_SUM
    130: (1,),  # BROADCAST_TO
    131: (1,),  # RFFT2D
    140: (1,),  # REDUCE_ALL
    141: (0,),  # CONV_3D_TRANSPOSE
    146: (0,),  # RANDOM_STANDARD_NORMAL
    148: (0,),  # RANDOM_UNIFORM
    149: (1,),  # MULTINOMIAL
    153: (2,),  # UNSORTED_SEGMENT_PROD
    154: (2,),  # UNSORTED_SEGMENT_MAX
    155: (2,),  # UNSORTED_SEGMENT_SUM
    157: (2,),  # UNSORTED_SEGMENT_MIN
    203: (1, 2),  # DILATE
    205: (2, 3, 4),  # REDUCE_WINDOW
}
# Their outputs differ from call to call, or depend on what was heard before.
_VARYING = frozenset((142, 143, 146, 148, 149))
_SHAPE, _RANK = 77, 110


def check_operators(content: bytes, *, name: str) -> None:
    """Check that each step of a network has a bounded cost.

    Parameters
    ----------
    content : bytes
        The flatbuffer.
    name : str
        For messages.

    Raises
    ------
    ModelError
        If the network has control flow, operators that are unknown or run other graphs, or a tensor
        whose size depends on its inputs; or if the flatbuffer is damaged.
    """
    try:
        graphs = _graphs(content)
    except (struct.error, IndexError, ValueError) as error:
        raise ModelError(
            f"The model must be a whole flatbuffer. Received: {name}, in which an offset leads "
            f"outside the file. Copy or export it again."
        ) from error
    for graph in graphs:
        for operator in graph.operators:
            if problem := _problem(operator.code):
                raise _refused(name, problem)
    if any(operator.code == _CALL_ONCE for operator in graphs[0].operators):
        others = {operator.code for graph in graphs[1:] for operator in graph.operators}
        if others - _INITIALISATION:
            raise _refused(name, "CALL_ONCE of more than the initial values of variables")
    _check_sizes(graphs[0], name)


class _Operator(NamedTuple):
    code: int
    inputs: list[int]
    outputs: list[int]


class _Graph(NamedTuple):
    inputs: list[int]
    variables: list[int]
    operators: list[_Operator]


def _problem(code: int) -> str | None:
    if code in _CONTROL_FLOW:
        return f"the operator {_CONTROL_FLOW[code]}"
    is_stablehlo = _FIRST_STABLEHLO <= code <= _LAST_KNOWN and code not in _KNOWN_LATER
    if is_stablehlo or not 0 <= code <= _LAST_KNOWN:
        return f"the operator {code}"
    return None


def _check_sizes(graph: _Graph, name: str) -> None:
    """Follow from operator to operator what depends on the inputs; sizes must not."""
    varying = {*graph.inputs, *graph.variables}
    for operator in graph.operators:
        positions = _SIZES.get(operator.code, ())
        if any(one in varying for one in _at(operator.inputs, positions)):
            raise _refused(name, f"operator {operator.code} with a size computed from audio")
        is_varying = operator.code in _VARYING or not varying.isdisjoint(operator.inputs)
        if is_varying and operator.code not in {_SHAPE, _RANK}:
            varying.update(operator.outputs)


def _at(inputs: list[int], positions: Iterable[int]) -> list[int]:
    return [inputs[i] for i in positions if i < len(inputs)]


def _refused(name: str, received: str) -> ModelError:
    return ModelError(
        f"Each step of a network must have a bounded cost: no control flow, and no tensor whose "
        f"size depends on audio. Received: {received} in {name}. Export the model without it; if "
        f"the file is not yours, do not use it."
    )


def _graphs(content: bytes) -> list[_Graph]:
    """Read the subgraphs of a flatbuffer; the first one is the network."""
    model = _Table(content, _unsigned(content, 0))
    codes = [max(code.int8(0), code.int32(3)) for code in model.tables(1)]
    graphs = [_graph(one, codes) for one in model.tables(2)]
    if not graphs:
        raise ValueError
    return graphs


def _graph(table: "_Table", codes: list[int]) -> _Graph:
    operators = [
        _Operator(codes[one.uint32(0)], one.integers(1), one.integers(2)) for one in table.tables(3)
    ]
    variables = [i for i, one in enumerate(table.tables(0)) if one.int8(5)]
    return _Graph(table.integers(1), variables, operators)


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
