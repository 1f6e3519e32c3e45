"""What a model says of clips: the bundled `commands`, and a model that hears pitch."""

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tiny
from sounds import RATE_HZ

from kws.errors import ConfigError, ModelError
from kws.features import Features
from kws.manifest import SILENCE, UNKNOWN
from kws.model import model_path, open_model, with_embedding
from kws_train.data.audio_files import read_samples
from kws_train.data.corpus import Clip, Corpus
from kws_train.data.front_ends import speech_embedding
from kws_train.evaluate.clips import label_scores
from kws_train.fit import soft_targets
from kws_train.fit.soft_targets import has_soft_targets, taught_by, with_soft_targets
from kws_train.recipe import CtcRecipe, DecisionDefaults

COMMANDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
LABELS = [SILENCE, UNKNOWN, *COMMANDS]
WORD = Path(__file__).parents[3] / "tests/data/words/computer.flac"


def recipe_of(keywords, **tables):
    data = msgspec.structs.replace(tiny.RECIPE.data, keywords=keywords)
    recipe = msgspec.structs.replace(tiny.RECIPE, data=data)
    return tiny.changed(recipe, **{"fit": {"teacher": "commands"}, **tables})


@pytest.fixture
def corpus():
    """A word that is no command, and silence under the name of one."""
    word = read_samples(WORD)
    clips = {label: [] for label in LABELS[1:]}
    clips[UNKNOWN] = [Clip(UNKNOWN, "computer", WORD, word)]
    clips["stop"] = [Clip("stop", "stop", Path("silence.wav"), np.zeros(RATE_HZ, np.int16))]
    return Corpus(clips, [], [], {})


def soft_of(corpus, label):
    return corpus.clips[label][0].soft


def test_a_teacher_says_what_it_hears_whatever_the_clip_is_called(corpus, tmp_path):
    taught = with_soft_targets(corpus, model_path("commands"), labels=LABELS, folder=tmp_path)
    for label in (UNKNOWN, "stop"):
        soft = soft_of(taught, label)
        assert soft.shape == (12,)
        assert soft.sum() == pytest.approx(1.0)
        assert (soft > 0).all()
        assert soft[LABELS.index(SILENCE)] < 0.05, "a clip of a word is not silent"
    assert LABELS[int(soft_of(taught, UNKNOWN).argmax())] == UNKNOWN


@pytest.mark.slow
def test_a_head_teaches_although_it_knows_no_silence(tmp_path, unsettle, monkeypatch):
    from kws_export import head as export
    from kws_train.networks.embedding_head import embedding_head

    network = embedding_head(2)
    unsettle(network, seed=7)
    manifest = export.head_manifest(
        network,
        name="computer",
        description="",
        keywords=("computer",),
        decision=DecisionDefaults(),
    )
    head = tmp_path / "computer.tflite"
    monkeypatch.setattr(export, "MIN_AGREEMENT", 0.8)  # a random head is often undecided
    vectors = speech_embedding().vectors(np.tile(read_samples(WORD), 20)).astype(np.float32)
    examples = vectors[: len(vectors) // 20 * 20].reshape(-1, 20, 96)
    export.export_head(network, head, manifest=manifest, examples=examples)

    labels = [SILENCE, UNKNOWN, "computer"]
    clips = {UNKNOWN: [], "computer": [Clip("computer", "computer", WORD, read_samples(WORD))]}
    assert taught_by(recipe_of(["computer"], fit={"teacher": str(head)})) == head
    taught = with_soft_targets(Corpus(clips, [], [], {}), head, labels=labels, folder=tmp_path)
    soft = soft_of(taught, "computer")
    joined = with_embedding(open_model(head))
    second = np.zeros(RATE_HZ, np.int16)
    word = np.concatenate((second, second, read_samples(WORD), second[:8000]))
    posteriors = joined.run(Features(joined.manifest.features).whole(word))
    scores = label_scores(posteriors, joined.manifest.labels, output_ms=80)
    assert soft[0] < 0.01, "a clip of a word is not silent"
    assert soft[1:] == pytest.approx(scores / scores.sum(), abs=0.1)


def test_the_order_of_labels_is_the_recipes(corpus, tmp_path):
    first = with_soft_targets(corpus, model_path("commands"), labels=LABELS, folder=tmp_path)
    turned = with_soft_targets(corpus, model_path("commands"), labels=LABELS[::-1], folder=tmp_path)
    assert np.allclose(soft_of(first, UNKNOWN), soft_of(turned, UNKNOWN)[::-1])


def test_soft_targets_are_computed_once(corpus, tmp_path, monkeypatch):
    path = model_path("commands")
    first = with_soft_targets(corpus, path, labels=LABELS, folder=tmp_path)
    monkeypatch.setattr(soft_targets, "open_model", None)
    again = with_soft_targets(corpus, path, labels=LABELS, folder=tmp_path)
    assert np.array_equal(soft_of(first, UNKNOWN), soft_of(again, UNKNOWN))
    other = replace(corpus.clips["stop"][0], samples=np.ones(RATE_HZ, np.int16))
    changed = replace(corpus, clips=corpus.clips | {"stop": [other]})
    with pytest.raises(TypeError):  # other samples, so they are computed
        with_soft_targets(changed, path, labels=LABELS, folder=tmp_path)


@pytest.mark.parametrize("damage", ["short", "other"])
def test_a_file_that_holds_something_else_is_refused(corpus, tmp_path, damage):
    path = model_path("commands")
    with_soft_targets(corpus, path, labels=LABELS, folder=tmp_path)
    (kept,) = tmp_path.iterdir()
    received = "a damaged file"
    if damage == "short":
        kept.write_bytes(kept.read_bytes()[:60])
    else:
        np.save(kept, np.zeros((1, 3), np.float32))
        received = "float32 of shape (1, 3)"
    message = (
        f"A file of soft targets must hold float32 of shape (2, 12). Received: {received}, in "
        f"{kept}. Remove it; it is made again."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        with_soft_targets(corpus, path, labels=LABELS, folder=tmp_path)


def test_a_folder_that_cannot_be_written_to_is_an_error(corpus, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^Soft targets must go to a folder"):
        with_soft_targets(
            corpus, model_path("commands"), labels=LABELS, folder=tmp_path / "file" / "targets"
        )


def test_a_teacher_with_other_labels_is_refused():
    message = (
        f"A teacher must have the labels of the recipe. Received: {model_path('commands')}, with "
        "also down, go, left, no, off, on, right, up, yes and without start. Give another `[fit] "
        "teacher`, or the keywords of this one in `[data]`."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        taught_by(recipe_of(["stop", "start"]))


def test_a_teacher_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"^A model must be a bundled model's name or a file\."):
        taught_by(recipe_of(COMMANDS, fit={"teacher": str(tmp_path / "nowhere.tflite")}))


def test_a_model_file_does_not_teach_mixed_scenes_or_sequences():
    message = r"^A model file teaches single words that are not mixed\. Received: "
    with pytest.raises(ConfigError, match=message):
        taught_by(recipe_of(COMMANDS, augment={"mixup_share": 0.5}))
    recipe = msgspec.structs.replace(
        recipe_of(COMMANDS), model=CtcRecipe(), decision=DecisionDefaults(kind="ctc")
    )
    with pytest.raises(ConfigError, match=message):
        taught_by(recipe)


def test_a_run_folder_teaches_by_its_own_outputs(tmp_path):
    assert has_soft_targets(recipe_of(COMMANDS))
    assert not has_soft_targets(recipe_of(COMMANDS, fit={"teacher": str(tmp_path)}))
    assert not has_soft_targets(tiny.RECIPE)
