"""Normalisation, averaging and classification; steps against sequences: test_streaming_layers."""

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def layers(tensorflow):
    from kws_train.networks import layers

    return layers


def test_normalize_shifts_and_scales_each_band(layers):
    layer = layers.Normalize([10.0, 20.0], [2.0, 5.0])
    x = np.array([[[[12.0], [15.0]]]], np.float32)
    assert np.asarray(layer(x)).tolist() == [[[[1.0], [-1.0]]]]


def test_the_average_is_of_the_last_outputs(layers):
    layer = layers.Average(3)
    layer.build((None, None, 1, 1))
    x = np.array([3.0, 6, 9, 12, 0], np.float32).reshape(1, 5, 1, 1)
    assert np.asarray(layer(x)).ravel().tolist() == [1.0, 3.0, 6.0, 9.0, 7.0]


def test_classify_gives_logits_for_sequences_and_their_softmax_in_steps(layers, random, unsettle):
    layer = layers.Classify(4, dropout=0.5)
    layer.build((None, None, 1, 6))
    layer.built = True
    unsettle(layer, seed=5)
    x = random.normal(size=(1, 8, 1, 6)).astype(np.float32)
    logits = np.asarray(layer(x))
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    halves = [np.asarray(layer.step(half, [])[0]) for half in (x[:, :4], x[:, 4:])]
    posteriors = np.concatenate(halves, axis=1)
    assert posteriors.shape == (1, 8, 4)
    assert np.abs(posteriors - powers / powers.sum(axis=-1, keepdims=True)).max() <= 1e-5


def test_dropout_acts_in_training_alone(layers, random):
    x = random.normal(size=(1, 6, 1, 30)).astype(np.float32)
    layer = layers.Classify(4, dropout=0.5)
    layer.build((None, None, 1, 30))
    layer.built = True
    quiet = np.asarray(layer(x))
    assert np.array_equal(np.asarray(layer(x)), quiet)
    assert not np.array_equal(np.asarray(layer(x, training=True)), quiet)
