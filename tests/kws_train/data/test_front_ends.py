"""Vectors to train on are those of the runtime."""

import numpy as np
import pytest
import sounds

from kws.errors import ModelError
from kws.features import Features
from kws.micro_features import MicroFeatures
from kws.model import open_model
from kws_train.data import front_ends
from kws_train.data.front_ends import micro_frontend, speech_embedding


def test_vectors_are_those_of_the_bundled_embedding_from_whole_context_on():
    samples = sounds.voice(2.0)
    model = open_model("speech_embedding")
    run = model.run(Features(model.manifest.features).whole(samples))
    assert speech_embedding().n_cold == 9
    vectors = speech_embedding().vectors(samples)
    assert vectors.dtype == np.float16
    assert np.array_equal(vectors, run[9:].astype(np.float16))


def test_frames_are_those_of_the_micro_frontend_from_the_second_second_on():
    pytest.importorskip("pymicro_features")
    samples = sounds.voice(2.0)
    vectors = micro_frontend().vectors(samples)
    assert vectors.dtype == np.float16
    whole = MicroFeatures().whole(samples)
    assert np.array_equal(vectors, whole[100:].astype(np.float16))
    # Half precision keeps which of the 256 steps of int8 a value falls on.
    assert np.abs(vectors.astype(np.float64) - whole[100:]).max() < 26 / 255 / 8


def test_samples_are_rounded_and_clipped_as_the_runtime_has_them():
    samples = sounds.voice(1.5).astype(np.float32) * 3
    heard = np.clip(np.rint(samples + 0.3), -32768, 32767).astype(np.int16)
    front_end = speech_embedding()
    assert np.array_equal(front_end.vectors(samples + 0.3), front_end.vectors(heard))


@pytest.mark.parametrize("name", ["speech_embedding", "micro_frontend"])
def test_samples_are_as_many_as_vectors_need(name):
    pytest.importorskip("pymicro_features")
    front_end = getattr(front_ends, name)()
    samples = sounds.voice(2.0)[: front_end.n_samples(7)]
    assert front_end.vectors(samples).shape == (7, front_end.size)
    assert len(front_end.vectors(samples[:-1])) == 6
    end = front_end.n_samples(3)
    assert front_end.vector_after(end - 1) == front_end.vector_after(end) == 2
    assert front_end.vector_after(end + 1) == 3


def test_without_pymicro_features_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pymicro_features", None)
    micro_frontend.cache_clear()
    with pytest.raises(ModelError, match=r"pip install 'kws\[micro\]'"):
        micro_frontend()
