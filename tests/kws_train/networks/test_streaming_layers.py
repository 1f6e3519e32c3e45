"""A layer run step by step must give what it gives for the whole sequence."""

from collections import ChainMap
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def built(request, tensorflow, unsettle):
    """Build the layer that the test's parameter describes, no weight at its initial value."""
    from kws_train.networks import blocks, convolution, layers, recurrent

    _, make, shape = request.param
    modules = (vars(module) for module in (convolution, layers, recurrent, blocks))
    tensorflow.keras.utils.set_random_seed(2)
    layer = make(SimpleNamespace(**ChainMap(*modules)))
    layer.build((None, None, *shape))
    layer.built = True
    unsettle(layer, seed=3)
    return layer, np.random.default_rng(4).normal(0, 1, (1, 24, *shape)).astype(np.float32)


LAYERS = [
    ("normalize", lambda net: net.Normalize([1.0, -2, 3], [0.5, 2, 4]), (3, 1)),
    ("point", lambda net: net.Causal(7), (5, 3)),
    ("strided", lambda net: net.Causal(6, kernel=(2, 5), stride=(2, 2)), (10, 1)),
    (
        "strided, looking back",
        lambda net: net.Causal(6, kernel=(5, 3), stride=(2, 2)),
        (9, 2),
    ),
    ("depthwise", lambda net: net.Causal(None, kernel=(3, 3), stride=(1, 2)), (7, 4)),
    (
        "depthwise, one band",
        lambda net: net.Causal(None, kernel=(9, 1), activation="linear"),
        (1, 5),
    ),
    (
        "residual",
        lambda net: net.Residual(
            [net.Causal(None, kernel=(4, 1)), net.Causal(5, activation="linear")]
        ),
        (1, 5),
    ),
    ("flatten", lambda net: net.Flatten(), (4, 3)),
    ("gru", lambda net: net.GRU(6, dropout=0.5), (1, 5)),
    ("stack", lambda net: net.Stack(2), (3, 1)),
    ("average", lambda net: net.Average(5), (3, 4)),
    ("average of one", lambda net: net.Average(1), (1, 4)),
    ("sub-spectral", lambda net: net.SubSpectral(3), (6, 4)),
    ("lstm", lambda net: net.LSTM(6, dropout=0.5), (1, 5)),
    ("broadcast", lambda net: net.Broadcast(4, dilation=2, n_groups=2), (6, 4)),
    (
        "broadcast transition",
        lambda net: net.Broadcast(5, band_stride=2, n_groups=2, transition=True, dropout=0.5),
        (8, 3),
    ),
    ("dilated", lambda net: net.Causal(None, kernel=(3, 1), dilation=4), (1, 5)),
    (
        "residual with a shortcut",
        lambda net: net.Residual(
            [
                net.Causal(6, kernel=(5, 1), stride=(2, 1)),
                net.Causal(6, kernel=(3, 1), activation="linear"),
            ],
            shortcut=net.Causal(6, kernel=(2, 1), stride=(2, 1)),
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
    n_past = 11 // layer.time_stride
    assert difference[:n_past].max() <= 1e-6
    assert difference[n_past] > 1e-4


@EVERY_LAYER
def test_the_shape_is_as_announced(built):
    layer, x = built
    assert tuple(np.asarray(layer(x)).shape) == tuple(layer.compute_output_shape(x.shape))


@EVERY_LAYER
def test_states_come_back_in_the_shapes_announced(built):
    layer, x = built
    _, states = layer.step(x[:, :4], layer.initial_states())
    assert [tuple(np.asarray(s).shape) for s in states] == layer.state_shapes()
