"""A layer run step by step must give what it gives for the whole sequence."""

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def layers(tensorflow):
    from kws.train import layers

    return layers


@pytest.fixture
def built(layers, request, tensorflow, unsettle):
    """Build the layer that the test's parameter describes, no weight at its initial value."""
    _, make, shape = request.param
    tensorflow.keras.utils.set_random_seed(2)
    layer = make(layers)
    layer.build((None, None, *shape))
    layer.built = True
    unsettle(layer, seed=3)
    return layer, np.random.default_rng(4).normal(0, 1, (1, 24, *shape)).astype(np.float32)


LAYERS = [
    ("normalize", lambda room: room.Normalize([1.0, -2, 3], [0.5, 2, 4]), (3, 1)),
    ("point", lambda room: room.Causal(7), (5, 3)),
    ("strided", lambda room: room.Causal(6, kernel=(2, 5), stride=(2, 2)), (10, 1)),
    ("strided, looking back", lambda room: room.Causal(6, kernel=(5, 3), stride=(2, 2)), (9, 2)),
    ("depthwise", lambda room: room.Causal(None, kernel=(3, 3), stride=(1, 2)), (7, 4)),
    (
        "depthwise, one band",
        lambda room: room.Causal(None, kernel=(9, 1), activation="linear"),
        (1, 5),
    ),
    (
        "residual",
        lambda room: room.Residual(
            [room.Causal(None, kernel=(4, 1)), room.Causal(5, activation="linear")]
        ),
        (1, 5),
    ),
    ("flatten", lambda room: room.Flatten(), (4, 3)),
    ("gru", lambda room: room.GRU(6, dropout=0.5), (1, 5)),
]
EVERY_LAYER = pytest.mark.parametrize("built", LAYERS, indirect=True, ids=lambda case: case[0])


def streamed(layer, x, n_frames):
    states, outputs = layer.initial_states(), []
    for start in range(0, x.shape[1] - n_frames + 1, n_frames):
        y, states = layer.step(x[:, start : start + n_frames], states)
        outputs.append(np.asarray(y))
    return np.concatenate(outputs, axis=1)


@EVERY_LAYER
@pytest.mark.parametrize("n_frames", [2, 4])
def test_steps_give_what_the_whole_sequence_gives(built, n_frames):
    layer, x = built
    whole = np.asarray(layer(x))
    assert np.abs(whole).max() > 0.1
    assert np.abs(streamed(layer, x, n_frames) - whole).max() <= 1e-5


@EVERY_LAYER
def test_the_future_does_not_change_what_is_past(built):
    layer, x = built
    before = np.asarray(layer(x))
    changed = x.copy()
    changed[:, 12:] += 5.0
    after = np.asarray(layer(changed))
    n_past = 12 // layer.time_stride
    assert np.abs(after[:, :n_past] - before[:, :n_past]).max() <= 1e-6
    assert np.abs(after[:, n_past] - before[:, n_past]).max() > 1e-3


@EVERY_LAYER
def test_the_newest_frame_counts_at_once(built):
    """Output t sees input up to (t + 1) stride - 1, and no less."""
    layer, x = built
    changed = x.copy()
    changed[:, 11] += 5.0
    difference = np.abs(np.asarray(layer(changed)) - np.asarray(layer(x))).max(axis=(0, 2, 3))
    assert np.flatnonzero(difference > 1e-5)[0] == 11 // layer.time_stride


@EVERY_LAYER
def test_the_shape_is_as_announced(built):
    layer, x = built
    assert tuple(np.asarray(layer(x)).shape) == tuple(layer.compute_output_shape(x.shape))


@EVERY_LAYER
def test_states_come_back_in_the_shapes_announced(built):
    layer, x = built
    _, states = layer.step(x[:, :4], layer.initial_states())
    assert [tuple(np.asarray(s).shape) for s in states] == layer.state_shapes()


def test_normalize_shifts_and_scales_each_band(layers):
    layer = layers.Normalize([10.0, 20.0], [2.0, 5.0])
    x = np.array([[[[12.0], [15.0]]]], np.float32)
    assert np.asarray(layer(x)).tolist() == [[[[1.0], [-1.0]]]]


@pytest.mark.parametrize(("n_bands", "kernel", "stride"), [(10, 5, 2), (9, 3, 2), (7, 4, 3)])
def test_bands_are_padded_as_same(layers, tensorflow, n_bands, kernel, stride):
    layer = layers.Causal(2, kernel=(1, kernel), stride=(1, stride), activation="linear")
    layer.build((None, None, n_bands, 1))
    x = np.random.default_rng(1).normal(size=(1, 3, n_bands, 1)).astype(np.float32)
    wanted = tensorflow.tf.nn.conv2d(x, layer.kernel.value, (1, 1, stride, 1), "SAME")
    scale = 1 / np.sqrt(1 + layer.norm.epsilon)
    assert np.abs(np.asarray(layer(x)) - np.asarray(wanted) * scale).max() <= 1e-5


def test_a_gru_follows_its_equations(layers, random, unsettle):
    layer = layers.GRU(4)
    layer.build((None, None, 1, 3))
    unsettle(layer, seed=5)
    kernel, recurrent, bias = (np.asarray(w) for w in layer.cell.weights)
    x, h = random.normal(size=(5, 3)), np.zeros(4)
    wanted = []
    for row in x:
        gates, past = row @ kernel + bias[0], h @ recurrent + bias[1]
        z, r = (1 / (1 + np.exp(-(gates[i : i + 4] + past[i : i + 4]))) for i in (0, 4))
        c = np.tanh(gates[8:] + r * past[8:])
        h = z * h + (1 - z) * c
        wanted.append(h)
    y = np.asarray(layer(x[None, :, None].astype(np.float32)))
    assert np.abs(y[0, :, 0] - wanted).max() <= 1e-5


def test_classify_gives_logits_for_sequences_and_their_softmax_in_steps(layers, random, unsettle):
    layer = layers.Classify(4, dropout=0.5)
    layer.build((None, None, 1, 6))
    layer.built = True
    unsettle(layer, seed=5)
    x = random.normal(size=(1, 8, 1, 6)).astype(np.float32)
    logits = np.asarray(layer(x))
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    posteriors = streamed(layer, x, 4)
    assert posteriors.shape == (1, 8, 4)
    assert np.abs(posteriors - powers / powers.sum(axis=-1, keepdims=True)).max() <= 1e-5


def test_dropout_acts_in_training_alone(layers, random):
    x = random.normal(size=(1, 6, 1, 30)).astype(np.float32)
    for layer in (layers.GRU(4, dropout=0.5), layers.Classify(4, dropout=0.5)):
        layer.build((None, None, 1, 30))
        layer.built = True
        quiet = np.asarray(layer(x))
        assert np.array_equal(np.asarray(layer(x)), quiet)
        assert not np.array_equal(np.asarray(layer(x, training=True)), quiet)


def test_the_normalisation_follows_a_batch_in_training(layers, random):
    layer = layers.Causal(3)
    layer.build((None, None, 1, 2))
    x = random.normal(3, 2, (8, 6, 1, 2)).astype(np.float32)
    layer(x, training=True)
    moved = np.asarray(layer.norm.moving_variance)
    sent = np.asarray(layer._convolve(x, layer.kernel.value))
    wanted = 0.9 * 1.0 + 0.1 * sent.var(axis=(0, 1, 2))
    assert np.abs(moved - wanted).max() <= 1e-3
