import numpy as np
import pytest

from kws.model import open_model
from kws_train.recipe import Conv1dLstmRecipe

pytestmark = pytest.mark.slow

FORMATS = ["int8", "int16x8", "float32"]


@pytest.fixture(scope="module")
def expected(tiny_network, tiny_examples):
    """What the network itself says to every example."""
    logits = np.asarray(tiny_network(np.stack([frames[:148] for frames in tiny_examples])))
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def run(path, frames):
    model = open_model(path)
    n_frames = model.manifest.n_frames
    starts = range(0, 148, n_frames)
    return np.concatenate([model.step(frames[start : start + n_frames]) for start in starts])


def tensors(path):
    """Return the details of inputs and outputs by name."""
    interpreter = open_model(path)._interpreter
    details = interpreter.get_input_details() + interpreter.get_output_details()
    return {tensor["name"]: tensor for tensor in details}


@pytest.mark.parametrize(
    ("quantization", "agreement", "mean", "largest"),
    [("int8", 0.97, 0.01, 0.06), ("int16x8", 0.99, 0.005, 0.06), ("float32", 1.0, 1e-5, 1e-5)],
)
@pytest.mark.parametrize("n_frames", [2, 4])
def test_a_converted_network_says_what_the_network_says(
    tiny_file, tiny_examples, expected, quantization, agreement, mean, largest, n_frames
):
    path = tiny_file(quantization, n_frames=n_frames)
    said = np.stack([run(path, frames) for frames in tiny_examples])
    assert said.shape == expected.shape
    assert np.mean(said.argmax(axis=-1) == expected.argmax(axis=-1)) >= agreement
    difference = np.abs(said - expected)
    assert difference.mean() <= mean
    assert difference.max() <= largest


def test_the_tiny_network_does_not_always_say_the_same(expected):
    """Or agreement would be no proof."""
    assert np.ptp(expected, axis=1).max() > 0.1


@pytest.mark.parametrize("quantization", ["int8", "int16x8"])
def test_posteriors_do_not_drift_over_a_long_stream(
    tiny_file, tiny_network, tiny_examples, quantization
):
    """The last example says the same after five minutes of others as after one of them."""
    model = open_model(tiny_file(quantization))
    short = np.concatenate(tiny_examples[:2])
    long = np.concatenate((np.tile(tiny_examples[3], (200, 1)), short))
    said = []
    for frames in (short, long):
        model.reset()
        said.append([model.step(frames[i : i + 2]) for i in range(0, len(frames), 2)][-75:])
    assert np.abs(np.array(said[0]) - np.array(said[1])).max() <= 0.01


@pytest.mark.parametrize(
    ("quantization", "dtype"), [("int8", np.int8), ("int16x8", np.int16), ("float32", np.float32)]
)
def test_inputs_outputs_and_states_are_of_the_number_format(tiny_file, quantization, dtype):
    found = {tensor["dtype"] for tensor in tensors(tiny_file(quantization)).values()}
    assert found == {dtype}


@pytest.mark.parametrize("n_frames", [2, 4])
def test_states_of_an_int8_network_come_out_on_the_scale_they_go_in_on(
    tiny_file, tiny_network, n_frames
):
    """Or each step would round, and clip, what the step before has said."""
    found = tensors(tiny_file("int8", n_frames=n_frames))
    for i in range(len(tiny_network.state_shapes())):
        taken, given = found[f"state_{i}"], found[f"Identity_{i + 1}"]
        assert taken["quantization"] == given["quantization"]


def test_a_recurrent_state_of_an_int8_network_reaches_from_minus_one_to_one(tiny_file):
    assert tensors(tiny_file("int8"))["state_2"]["quantization"] == (1 / 128, 0)


@pytest.mark.parametrize("quantization", FORMATS)
def test_conversion_gives_the_same_bytes_again(
    tiny_models, tiny_network, tiny_examples, quantization
):
    from kws_export.quantize import convert

    again = convert(tiny_network, quantization=quantization, n_frames=2, examples=tiny_examples)
    assert again == tiny_models(quantization)[0]


def burst(random):
    """Frames of a faint stream that is loud for a moment in its second half."""
    frames = random.normal(0, 0.2, (80, 16)).astype(np.float32)
    frames[44:50] += 4.0
    return frames


def said_by(flatbuffer, windows):
    """Return what an int8 file for windows says to each of them."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=flatbuffer)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    posteriors = []
    for window in windows:
        scale, zero = taken["quantization"]
        integers = np.clip(np.rint(window / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(taken["index"], integers)
        interpreter.invoke()
        scale, zero = given["quantization"]
        posteriors.append(scale * (interpreter.get_tensor(given["index"])[0, 0] - float(zero)))
    return np.stack(posteriors)


def test_what_is_sure_for_a_moment_is_as_sure_in_eight_bits(tensorflow):
    import keras

    from kws_export.quantize import convert
    from kws_train.networks import architectures

    keras.utils.set_random_seed(1)
    recipe = Conv1dLstmRecipe(window_frames=16, hop_frames=4, channels=8, lstm_units=8, dropout=0.0)
    model = architectures.build(recipe, n_labels=3, mean=[0.0] * 16, std=[1.0] * 16)
    random = np.random.default_rng(1)
    examples = [burst(random) for _ in range(12)]
    flatbuffer = convert(model, quantization="int8", n_frames=4, examples=examples)
    frames = burst(random)
    windows = [frames[None, start : start + 16] for start in range(0, 65, 4)]
    wanted = np.stack([np.array(model.window(window))[0, 0] for window in windows])
    assert np.ptp(wanted, axis=0).max() > 0.15, "the burst changes what the network says"
    assert np.abs(said_by(flatbuffer, windows) - wanted).max() < 0.04
