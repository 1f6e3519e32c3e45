import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from kws.errors import ModelError
from kws.flatbuffer import FLOAT32, Tensor
from kws.onnx_file import check_onnx_operators, read_onnx


def network(operator="Relu", *, weights=None, domain="", **attributes):
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], domain=domain, **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16, 96])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [] if weights is None else [weights],
    )
    return helper.make_model(graph)


def external():
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def test_inputs_and_outputs_are_read():
    found = read_onnx(network().SerializeToString(), name="x")
    assert found.inputs == [Tensor("x", FLOAT32, (1, 16, 96), False)]
    assert found.outputs == [Tensor("y", FLOAT32, (1, 1), False)]
    assert found.operators == {"Relu"}


def test_weights_that_are_listed_as_inputs_are_none():
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])
    model = network(weights=weights)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))
    assert [one.name for one in read_onnx(model.SerializeToString(), name="x").inputs] == ["x"]


def test_a_plain_network_passes():
    check_onnx_operators(network().SerializeToString(), name="x")


BRANCH = helper.make_graph([], "b", [], [])
FUNCTION = helper.make_function("d", "f", ["x"], ["y"], [], [helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("model", "received"),
    [
        (network("Loop", body=BRANCH), "the operator Loop, a subgraph of Loop"),
        (network("If", then_branch=BRANCH, else_branch=BRANCH), "the operator If"),
        (network("NonZero"), "the operator NonZero"),
        (network("Relu", domain="com.somebody"), "the operator com.somebody.Relu"),
        (network(weights=external()), "weights in other files, or sparse ones"),
        (network("Constant", value=external()), "weights in other files, or sparse ones"),
    ],
)
def test_what_has_no_bounded_cost_is_refused(model, received):
    with pytest.raises(ModelError) as caught:
        check_onnx_operators(model.SerializeToString(), name="x")
    assert received in str(caught.value)


def test_functions_are_refused():
    model = network()
    model.functions.append(FUNCTION)
    with pytest.raises(ModelError, match="Received: functions in x"):
        check_onnx_operators(model.SerializeToString(), name="x")


@pytest.mark.parametrize("content", [b"", b"\xff", b"\x3a\xff\xff\xff\xff\x0f", b"PK\3\4" * 9])
def test_what_is_not_onnx_is_refused(content):
    with pytest.raises(ModelError) as caught:
        read_onnx(content, name="x")
    assert str(caught.value) == (
        f"An .onnx model must be a whole ONNX file. Received: x, {len(content)} bytes that cannot "
        f"be read as one. Copy or export it again."
    )


@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(data):
    content = bytearray(
        network(weights=helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])).SerializeToString()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    try:
        network_ = read_onnx(bytes(content[: data.draw(st.integers(0, len(content)))]), name="x")
    except ModelError:
        return
    assert all(isinstance(size, int | np.integer) for one in network_.inputs for size in one.shape)
