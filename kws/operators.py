"""Operators of an untrusted network, read from its flatbuffer before an interpreter runs it.

A network may take part in a pipeline only if a step has a bounded cost whatever the audio is: no
control flow, and no tensor whose size depends on audio. The one exception is IF with two branches
that are cheap by the sizes of their tensors: verifiers of openWakeWord's models use it.
"""

import math
from collections.abc import Iterable

from kws.errors import ModelError
from kws.flatbuffer import Graph, Operator, read_graphs

__all__ = ["check_operators"]

_IF = 118
_CONTROL_FLOW = {31: "CALL", 119: "WHILE", 51: "DELEGATE"}
_CALL_ONCE = 129
_INITIALISATION = frozenset((136, 138, 142, 144))  # hash tables, VAR_HANDLE, ASSIGN_VARIABLE
_RESHAPE = 22
_FIRST_STABLEHLO, _LAST_KNOWN = 162, 208
_KNOWN_LATER = frozenset((203, 205))  # DILATE, REDUCE_WINDOW

# Operators of a branch: what they cost follows from the sizes of their tensors.
_FULLY_CONNECTED = 9
_PLAIN = frozenset(
    {
        0,  # ADD
        _FULLY_CONNECTED,
        14,  # LOGISTIC
        18,  # MUL
        19,  # RELU
        _RESHAPE,
        25,  # SOFTMAX
        40,  # MEAN
        41,  # SUB
        42,  # DIV
        75,  # SQRT
        76,  # RSQRT
        78,  # POW
    }
)
_MOST_PRODUCTS = 10_000_000  # of a branch

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
        If the network has control flow other than IF between two cheap branches, operators that are
        unknown or run other graphs, or a tensor whose size depends on its inputs; or if the
        flatbuffer is damaged.
    """
    graphs = read_graphs(content, name=name)
    for graph in graphs:
        for operator in graph.operators:
            if problem := _problem(operator.code):
                raise _refused(name, problem)
            if operator.code == _IF and (graph is not graphs[0] or not operator.branches):
                raise _refused(name, "the operator IF")
    if any(operator.code == _CALL_ONCE for operator in graphs[0].operators):
        others = {operator.code for graph in graphs[1:] for operator in graph.operators}
        if others - _INITIALISATION:
            raise _refused(name, "CALL_ONCE of more than the initial values of variables")
    _check_sizes(graphs[0], name)
    for operator in graphs[0].operators:
        for branch in operator.branches:
            _check_branch(graphs[branch], name)


def _check_branch(graph: Graph, name: str) -> None:
    """Refuse a branch that may cost much: audio decides when it is run, not the first seconds."""
    _check_sizes(graph, name)
    for operator in graph.operators:
        if operator.code not in _PLAIN:
            raise _refused(name, f"the operator {operator.code} in a branch of IF")
    if (products := sum(_products(one, graph) for one in graph.operators)) > _MOST_PRODUCTS:
        raise _refused(name, f"a branch of IF with {products:,} products")


def _products(operator: Operator, graph: Graph) -> int:
    """Return the multiplications of an operator, or the values that it reads and writes."""
    sizes = [
        math.prod(graph.tensors[i].shape) for i in (*operator.inputs, *operator.outputs) if i >= 0
    ]
    if operator.code == _FULLY_CONNECTED:
        n_inputs = graph.tensors[operator.inputs[1]].shape[-1:]
        return math.prod((sizes[-1], *n_inputs))
    return sum(sizes)


def _problem(code: int) -> str | None:
    if code in _CONTROL_FLOW:
        return f"the operator {_CONTROL_FLOW[code]}"
    is_stablehlo = _FIRST_STABLEHLO <= code <= _LAST_KNOWN and code not in _KNOWN_LATER
    if is_stablehlo or not 0 <= code <= _LAST_KNOWN:
        return f"the operator {code}"
    return None


def _check_sizes(graph: Graph, name: str) -> None:
    """Follow from operator to operator what depends on the inputs; sizes must not."""
    varying = {*graph.inputs, *(i for i, one in enumerate(graph.tensors) if one.is_variable)}
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
