"""What each basic layer computes; that steps give what sequences give: test_streaming_layers."""

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


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (6, 4, 5)])
def test_batches_are_normalised_as_keras_does(layers, tensorflow, random, shape):
    tf, keras = tensorflow.tf, tensorflow.keras
    x = tf.constant(random.normal(7.0, 3.0, size=shape).astype(np.float32))
    aim = tf.constant(random.normal(size=shape).astype(np.float32))
    found = []
    for norm in (layers.BatchNormalization(), keras.layers.BatchNormalization(momentum=0.9)):
        norm.build((*[None] * (len(shape) - 1), 5))
        norm.gamma.assign([1.0, 2.0, 3.0, 4.0, 5.0])
        norm.beta.assign([5.0, 4.0, 3.0, 2.0, 1.0])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = norm(x, training=True)
            loss = tf.reduce_sum(y * aim)
        gradients = tape.gradient(loss, [x, norm.gamma.value, norm.beta.value])
        after = norm(x, training=False)
        found.append([y, *gradients, after, norm.moving_mean, norm.moving_variance])
        norm.trainable = False
        assert np.array_equal(norm(x, training=True), after)
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=2e-4, atol=2e-5)


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
    halves = [np.asarray(layer.step(half, [])[0]) for half in (x[:, :4], x[:, 4:])]
    posteriors = np.concatenate(halves, axis=1)
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
