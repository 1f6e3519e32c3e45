"""The zoo's layers, run step by step, give what they give for the whole sequence."""

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rooms(tensorflow):
    from kws.train import blocks, layers

    return blocks, layers


@pytest.fixture
def built(rooms, request, tensorflow, unsettle):
    _, make, shape = request.param
    tensorflow.keras.utils.set_random_seed(2)
    layer = make(*rooms)
    layer.build((None, None, *shape))
    layer.built = True
    unsettle(layer, seed=3)
    return layer, np.random.default_rng(4).normal(0, 1, (1, 24, *shape)).astype(np.float32)


LAYERS = [
    ("stack", lambda new, old: new.Stack(2), (3, 1)),
    ("average", lambda new, old: new.Average(5), (3, 4)),
    ("average of one", lambda new, old: new.Average(1), (1, 4)),
    ("sub-spectral", lambda new, old: new.SubSpectral(3), (6, 4)),
    ("lstm", lambda new, old: new.LSTM(6, dropout=0.5), (1, 5)),
    ("broadcast", lambda new, old: new.Broadcast(4, dilation=2, n_groups=2), (6, 4)),
    (
        "broadcast transition",
        lambda new, old: new.Broadcast(5, band_stride=2, n_groups=2, transition=True, dropout=0.5),
        (8, 3),
    ),
    ("dilated", lambda new, old: old.Causal(None, kernel=(3, 1), dilation=4), (1, 5)),
    (
        "residual with a shortcut",
        lambda new, old: old.Residual(
            [
                old.Causal(6, kernel=(5, 1), stride=(2, 1)),
                old.Causal(6, kernel=(3, 1), activation="linear"),
            ],
            shortcut=old.Causal(6, kernel=(2, 1), stride=(2, 1)),
        ),
        (1, 4),
    ),
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
def test_an_output_hears_its_newest_frame_and_none_after_it(built):
    layer, x = built
    changed = x.copy()
    changed[:, 11:] += 5.0
    difference = np.abs(np.asarray(layer(changed)) - np.asarray(layer(x))).max(axis=(0, 2, 3))
    assert np.flatnonzero(difference > 1e-4)[0] == 11 // layer.time_stride
    assert difference[: 11 // layer.time_stride].max() <= 1e-6


@EVERY_LAYER
def test_shapes_are_as_announced(built):
    layer, x = built
    assert tuple(np.asarray(layer(x)).shape) == tuple(layer.compute_output_shape(x.shape))
    _, states = layer.step(x[:, :4], layer.initial_states())
    assert [tuple(np.asarray(s).shape) for s in states] == layer.state_shapes()


def test_the_average_is_of_the_last_outputs(rooms):
    layer = rooms[0].Average(3)
    layer.build((None, None, 1, 1))
    x = np.array([3.0, 6, 9, 12, 0], np.float32).reshape(1, 5, 1, 1)
    assert np.asarray(layer(x)).ravel().tolist() == [1.0, 3.0, 6.0, 9.0, 7.0]


def test_each_group_of_bands_is_normalised_by_itself(rooms, random):
    layer = rooms[0].SubSpectral(2)
    layer.build((None, None, 4, 3))
    x = random.normal(0, 1, (8, 5, 4, 3)).astype(np.float32)
    x[:, :, :2] = 10 * x[:, :, :2] + 4
    y = np.asarray(layer(x, training=True)).reshape(8, 5, 2, 2, 3)
    assert np.abs(y.mean(axis=(0, 1, 3))).max() <= 1e-3
    assert np.abs(y.std(axis=(0, 1, 3)) - 1).max() <= 1e-2


def test_bands_that_do_not_divide_are_refused(rooms):
    with pytest.raises(ValueError, match="7 bands do not divide into 2 sub-bands"):
        rooms[0].SubSpectral(2).build((None, None, 7, 3))


def test_an_lstm_follows_its_equations(rooms, random, unsettle):
    layer = rooms[0].LSTM(4)
    layer.build((None, None, 1, 3))
    unsettle(layer, seed=5)
    kernel, recurrent, bias = (np.asarray(w) for w in layer.cell.weights)
    x, h, c = random.normal(size=(5, 3)), np.zeros(4), np.zeros(4)
    wanted = []
    for row in x:
        i, f, new, o = np.split(row @ kernel + h @ recurrent + bias, 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.tanh(new)
        h = o * np.tanh(c)
        wanted.append(h)
    y = np.asarray(layer(x[None, :, None].astype(np.float32)))
    assert np.abs(y[0, :, 0] - wanted).max() <= 1e-5
