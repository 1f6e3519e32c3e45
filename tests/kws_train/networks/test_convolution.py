"""Padding and normalisation of causal convolutions; steps: test_streaming_layers."""

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def convolution(tensorflow):
    from kws_train.networks import convolution

    return convolution


@pytest.mark.parametrize(("n_bands", "kernel", "stride"), [(10, 5, 2), (9, 3, 2), (7, 4, 3)])
def test_bands_are_padded_as_same(convolution, tensorflow, n_bands, kernel, stride):
    layer = convolution.Causal(2, kernel=(1, kernel), stride=(1, stride), activation="linear")
    layer.build((None, None, n_bands, 1))
    x = np.random.default_rng(1).normal(size=(1, 3, n_bands, 1)).astype(np.float32)
    wanted = tensorflow.tf.nn.conv2d(x, layer.kernel.value, (1, 1, stride, 1), "SAME")
    scale = 1 / np.sqrt(1 + layer.norm.epsilon)
    assert np.abs(np.asarray(layer(x)) - np.asarray(wanted) * scale).max() <= 1e-5


def test_the_normalisation_follows_a_batch_in_training(convolution, random):
    layer = convolution.Causal(3)
    layer.build((None, None, 1, 2))
    x = random.normal(3, 2, (8, 6, 1, 2)).astype(np.float32)
    layer(x, training=True)
    moved = np.asarray(layer.norm.moving_variance)
    sent = np.asarray(layer._convolve(x, layer.kernel.value))
    wanted = 0.9 * 1.0 + 0.1 * sent.var(axis=(0, 1, 2))
    assert np.abs(moved - wanted).max() <= 1e-3
