import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def step(tensorflow):
    from kws_export import step

    return step


@pytest.fixture
def traced(step, tiny_network):
    def trace(n_frames=2, *, state_bits=None):
        return step.concrete_step(
            tiny_network, n_frames=n_frames, n_features=8, state_bits=state_bits
        )

    yield trace
    trace()  # unbinds the states


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("n_frames", [2, 4])
def test_the_float_step_gives_what_the_network_gives_for_the_whole(
    step, traced, tiny_network, tiny_examples, n_frames
):
    frames = tiny_examples[0][:148]
    posteriors, _ = step.run_float(traced(n_frames), tiny_network, frames, n_frames=n_frames)
    whole = softmax(np.asarray(tiny_network(frames[None])))[0]
    assert posteriors.shape == whole.shape == (74, 4)
    assert posteriors.std(axis=0).max() > 1e-3
    assert np.abs(posteriors - whole).max() <= 1e-5


def test_frames_that_fill_no_call_are_left_out(step, traced, tiny_network, tiny_examples):
    step4 = traced(4)
    posteriors, inputs = step.run_float(step4, tiny_network, tiny_examples[0][:11], n_frames=4)
    assert len(posteriors) == 4
    assert len(inputs) == 2


def test_every_calls_inputs_are_given_back_states_included(
    step, traced, tiny_network, tiny_examples
):
    _, inputs = step.run_float(traced(), tiny_network, tiny_examples[0][:8], n_frames=2)
    shapes = [(1, 2, 8), *tiny_network.state_shapes()]
    assert [[value.shape for value in call] for call in inputs] == [shapes] * 4
    assert not any(state.any() for state in inputs[0][1:]), "zeros before the first frame"
    assert all(state.any() for state in inputs[1][1:])
    assert np.array_equal(inputs[3][0][0], tiny_examples[0][6:8])


def test_inputs_are_named_frames_and_states(traced, tiny_network):
    names = [tensor.name.partition(":")[0] for tensor in traced().inputs]
    assert names == ["frames", "state_0", "state_1", "state_2"]


def test_weights_are_constants(traced):
    """The converter would leave variables outside the flatbuffer's quantised weights."""
    read = {operation.type for operation in traced().graph.get_operations()}
    assert "MatMul" in read
    assert "ReadVariableOp" not in read


@pytest.mark.parametrize("bits", [8, 6])
def test_a_bound_recurrent_state_holds_what_fixed_point_can(
    step, traced, tiny_network, tiny_examples, bits
):
    bound = traced(state_bits=bits)
    _, inputs = step.run_float(bound, tiny_network, tiny_examples[0], n_frames=2)
    h = np.array([call[-1] for call in inputs]) * 2 ** (bits - 1)
    assert np.abs(h - np.rint(h)).max() < 1e-4
    assert len(np.unique(np.rint(h))) > 4


def test_a_bound_recurrent_state_stays_below_one(traced, tiny_network):
    far = [np.full(shape, 7.0, np.float32) for shape in tiny_network.state_shapes()]
    *_, h = traced(state_bits=8)(np.zeros((1, 2, 8), np.float32), *far)
    assert h.numpy().max() <= 127 / 128


def test_binding_ends_with_the_next_trace(step, traced, tiny_network, tiny_examples):
    before, _ = step.run_float(traced(), tiny_network, tiny_examples[0], n_frames=2)
    bound, _ = step.run_float(traced(state_bits=4), tiny_network, tiny_examples[0], n_frames=2)
    after, _ = step.run_float(traced(), tiny_network, tiny_examples[0], n_frames=2)
    assert np.array_equal(after, before)
    assert not np.array_equal(bound, before)
