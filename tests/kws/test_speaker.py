"""Verification of the speaker: one of the people of the demonstration enrols `computer`."""

import numpy as np
import pytest
from msgspec.structs import replace

from kws.commands.demo import load_demo
from kws.commands.enroll import enroll
from kws.commands.enrolment_takes import recordings_in
from kws.commands.record import write_take
from kws.config import SourceSettings
from kws.errors import ModelError
from kws.features import Features
from kws.gated_steps import Step
from kws.manifest import FeatureSettings, SpeakerCheck, read_manifest, repack
from kws.sources import open_source
from kws.speaker import N_STATISTICS, SpeakerVerifier, word_statistics
from kws.spotter import Spotter

RATE = 16_000
MARGIN_S = 0.12
OWN = 2


@pytest.fixture(scope="module")
def voices():
    """The word `computer` as seven people say it."""
    labels, path = load_demo(name="demo_computer")
    with open_source(SourceSettings(input=str(path))) as source:
        samples = np.concatenate(list(source))
    return [
        samples[round((one.start_s - MARGIN_S) * RATE) : round((one.end_s + MARGIN_S) * RATE)]
        for one in labels.words
    ]


def varied(samples, speed):
    at = np.arange(0, len(samples) - 1, speed)
    return np.interp(at, np.arange(len(samples)), samples).astype(np.int16)


@pytest.fixture(scope="module")
def enrolled(voices, tmp_path_factory):
    """Models of the word by one voice, with and without a check of the speaker."""
    folder = tmp_path_factory.mktemp("takes")
    for speed in (0.95, 0.98, 1.01, 1.04):
        write_take(folder, varied(voices[OWN], speed), speaker="me")
    models = tmp_path_factory.mktemp("models")
    takes = recordings_in([folder])
    enroll("computer", takes, models / "anybody.tflite")
    done = enroll("computer", takes, models / "me.tflite", only_me=True)
    return models / "anybody.tflite", models / "me.tflite", done


def stream(*words):
    room = np.random.default_rng(1).normal(0, 5, RATE).astype(np.int16)
    return np.concatenate([room, *(part for word in words for part in (word, room))])


def test_only_the_enrolled_speaker_is_detected_and_others_are_near_misses(enrolled, voices):
    anybody, me, _ = enrolled
    others = [one for i, one in enumerate(voices) if i != OWN]
    said = stream(varied(voices[OWN], 0.99), *others)
    n_anybody = len(list(Spotter(anybody).listen(said)))
    spotter = Spotter(me, near_miss_score=0.5)
    heard = list(spotter.listen(said))
    refused = [one for one in spotter.take_near_misses() if one.speaker is not None]
    assert n_anybody >= 3, "the word alone is heard from others, too"
    assert [one.end_s < 2.5 for one in heard] == [True]
    assert heard[0].speaker >= 0.7
    assert len(heard) + len(refused) == n_anybody
    assert all(one.speaker < 0.4 <= one.score for one in refused)


def test_a_refused_word_leaves_no_peak_and_the_next_one_is_detected(enrolled, voices):
    anybody, me, _ = enrolled
    assert list(Spotter(anybody).listen(stream(voices[0])))
    spotter = Spotter(me)
    heard = list(spotter.listen(stream(voices[0], varied(voices[OWN], 0.99))))
    assert len(heard) == 1
    assert [one.speaker for one in spotter.take_peaks()] == [heard[0].speaker]


def test_scores_do_not_depend_on_how_samples_are_cut(enrolled, voices):
    said = stream(varied(voices[OWN], 1.02))
    heard = []
    for size in (331, 1280, len(said)):
        spotter = Spotter(enrolled[1])
        chunks = [said[i : i + size] for i in range(0, len(said), size)]
        heard.append([one for chunk in chunks for one in spotter.process(chunk)] + spotter.flush())
    assert heard[0]
    assert heard[0] == heard[1] == heard[2]


def test_each_recording_is_compared_with_the_others(enrolled):
    scores = enrolled[2].speaker_scores
    assert len(scores) == 4
    assert min(scores.values()) > 0.6


def test_without_a_check_events_have_no_speaker(enrolled, voices):
    (heard,) = Spotter(enrolled[0]).listen(stream(varied(voices[OWN], 1.0)))
    assert heard.speaker is None


def test_a_verifier_needs_frames_that_reach_over_the_word(enrolled):
    manifest, _ = read_manifest(enrolled[1])
    verifier = SpeakerVerifier(manifest)
    assert verifier.score(RATE) == 0.0
    verifier.hear(Step(np.zeros((8, 32), np.float32), 10 * RATE, 0, 0))
    assert verifier.score(RATE) == 0.0, "the word was before what was heard"


def test_frames_before_a_gap_are_forgotten(enrolled, voices):
    manifest, _ = read_manifest(enrolled[1])
    frames = Features(manifest.features).whole(varied(voices[OWN], 1.0))
    end = round((len(voices[OWN]) / RATE - MARGIN_S) * RATE)
    whole, cut = SpeakerVerifier(manifest), SpeakerVerifier(manifest)
    for i in range(0, len(frames) - 8, 8):
        step = Step(frames[i : i + 8], i * 160, 0, 0)
        whole.hear(step)
        cut.hear(step._replace(n_lost=5 if i == 48 else 0))
    assert whole.score(end) > 0.5
    assert cut.score(end) != pytest.approx(whole.score(end), abs=0.05)


def test_statistics_do_not_depend_on_level():
    frames = np.random.default_rng(1).normal(0, 1, (60, 32))
    frames[20:45] += 6
    louder = word_statistics(frames + 3)
    assert word_statistics(frames).shape == (N_STATISTICS,)
    assert louder == pytest.approx(word_statistics(frames), abs=1e-9)


def changed(path, **changes):
    manifest, content = read_manifest(path)
    path.write_bytes(repack(content, replace(manifest, **changes)))
    return path


def test_weights_of_another_size_are_refused(enrolled, tmp_path):
    model = tmp_path / "short.tflite"
    model.write_bytes(enrolled[1].read_bytes())
    check = SpeakerCheck(weights=(1.0, 2.0), bias=0.0, threshold=0.4)
    with pytest.raises(ModelError, match=r"must be 140 numbers. Received: 2 in `me`. Enroll"):
        Spotter(changed(model, speaker=check))


def test_features_that_are_not_log_mel_are_refused(enrolled):
    manifest, _ = read_manifest(enrolled[1])
    with pytest.raises(ModelError, match=r"log-mel features of more than 28 values. Received"):
        SpeakerVerifier(replace(manifest, features=FeatureSettings()))
