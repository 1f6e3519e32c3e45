"""The bundled speech embedding, as the runtime opens it."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws.commands.demo import load_demo
from kws.errors import ModelError
from kws.features import Features
from kws.model import StepModel, bundled_models, model_path, open_model
from kws.spotter import open_for_sources

PATH = model_path("speech_embedding")
GOLDEN = Path(__file__).parents[1] / "data" / "golden_speech_embedding.npz"


def embed(model, frames):
    model.reset()
    starts = range(0, len(frames) - 7, 8)
    return np.concatenate([model.step(frames[start : start + 8]) for start in starts])


def test_eight_frames_give_one_embedding():
    model = open_model(PATH)
    assert type(model) is StepModel
    assert model.n_outputs == 1
    assert model.manifest.embedding == 96
    assert model.manifest.call_ms == 80
    assert model.step(np.zeros((8, 32), np.float32)).shape == (1, 96)


def test_it_is_small_has_a_card_and_says_whose_it_is():
    manifest = open_model(PATH).manifest
    assert PATH.stat().st_size <= 400_000
    card = PATH.with_suffix(".md").read_text(encoding="utf-8")
    assert "`speech_embedding`" in card.splitlines()[0]
    assert "Google" in card
    assert manifest.name == "speech_embedding"
    assert manifest.licence == "Apache-2.0"
    assert any("Google" in source.name for source in manifest.data)


def test_it_is_not_listed_among_the_models_that_detect_words():
    assert "speech_embedding" not in bundled_models()


def test_info_names_what_it_gives_and_no_decision(kws):
    code, out, err = kws("info", "speech_embedding")
    assert (code, err) == (0, "")
    assert "output        embeddings of 96 values\n" in out
    titles = {line.split()[0] for line in out.splitlines()}
    assert titles & {"keywords", "labels", "decision", "calibration"} == set()


def test_listening_with_it_alone_is_refused():
    with pytest.raises(ModelError, match=r"^A model that detects keywords must have some\."):
        open_for_sources("speech_embedding")


def test_states_are_scaled_as_they_come_out():
    interpreter = open_model(PATH)._interpreter
    inputs = {one["name"]: one["quantization"] for one in interpreter.get_input_details()}
    outputs = {one["name"]: one["quantization"] for one in interpreter.get_output_details()}
    states = open_model(PATH).manifest.states
    assert len(states) == 11
    assert all(inputs[state.input] == outputs[state.output] for state in states)


def test_it_gives_its_golden_outputs_bit_for_bit():
    stored = np.load(GOLDEN)
    embeddings = embed(open_model(PATH, reference=True), stored["frames"])
    assert len(embeddings) >= 100
    assert np.array_equal(embeddings, stored["outputs"])


@pytest.mark.parametrize("reference", [False, True], ids=["fast", "reference"])
def test_each_value_correlates_with_the_published_networks_on_speech(published, reference):
    signal, _ = soundfile.read(load_demo()[1], dtype="int16")
    model = open_model(PATH, reference=reference)
    frames = Features(model.manifest.features).process(signal)
    # The first window of 76 frames that ends where a step does begins at the fifth frame.
    starts = range(4, len(frames) - 75, 8)
    windows = np.stack([frames[start : start + 76, :, None] for start in starts])
    wanted = published("embedding_model", windows)[:, 0, 0]
    embeddings = embed(model, frames)[9:]
    assert len(embeddings) == len(wanted) > 700
    correlations = [np.corrcoef(embeddings[:, i], wanted[:, i])[0, 1] for i in range(96)]
    assert min(correlations) >= 0.99


def test_embeddings_of_speech_are_standardised():
    signal, _ = soundfile.read(load_demo()[1], dtype="int16")
    model = open_model(PATH)
    embeddings = embed(model, Features(model.manifest.features).process(signal))[9:]
    assert np.abs(embeddings.mean(axis=0)).max() < 1.5
    assert 0.4 < np.median(embeddings.std(axis=0)) < 1.6


def test_reset_forgets_all_frames():
    model = open_model(PATH)
    frames = np.random.default_rng(1).normal(6, 2, (160, 32)).astype(np.float32)
    assert np.array_equal(embed(model, frames), embed(model, frames))
