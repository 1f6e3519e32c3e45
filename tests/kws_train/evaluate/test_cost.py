"""Multiply-accumulates are counted as by hand."""

import numpy as np
import pytest

from kws.manifest import FeatureSettings, Manifest, read_manifest
from kws.model import bundled_models
from kws_export.compact import compact
from kws_train.evaluate.cost import count_operations

pytestmark = pytest.mark.slow  # for the import of TensorFlow


def test_work_and_weights_are_those_counted_by_hand(tensorflow):
    tf = tensorflow.tf
    random = np.random.default_rng(1)
    wide, deep, dense = (
        tf.constant(random.normal(size=shape).astype(np.float32))
        for shape in ((3, 3, 1, 5), (3, 3, 5, 1), (160, 7))
    )

    @tf.function(input_signature=[tf.TensorSpec((1, 8, 4, 1))])
    def network(frames):
        hidden = tf.nn.conv2d(frames, wide, 1, "SAME")
        hidden = tf.nn.depthwise_conv2d(tf.nn.relu(hidden), deep, [1, 1, 1, 1], "SAME")
        return tf.reshape(tf.nn.relu(hidden), (1, 160)) @ dense

    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()])
    manifest = Manifest(
        name="made",
        labels=("go",),
        kind="step",
        features=FeatureSettings(),
        n_frames=8,
        hop_frames=8,
    )
    counted = count_operations(converter.convert(), manifest)
    assert counted.macs_per_call == 8 * 4 * 5 * 9 + 8 * 4 * 5 * 9 + 160 * 7
    assert counted.macs_per_s == counted.macs_per_call * 100 / 8
    n_biases = counted.n_weights - (45 + 45 + 160 * 7)
    assert n_biases in {0, 5, 7, 10, 12, 17}  # the converter adds some that are zero


def test_the_bundled_models_work_is_counted_for_a_second():
    manifest, content = read_manifest(bundled_models()["commands-small"])
    counted = count_operations(content, manifest)
    assert counted.macs_per_s == counted.macs_per_call * 25
    assert counted.n_weights == 66_420
    assert counted.n_weights < counted.macs_per_call


@pytest.mark.parametrize("quantization", ["int8", "float32"])
def test_weights_are_those_of_the_network(tiny_network, tiny_models, quantization):
    """Export strips the names of constants, and 3 weights were reported for 66,011."""
    sizes = {weight.path: int(np.prod(weight.shape)) for weight in tiny_network.weights}
    kernels = sum(n for path, n in sizes.items() if path.endswith("kernel"))
    biases = sum(n for path, n in sizes.items() if path.endswith(("beta", "bias")))
    (gru,) = (n // 6 for path, n in sizes.items() if path.endswith("gru_cell/bias"))
    wanted = kernels + biases - 2 * gru  # two gates have one bias in place of two
    flatbuffer, manifest = tiny_models(quantization)
    for content in (flatbuffer, compact(flatbuffer)):
        assert count_operations(content, manifest).n_weights == wanted
