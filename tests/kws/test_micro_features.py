"""pymicro-wakeword is the oracle."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kws.errors import ConfigError, FormatError, ModelError
from kws.features import Features, open_features
from kws.manifest import FeatureSettings
from kws.micro_features import MICRO_FEATURES, MicroFeatures

NOISE = np.random.default_rng(1).normal(0, 1000, 4000).astype(np.int16)


def test_frames_are_those_of_the_package():
    package = pytest.importorskip("pymicro_wakeword")
    theirs = package.MicroWakeWordFeatures().process_streaming(NOISE.tobytes())
    expected = np.concatenate(list(theirs))[:, 0]
    np.testing.assert_array_equal(MicroFeatures().whole(NOISE), expected)
    assert len(expected) == 1 + (len(NOISE) - 480) // 160


@given(cuts=st.lists(st.integers(0, 700), max_size=12))
def test_frames_do_not_depend_on_how_samples_are_cut(cuts):
    features = MicroFeatures()
    edges = np.minimum(np.cumsum([0, *cuts]), len(NOISE))
    pieces = [NOISE[a:b] for a, b in zip(edges, [*edges[1:], len(NOISE)], strict=True)]
    frames = np.concatenate([features.process(piece) for piece in pieces])
    np.testing.assert_array_equal(frames, features.whole(NOISE))
    assert frames.dtype == np.float32


def test_a_reset_forgets_noise_and_gain():
    features = MicroFeatures()
    first = features.process(NOISE)
    assert not np.array_equal(features.process(NOISE), first)
    features.reset()
    np.testing.assert_array_equal(features.process(NOISE), first)


def test_other_types_are_refused():
    with pytest.raises(FormatError, match="Received: 1-dimensional float32"):
        MicroFeatures().process(np.zeros(3, np.float32))


def test_the_kind_decides_what_computes_frames():
    assert isinstance(open_features(MICRO_FEATURES), MicroFeatures)
    assert isinstance(open_features(FeatureSettings()), Features)


def test_other_commands_than_those_that_listen_refuse_the_kind():
    with pytest.raises(ConfigError, match="Received: micro"):
        Features(MICRO_FEATURES)


def test_the_frontend_has_one_setting():
    message = "`features` of kind micro must be those of the micro frontend. Received: "
    with pytest.raises(ModelError, match=re.escape(message)):
        open_features(replace(MICRO_FEATURES, hop_samples=320))
