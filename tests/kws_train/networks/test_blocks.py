"""What each layer of the zoo computes; steps against sequences: test_streaming_layers."""

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def blocks(tensorflow):
    from kws_train.networks import blocks

    return blocks


def test_the_average_is_of_the_last_outputs(blocks):
    layer = blocks.Average(3)
    layer.build((None, None, 1, 1))
    x = np.array([3.0, 6, 9, 12, 0], np.float32).reshape(1, 5, 1, 1)
    assert np.asarray(layer(x)).ravel().tolist() == [1.0, 3.0, 6.0, 9.0, 7.0]


def test_each_group_of_bands_is_normalised_by_itself(blocks, random):
    layer = blocks.SubSpectral(2)
    layer.build((None, None, 4, 3))
    x = random.normal(0, 1, (8, 5, 4, 3)).astype(np.float32)
    x[:, :, :2] = 10 * x[:, :, :2] + 4
    y = np.asarray(layer(x, training=True)).reshape(8, 5, 2, 2, 3)
    assert np.abs(y.mean(axis=(0, 1, 3))).max() <= 1e-3
    assert np.abs(y.std(axis=(0, 1, 3)) - 1).max() <= 1e-2


def test_bands_that_do_not_divide_are_refused(blocks):
    with pytest.raises(ValueError, match="7 bands do not divide into 2 sub-bands"):
        blocks.SubSpectral(2).build((None, None, 7, 3))


def test_an_lstm_follows_its_equations(blocks, random, unsettle):
    layer = blocks.LSTM(4)
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
