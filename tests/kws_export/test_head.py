"""A head becomes a model file that runs on the bundled embedding, alone and with others."""

import numpy as np
import pytest
import sounds

from kws.errors import ModelError
from kws.features import Features
from kws.manifest import DecisionDefaults, read_manifest
from kws.model import open_model, with_embedding
from kws.spotter import Spotter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network(tensorflow, unsettle):
    from kws_train.networks.embedding_head import embedding_head

    tensorflow.keras.utils.set_random_seed(4)
    model = embedding_head(3)
    unsettle(model, seed=7)
    return model


@pytest.fixture(scope="module")
def vectors():
    """Vectors of speech, cut into scenes."""
    from kws_train.data.front_ends import speech_embedding

    embedded = speech_embedding().vectors(sounds.voice(14.0)).astype(np.float32)
    noise = np.random.default_rng(1).normal(0, 0.7, (8, 20, 96))
    return (embedded[:160].reshape(8, 20, 96) + noise).astype(np.float32)


@pytest.fixture(scope="module")
def exported(network, vectors, tmp_path_factory):
    from kws_export import head
    from kws_export.head import export_head, head_manifest

    out = tmp_path_factory.mktemp("head") / "head.tflite"
    manifest = head_manifest(
        network,
        name="two_words",
        description="one, two",
        keywords=("one", "two"),
        decision=DecisionDefaults(smoothing_ms=320),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "MIN_AGREEMENT", 0.9)  # a random head is often undecided
        agreement = export_head(network, out, manifest=manifest, examples=vectors)
    return out, agreement


def test_the_file_names_the_bundled_embedding_and_its_context(exported):
    import hashlib

    from kws.model import model_path

    manifest, _ = read_manifest(exported[0])
    embedding = model_path("speech_embedding").read_bytes()
    assert manifest.takes.sha256 == hashlib.sha256(embedding).hexdigest()
    assert (manifest.takes.size, manifest.takes.hop_frames) == (96, 8)
    assert manifest.labels == ("_unknown_", "one", "two")
    assert (manifest.n_frames, manifest.call_ms) == (1, 80)
    assert manifest.context_frames == 76 + 12 * 8
    assert exported[0].stat().st_size < 100_000


def test_the_file_agrees_with_the_trained_head(exported):
    assert exported[1].argmax >= 0.9
    assert exported[1].largest_difference < 0.3


def test_an_output_depends_on_thirteen_vectors(exported):
    model = open_model(exported[0])
    random = np.random.default_rng(3)
    late = random.normal(0, 1, (13, 96)).astype(np.float32)
    outputs = [
        model.run(np.concatenate((random.normal(0, 1, (20, 96)), late)).astype(np.float32))[-1]
        for _ in range(2)
    ]
    assert np.array_equal(*outputs)


def test_a_joined_head_gives_what_the_spotter_computes(exported):
    samples = sounds.voice(3.0)
    joined = with_embedding(open_model(exported[0]))
    assert joined.manifest.takes is None
    assert joined.manifest.call_samples == 1280
    posteriors = joined.run(Features(joined.manifest.features).whole(samples))
    assert len(posteriors) == 37
    spotter = Spotter(open_model(exported[0]), gate=False)
    spotter.process(samples)
    smoothed = posteriors[-4:].mean(axis=0)
    assert spotter.posteriors == pytest.approx({"one": smoothed[1], "two": smoothed[2]}, abs=1e-6)


def test_a_model_of_frames_is_joined_to_nothing():
    model = open_model("commands")
    assert with_embedding(model) is model


def test_a_head_that_disagrees_is_not_written(network, vectors, tmp_path, monkeypatch):
    from kws_export import head
    from kws_export.verify import Agreement

    monkeypatch.setattr(head, "verify", lambda *_: Agreement(0.5, 0.9, 100))
    manifest = head.head_manifest(
        network, name="a", description="", keywords=("one", "two"), decision=DecisionDefaults()
    )
    with pytest.raises(ModelError, match=r"Received: 50.00%"):
        head.export_head(network, tmp_path / "a.tflite", manifest=manifest, examples=vectors)
    assert not list(tmp_path.iterdir())
