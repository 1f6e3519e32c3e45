"""Sequences through the whole pipeline: a model made of wires that says which pitch it hears."""

from pathlib import Path

import numpy as np
import pytest
import sounds
from ctc_words import (
    build_utterances,
    edit_distance,
    evaluate_sequences,
    word_error_rate,
)

from kws.config import DecisionSettings, GateSettings
from kws.manifest import DecisionDefaults, FeatureSettings, Manifest
from kws.model import Model
from kws.spotter import Spotter

RATE_HZ = 16_000
LABELS = ("_silence_", "one", "two", "three")
PITCHES_HZ = {"one": 500, "two": 1500, "three": 3000}
FEATURES = FeatureSettings(kind="spectrogram", window_samples=256, n_fft=256, floor=1.0)

pytestmark = pytest.mark.slow


class Pitches(Model):
    """Posteriors by the loudest band of each frame."""

    n_outputs = 1

    def __init__(self):
        self.manifest = Manifest(
            name="pitches",
            labels=LABELS,
            kind="step",
            features=FEATURES,
            n_frames=2,
            hop_frames=2,
            decision=DecisionDefaults(kind="ctc", threshold=0.3),
        )

    def reset(self):
        pass

    def step(self, frames):
        posteriors = np.full((1, 4), 0.001, np.float32)
        loudest = int(frames[-1].argmax())
        hz = loudest * RATE_HZ / 256
        near = min(PITCHES_HZ, key=lambda word: abs(PITCHES_HZ[word] - hz))
        label = LABELS.index(near) if frames[-1].max() > 14 else 0
        posteriors[0, label] = 0.997
        return posteriors


@pytest.fixture(scope="module")
def utterances(tmp_path_factory) -> list:
    folder: Path = tmp_path_factory.mktemp("words")
    clips = []
    for word, hz in PITCHES_HZ.items():
        wave = sounds.tone_in_noise(hz, peak=8000, rms=0)
        clips.append((word, sounds.write(folder / f"{word}.wav", wave)))
    return build_utterances(clips, n=20, most_words=4)


def test_utterances_are_of_one_to_most_words_and_the_seed_decides_them(utterances):
    assert {len(words) for words, _ in utterances} == {1, 2, 3, 4}
    assert all(samples.dtype == np.int16 for _, samples in utterances)


def test_the_pipeline_spells_out_what_was_said(utterances):
    spotter = Spotter(Pitches(), gate=GateSettings(enabled=False))
    words, samples = next(one for one in utterances if len(one[0]) == 3)
    (detection,) = [*spotter.process(samples), *spotter.flush()]
    assert detection.keyword == " ".join(words)
    assert detection.score > 0.5
    sound = np.flatnonzero(np.abs(samples) > 1000) / RATE_HZ
    assert detection.start_s == pytest.approx(sound[0], abs=0.08)
    assert detection.end_s == pytest.approx(sound[-1], abs=0.08)


def test_events_do_not_depend_on_chunk_size(utterances):
    samples = np.concatenate([samples for _, samples in utterances[:5]])
    found = []
    for n in (1280, 777):
        spotter = Spotter(Pitches(), gate=GateSettings(enabled=False))
        pieces = [samples[i : i + n] for i in range(0, len(samples), n)]
        found.append([d for piece in pieces for d in spotter.process(piece)] + spotter.flush())
    assert found[0] == found[1]
    assert len(found[0]) == 5


def test_only_phrases_asked_for_are_detected(utterances):
    words, samples = next(one for one in utterances if len(one[0]) == 3)
    for phrase, n_heard in ((" ".join(words[:2]), 1), ("three three three three", 0)):
        settings = DecisionSettings(phrases=[phrase])
        spotter = Spotter(Pitches(), gate=GateSettings(enabled=False), decision=settings)
        assert spotter.keywords == (phrase,)
        detections = [*spotter.process(samples), *spotter.flush()]
        assert [one.keyword for one in detections] == [phrase] * n_heard


def test_scores_of_a_model_that_mishears_nothing(utterances):
    scores = evaluate_sequences(Pitches(), utterances)
    assert scores.n == 20
    assert scores.n_words == sum(len(words) for words, _ in utterances)
    assert set(scores.word_error_rate) == {"greedy", "beam", "runtime"}
    assert scores.sequence_accuracy["runtime"] == 1.0
    assert max(scores.word_error_rate.values()) == 0.0


def test_a_word_misheard_counts(utterances):
    class Deaf(Pitches):
        def step(self, frames):
            posteriors = super().step(frames)
            posteriors[:, [0, 3]] = (
                posteriors[:, [3, 0]] if posteriors[0, 3] > 0.5 else (posteriors[:, [0, 3]])
            )
            return posteriors

    scores = evaluate_sequences(Deaf(), utterances)
    n_three = sum(words.count("three") for words, _ in utterances)
    assert scores.word_error_rate["greedy"] == pytest.approx(n_three / scores.n_words)
    with_three = np.mean(["three" in words for words, _ in utterances])
    assert scores.sequence_accuracy["greedy"] == pytest.approx(1 - with_three)


@pytest.mark.parametrize(
    ("said", "heard", "wanted"),
    [("abc", "abc", 0), ("abc", "axc", 1), ("abc", "bc", 1), ("abc", "abcc", 1), ("", "ab", 2)],
)
def test_the_edit_distance_counts_changes(said, heard, wanted):
    assert edit_distance(list(said), list(heard)) == wanted


def test_the_word_error_rate_is_over_the_words_said():
    said, heard = [["one", "two"], ["three", "four"]], [["one"], ["three", "four", "one"]]
    assert word_error_rate(said, heard) == 0.5
