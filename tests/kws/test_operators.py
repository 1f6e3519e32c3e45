import random
import zipfile

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from kws.errors import ModelError
from kws.model import bundled_models
from kws.operators import check_operators

OPERATOR = schema.BuiltinOperator
FLATBUFFERS = {path.stem: path for path in bundled_models()["commands"].parent.glob("*.tflite")}


def network(*operators, inits=(), variable=False):
    """Return a network of tensors 0 (its input), 1 (a constant) and those that operators give.

    An operator is its code, its inputs and its outputs.
    """
    codes = sorted({code for code, *_ in (*operators, *inits)})

    def graph(operators, inputs):
        n = max((i for _, *ends in operators for end in ends for i in end), default=0) + 1
        return schema.SubGraphT(
            tensors=[
                schema.TensorT(shape=[1], name=str(i), isVariable=variable and i == 2)
                for i in range(n)
            ],
            inputs=inputs,
            outputs=[n - 1],
            operators=[
                schema.OperatorT(opcodeIndex=codes.index(code), inputs=inputs, outputs=outputs)
                for code, inputs, outputs in operators
            ],
        )

    model = schema.ModelT(
        version=3,
        operatorCodes=[
            schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code)
            for code in codes
        ],
        subgraphs=[graph(operators, [0]), *([graph(inits, [])] if inits else [])],
        buffers=[schema.BufferT()],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def refused(content):
    with pytest.raises(ModelError) as caught:
        check_operators(content, name="x")
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(FLATBUFFERS))
def test_the_bundled_networks_pass(name):
    check_operators(FLATBUFFERS[name].read_bytes(), name="x")


@pytest.mark.parametrize("code", ["WHILE", "IF", "CALL"])
@pytest.mark.parametrize("inner", [False, True])
def test_control_flow_is_refused_in_every_subgraph(code, inner):
    flow = (getattr(OPERATOR, code), [0], [2])
    content = network((OPERATOR.ADD, [0, 1], [2]), inits=[flow]) if inner else network(flow)
    assert refused(content) == (
        f"Each step of a network must have a bounded cost: no control flow, and no tensor whose "
        f"size depends on audio. Received: the operator {code} in x. Export the model without it; "
        f"if the file is not yours, do not use it."
    )


def _branching(*, operator=OPERATOR.FULLY_CONNECTED, shape=(1, 8), n=2, nested=False):
    """Return a network whose IF chooses between two branches of one operator each."""
    codes = [OPERATOR.IF, operator]

    def graph(flow):
        options = schema.IfOptionsT(thenSubgraphIndex=1, elseSubgraphIndex=n)
        call = schema.OperatorT(
            opcodeIndex=0 if flow else 1,
            inputs=[0, 1],
            outputs=[2],
            builtinOptionsType=schema.BuiltinOptions.IfOptions if flow else 0,
            builtinOptions=options if flow else None,
        )
        tensors = [schema.TensorT(shape=list(shape), name=str(i)) for i in range(3)]
        return schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[2], operators=[call])

    model = schema.ModelT(
        version=3,
        operatorCodes=[
            schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code)
            for code in codes
        ],
        subgraphs=[graph(True), graph(nested), graph(False)],
        buffers=[schema.BufferT()],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_a_choice_between_two_cheap_branches_passes():
    check_operators(_branching(), name="x")


@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"operator": OPERATOR.CONV_2D}, "the operator 3 in a branch of IF"),
        ({"operator": OPERATOR.WHILE}, "the operator WHILE"),
        ({"nested": True}, "the operator IF"),
        ({"shape": (1, 4000)}, "a branch of IF with 16,000,000 products"),
        ({"operator": OPERATOR.ADD, "shape": (4_000_000,)}, "a branch of IF with 12,000,000"),
    ],
)
def test_a_branch_that_may_cost_much_is_refused(changes, received):
    assert received in refused(_branching(**changes))


def test_a_branch_that_there_is_not_is_refused():
    assert "an offset leads outside the file" in refused(_branching(n=3))


@pytest.mark.parametrize("code", [-1, 162, 200, 206, 209, 1000])
def test_operators_that_are_unknown_or_run_other_graphs_are_refused(code):
    assert f"Received: the operator {code} in x." in refused(network((code, [0], [2])))


@pytest.mark.parametrize("code", ["DILATE", "REDUCE_WINDOW", "BITCAST"])
def test_the_latest_operators_pass(code):
    check_operators(network((getattr(OPERATOR, code), [0, 1], [2])), name="x")


def test_variables_may_have_initial_values_and_no_more():
    once = (OPERATOR.CALL_ONCE, [], [])
    values = [(OPERATOR.VAR_HANDLE, [], [0]), (OPERATOR.ASSIGN_VARIABLE, [0, 1], [])]
    check_operators(network(once, inits=values), name="x")
    loop = [*values, (OPERATOR.TILE, [0, 1], [2])]
    message = "Received: CALL_ONCE of more than the initial values of variables in x."
    assert message in refused(network(once, inits=loop))
    check_operators(network((OPERATOR.ADD, [0, 1], [2]), inits=loop), name="x")  # never called


@pytest.mark.parametrize(
    ("code", "n_inputs", "position"),
    [
        ("FILL", 2, 0),
        ("RESHAPE", 2, 1),
        ("TILE", 2, 1),
        ("PAD", 2, 1),
        ("RANGE", 3, 1),
        ("BROADCAST_TO", 2, 1),
        ("STRIDED_SLICE", 4, 2),
        ("SLICE", 3, 2),
        ("RESIZE_BILINEAR", 2, 1),
        ("SPARSE_TO_DENSE", 4, 1),
        ("UNSORTED_SEGMENT_SUM", 3, 2),
    ],
)
def test_a_size_must_not_depend_on_the_input(code, n_inputs, position):
    """It may depend on constants, and on the shape of anything."""
    operator = getattr(OPERATOR, code)
    sizes = [1] * n_inputs
    sizes[position] = 2

    def computed_by(first, inputs):
        return network((first, inputs, [2]), (operator, sizes, [3]))

    expected = f"Received: operator {operator} with a size computed from audio in x."
    assert expected in refused(computed_by(OPERATOR.ADD, [0, 1]))
    assert expected in refused(computed_by(OPERATOR.READ_VARIABLE, [1]))
    assert expected in refused(computed_by(OPERATOR.RANDOM_UNIFORM, [1]))
    check_operators(computed_by(OPERATOR.ADD, [1, 1]), name="x")
    check_operators(computed_by(OPERATOR.SHAPE, [0]), name="x")


def test_a_size_must_not_depend_on_a_variable_tensor():
    content = network((OPERATOR.FILL, [2, 1], [3]), variable=True)
    assert "a size computed from audio" in refused(content)


@pytest.mark.parametrize("name", ["WHERE", "UNIQUE"])
def test_an_operator_whose_output_has_as_many_values_as_there_are_hits_is_refused(name):
    assert "a size computed" in refused(network((getattr(OPERATOR, name), [0], [2])))


def test_a_damaged_flatbuffer_is_refused_or_read():
    """No other exception, and no long work: offsets that lead anywhere."""
    with zipfile.ZipFile(FLATBUFFERS["commands"]) as archive:
        good = FLATBUFFERS["commands"].read_bytes()[: archive.infolist()[0].header_offset]
    small, numbers = network((OPERATOR.ADD, [0, 1], [2])), random.Random(1)
    n_refused = 0
    for _ in range(2_000):
        content = bytearray(numbers.choice([small, small, small, good[:20_000]]))
        for _ in range(numbers.randint(1, 4)):
            content[numbers.randrange(len(content))] = numbers.choice([0, 1, 127, 128, 255])
        try:
            check_operators(bytes(content[: numbers.choice([None, -1, 40])]), name="x")
        except ModelError:
            n_refused += 1
    assert 500 < n_refused < 2_000
    assert "in which an offset leads outside the file" in refused(small[:40])


def test_a_network_without_graphs_is_refused():
    builder = flatbuffers.Builder(64)
    builder.Finish(schema.ModelT(version=3).Pack(builder), b"TFL3")
    assert "must be a whole flatbuffer. Received: x, " in refused(bytes(builder.Output()))


# From the operators' definitions: which inputs decide how large an output is.
SIZES = {
    "RESHAPE": [1],
    "RESIZE_BILINEAR": [1],
    "SKIP_GRAM": [0],
    "EMBEDDING_LOOKUP_SPARSE": [0, 1, 2],
    "PAD": [1],
    "BATCH_TO_SPACE_ND": [1, 2],
    "SPACE_TO_BATCH_ND": [1, 2],
    "TRANSPOSE": [1],
    "MEAN": [1],
    "STRIDED_SLICE": [1, 2, 3],
    "TOPK_V2": [1],
    "SPLIT": [0],
    "ARG_MAX": [1],
    "PADV2": [1],
    "SLICE": [1, 2],
    "TRANSPOSE_CONV": [0],
    "SPARSE_TO_DENSE": [0, 1],
    "TILE": [1],
    "EXPAND_DIMS": [1],
    "SUM": [1],
    "ARG_MIN": [1],
    "REDUCE_PROD": [1],
    "REDUCE_MAX": [1],
    "ONE_HOT": [1],
    "REDUCE_MIN": [1],
    "REDUCE_ANY": [1],
    "FILL": [0],
    "RANGE": [0, 1, 2],
    "RESIZE_NEAREST_NEIGHBOR": [1],
    "MIRROR_PAD": [1],
    "SPLIT_V": [1, 2],
    "UNIQUE": [0],
    "WHERE": [0],
    "NON_MAX_SUPPRESSION_V4": [0, 1, 2],
    "NON_MAX_SUPPRESSION_V5": [0, 1, 2],
    "SCATTER_ND": [2],
    "SEGMENT_SUM": [1],
    "BROADCAST_TO": [1],
    "RFFT2D": [1],
    "REDUCE_ALL": [1],
    "CONV_3D_TRANSPOSE": [0],
    "RANDOM_STANDARD_NORMAL": [0],
    "RANDOM_UNIFORM": [0],
    "MULTINOMIAL": [1],
    "UNSORTED_SEGMENT_PROD": [2],
    "UNSORTED_SEGMENT_MAX": [2],
    "UNSORTED_SEGMENT_SUM": [2],
    "UNSORTED_SEGMENT_MIN": [2],
    "DILATE": [1, 2],
    "REDUCE_WINDOW": [2, 3, 4],
}
NEVER = {"CALL", "IF", "WHILE", "DELEGATE", "CALL_ONCE"}


def test_every_operator_of_the_schema_is_known_with_the_inputs_that_decide_sizes():
    codes = {name: code for name, code in vars(OPERATOR).items() if not name.startswith("_")}
    names = [one for one in codes if not one.startswith("STABLEHLO") and one not in NEVER]
    assert set(SIZES) <= set(names)
    assert len(names) > 150
    for name in names:
        refused_at = []
        for position in range(5):
            inputs = [1] * 5
            inputs[position] = 0
            try:
                check_operators(network((codes[name], inputs, [2])), name="x")
            except ModelError:
                refused_at.append(position)
        assert refused_at == SIZES.get(name, []), name


@pytest.mark.parametrize("name", [one for one in vars(OPERATOR) if one.startswith("STABLEHLO")])
def test_operators_of_stablehlo_are_refused(name):
    assert "Received: the operator " in refused(network((getattr(OPERATOR, name), [1], [2])))


def test_absent_lists_are_empty():
    builder = flatbuffers.Builder(64)
    model = schema.ModelT(version=3, subgraphs=[schema.SubGraphT()])
    builder.Finish(model.Pack(builder), b"TFL3")
    check_operators(bytes(builder.Output()), name="x")


def test_what_an_operator_gives_of_constants_alone_is_constant_until_a_variable_is_read():
    """Through several operators, and in the order in which they run."""
    content = network(
        (OPERATOR.READ_VARIABLE, [1], [2]),
        (OPERATOR.ADD, [2, 1], [3]),
        (OPERATOR.MUL, [3, 1], [4]),
        (OPERATOR.FILL, [4, 1], [5]),
    )
    assert "operator 94 with a size computed from audio" in refused(content)
    content = network(
        (OPERATOR.RANK, [0], [2]),
        (OPERATOR.ADD, [2, 1], [3]),
        (OPERATOR.FILL, [3, 0], [4]),
    )
    check_operators(content, name="x")
