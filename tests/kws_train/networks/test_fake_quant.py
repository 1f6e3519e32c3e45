"""Tensors and weights in training are what the int8 model holds."""

import keras
import numpy as np
import pytest
from keras import ops

from kws_train.networks.fake_quant import (
    QuantRanges,
    fake_quantize,
    fake_quantize_kernel,
    observe_ranges,
    quant_mode,
    quant_ranges,
)


class Doubled(keras.Model):
    """2 x, held in a range."""

    def __init__(self):
        super().__init__()
        self.ranges = QuantRanges(["input", "output"])

    def call(self, x):
        return self.ranges.apply("output", 2.0 * self.ranges.apply("input", x))


def test_a_tensor_is_clipped_and_rounded_to_256_values_of_which_one_is_zero():
    x = np.linspace(-2, 4, 2001).astype(np.float32)
    y = np.asarray(fake_quantize(x, -1.0, 2.0))
    assert len(np.unique(y)) == 256
    assert 0.0 in y
    inside = (x > -1.0) & (x < 2.0)
    assert np.abs(y - x)[inside].max() <= 1.01 * 3 / 255 / 2
    assert np.ptp(y) == pytest.approx(3.0, rel=1e-5)


def test_gradients_pass_what_is_rounded_and_move_the_end_that_clips(tensorflow):
    tf = tensorflow.tf
    x, low, high = tf.constant([-3.0, -0.5, 0.5, 3.0, 4.0]), tf.Variable(-1.0), tf.Variable(1.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(fake_quantize(x, low, high))
    dx, dlow, dhigh = tape.gradient(y, [x, low, high])
    assert dx.numpy().tolist() == [0.0, 1.0, 1.0, 0.0, 0.0]
    assert (float(dlow), float(dhigh)) == (1.0, 2.0)


@pytest.mark.parametrize("axis", [0, -1])
def test_each_channel_of_weights_has_steps_of_its_own_size(random, axis):
    kernel = random.normal(size=(4, 3, 5)).astype(np.float32)
    rounded = np.moveaxis(np.asarray(fake_quantize_kernel(kernel, axis=axis)), axis, 0)
    for channel, was in zip(rounded, np.moveaxis(kernel, axis, 0), strict=True):
        scale = np.abs(was).max() / 127
        assert np.abs(channel - was).max() <= 0.501 * scale
        assert np.abs(channel / scale - np.rint(channel / scale)).max() < 1e-3


def test_ranges_begin_with_what_is_observed():
    model = Doubled()
    observe_ranges(model, [np.array([[-1.0, 2.0]], np.float32), np.array([[0.5, 3.0]], np.float32)])
    (ranges,) = quant_ranges(model)
    assert np.asarray(ranges.low).tolist() == [-1.0, -2.0]
    assert np.asarray(ranges.high).tolist() == [3.0, 6.0]
    low, high = ranges.bounds()["output"]
    assert high - low == pytest.approx(8.0, rel=1e-5)
    assert (-low / (8.0 / 255)) == pytest.approx(round(-low / (8.0 / 255)), abs=1e-3)


def test_a_model_that_is_off_rounds_nothing_and_learns_again_after():
    model = Doubled()
    x = np.array([[0.1234567, 5.0]], np.float32)
    with quant_mode(model, "off"):
        assert np.array_equal(ops.convert_to_numpy(model(x)), 2 * x)
    assert ops.convert_to_numpy(model(x)).max() <= 1.0


def test_a_range_always_holds_zero():
    ranges = QuantRanges(["x"])
    assert float(ranges.low.constraint(np.float32(0.5))) == 0.0
    assert float(ranges.high.constraint(np.float32(-0.5))) > 0.0
