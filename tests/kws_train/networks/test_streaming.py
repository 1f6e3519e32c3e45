"""Batch normalisation of streaming layers against that of Keras."""

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def streaming(tensorflow):
    from kws_train.networks import streaming

    return streaming


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (6, 4, 5)])
def test_batches_are_normalised_as_keras_does(streaming, tensorflow, random, shape):
    tf, keras = tensorflow.tf, tensorflow.keras
    x = tf.constant(random.normal(7.0, 3.0, size=shape).astype(np.float32))
    aim = tf.constant(random.normal(size=shape).astype(np.float32))
    found = []
    for norm in (streaming.BatchNormalization(), keras.layers.BatchNormalization(momentum=0.9)):
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
