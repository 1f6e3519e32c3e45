"""Sub-spectral normalisation; steps against sequences: test_streaming_layers."""

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def blocks(tensorflow):
    from kws_train.networks import blocks

    return blocks


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
