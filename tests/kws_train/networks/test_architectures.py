import numpy as np
import pytest

from kws_train.recipe import CrnnRecipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def architectures(tensorflow):
    from kws_train.networks import architectures

    return architectures


@pytest.fixture(scope="module")
def default_crnn(architectures, tensorflow, unsettle):
    """The default recipe for twelve labels, with weights as after some training."""
    tensorflow.keras.utils.set_random_seed(1)
    network = architectures.build(CrnnRecipe(), n_labels=12, mean=[8.0] * 40, std=[3.0] * 40)
    unsettle(network, seed=2)
    return network


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(3).normal(8, 3, (1, 120, 40)).astype(np.float32)


def streamed(network, frames, n_frames):
    states = [np.zeros(shape, np.float32) for shape in network.state_shapes()]
    outputs = []
    for start in range(0, frames.shape[1], n_frames):
        y, states = network.step(frames[:, start : start + n_frames], states)
        outputs.append(np.asarray(y))
    return np.concatenate(outputs, axis=1)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("n_frames", [2, 4])
def test_the_crnn_in_steps_gives_what_it_gives_for_the_whole(default_crnn, frames, n_frames):
    whole = softmax(np.asarray(default_crnn(frames)))
    assert whole.std(axis=1).max() > 1e-3
    assert np.abs(streamed(default_crnn, frames, n_frames) - whole).max() <= 1e-5


def test_what_comes_later_does_not_change_the_crnns_past(default_crnn, frames):
    before = np.asarray(default_crnn(frames))
    changed = frames.copy()
    changed[:, 60:] += 4.0
    after = np.asarray(default_crnn(changed))
    assert np.abs(after[:, :30] - before[:, :30]).max() <= 1e-5
    assert np.abs(after[:, 30:] - before[:, 30:]).max() > 1e-2


def test_the_default_crnn_has_no_more_than_eighty_thousand_parameters(default_crnn):
    assert 20_000 < default_crnn.count_params() <= 80_000


def test_an_output_comes_every_time_stride(architectures, default_crnn, frames):
    assert default_crnn.time_stride == architectures.time_stride(CrnnRecipe()) == 2
    assert tuple(default_crnn(frames).shape) == (1, 60, 12)


@pytest.mark.parametrize(
    "recipe",
    [
        CrnnRecipe(channels=(4, 6, 8), n_blocks=0, gru_units=5),
        CrnnRecipe(channels=(8, 8, 16), n_blocks=5, kernel_frames=1, gru_units=7),
    ],
    ids=["no blocks", "blocks that do not look back"],
)
def test_other_sizes_stream_as_well(architectures, frames, recipe):
    network = architectures.build(recipe, n_labels=3, mean=[8.0] * 40, std=[3.0] * 40)
    whole = softmax(np.asarray(network(frames)))
    assert np.abs(streamed(network, frames, 2) - whole).max() <= 1e-5


def test_a_network_keeps_the_statistics_of_its_features(architectures):
    network = architectures.build(CrnnRecipe(), n_labels=3, mean=[1.0, 2.0], std=[3.0, 4.0])
    assert network.statistics == ([1.0, 2.0], [3.0, 4.0])


def test_the_statistics_are_taken_out(architectures):
    recipe = CrnnRecipe(channels=(4, 6, 8), n_blocks=1, gru_units=5)
    plain = architectures.build(recipe, n_labels=3, mean=[0.0] * 4, std=[1.0] * 4)
    scaled = architectures.build(recipe, n_labels=3, mean=[5.0] * 4, std=[2.0] * 4)
    scaled.set_weights(plain.get_weights())
    x = np.random.default_rng(1).normal(size=(1, 20, 4)).astype(np.float32)
    assert np.abs(np.asarray(scaled(2 * x + 5)) - np.asarray(plain(x))).max() <= 1e-5
