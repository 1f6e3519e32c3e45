"""Recurrent layers against their equations; steps against sequences: test_streaming_layers."""

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recurrent(tensorflow):
    from kws_train.networks import recurrent

    return recurrent


def test_a_gru_follows_its_equations(recurrent, random, unsettle):
    layer = recurrent.GRU(4)
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


def test_an_lstm_follows_its_equations(recurrent, random, unsettle):
    layer = recurrent.LSTM(4)
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


def test_dropout_acts_in_training_alone(recurrent, random):
    x = random.normal(size=(1, 6, 1, 30)).astype(np.float32)
    layer = recurrent.GRU(4, dropout=0.5)
    layer.build((None, None, 1, 30))
    layer.built = True
    quiet = np.asarray(layer(x))
    assert np.array_equal(np.asarray(layer(x)), quiet)
    assert not np.array_equal(np.asarray(layer(x, training=True)), quiet)
