import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws.commands.demo import LEAST_PEAK, load_demo, play, run
from kws.config import GateSettings
from kws.errors import ConfigError
from kws.events import Detection
from kws.manifest import DecisionDefaults, FeatureSettings, Manifest
from kws.matching import LabelledRecording, Matcher, Word, match
from kws.spotter import Spotter

KEYWORDS = ("stop", "go")


def said(word, start_s, end_s):
    return Word(word=word, start_s=start_s, end_s=end_s)


def heard(keyword, end_s):
    return Detection(keyword=keyword, score=0.9, start_s=end_s, end_s=end_s, model="m")


def counts(words, detections, **options):
    matches = match(words, detections, keywords=KEYWORDS, **options)
    return len(matches.hits), len(matches.missed), len(matches.false)


@pytest.mark.parametrize(
    ("end_s", "expected"),
    [(0.99, (0, 1, 1)), (1.0, (1, 0, 0)), (2.0, (1, 0, 0)), (2.01, (0, 1, 1))],
    ids=["before", "at the start", "half a second after the end", "later"],
)
def test_a_hit_lies_between_the_words_start_and_half_a_second_after_its_end(end_s, expected):
    assert counts([said("stop", 1.0, 1.5)], [heard("stop", end_s)]) == expected


def test_a_word_is_hit_only_once():
    assert counts([said("stop", 1, 1.5)], [heard("stop", 1.4), heard("stop", 1.6)]) == (1, 0, 1)


def test_another_keyword_does_not_hit():
    assert counts([said("stop", 1, 1.5)], [heard("go", 1.4)]) == (0, 1, 1)


def test_words_that_are_no_keywords_cannot_be_missed():
    assert counts([said("house", 1, 1.5)], []) == (0, 0, 0)
    assert counts([said("house", 1, 1.5)], [heard("stop", 1.4)]) == (0, 0, 1)


def test_two_detections_in_the_overlap_of_two_words_hit_both():
    words = [said("go", 1.0, 1.8), said("go", 1.1, 1.3)]
    assert counts(words, [heard("go", 1.2), heard("go", 2.2)]) == (2, 0, 0)


def test_the_tolerance_can_be_chosen():
    assert counts([said("stop", 1, 1.5)], [heard("stop", 1.6)], tolerance_s=0.05) == (0, 1, 1)


def test_marks_tell_a_mistaken_word_from_a_detection_out_of_nothing():
    words = [said("stop", 1, 1.5), said("house", 3, 3.5)]
    matcher = Matcher(words, keywords=KEYWORDS)
    times = [("stop", 1.4), ("stop", 1.6), ("go", 1.7), ("go", 3.2), ("go", 6.0)]
    marks = [matcher.mark(heard(*it)) for it in times]
    assert marks == ["ok", "false", "wrong", "wrong", "false"]
    assert len(matcher.result().false) == 4


SPANS = st.lists(st.tuples(st.sampled_from(KEYWORDS), st.integers(0, 12), st.integers(1, 4)))
TIMES = st.lists(st.tuples(st.sampled_from(KEYWORDS), st.integers(0, 18)), max_size=5)


@given(SPANS.map(lambda spans: spans[:5]), TIMES)
def test_no_other_pairing_hits_more_words(spans, times):
    words = [said(word, start, start + length) for word, start, length in spans]
    detections = [heard(word, at) for word, at in times]

    def most(left, remaining):
        if not remaining:
            return 0
        first, *rest = remaining
        fits = [
            i
            for i, word in enumerate(left)
            if word.word == first.keyword and word.start_s <= first.end_s <= word.end_s + 0.5
        ]
        return max([most(left, rest)] + [1 + most(left[:i] + left[i + 1 :], rest) for i in fits])

    matches = match(words, detections, keywords=KEYWORDS)
    assert len(matches.hits) == most(words, detections)
    assert len(matches.hits) + len(matches.missed) == len(words)
    assert len(matches.hits) + len(matches.false) == len(detections)


def write_demo(folder, text):
    (folder / "demo.json").write_text(text)


def test_labels_and_recording_are_found_and_unknown_keys_ignored(tmp_path):
    word = {"word": "stop", "start_s": 1, "end_s": 1.5, "speaker": 7}
    text = {"recording": "demo.wav", "duration_s": 3.0, "words": [word], "voice": "x"}
    write_demo(tmp_path, json.dumps(text))
    labels, recording = load_demo(tmp_path)
    assert labels == LabelledRecording(
        recording="demo.wav", duration_s=3.0, words=[said("stop", 1.0, 1.5)]
    )
    assert recording == tmp_path / "demo.wav"


def test_missing_and_damaged_labels_are_a_fault_of_the_installation(tmp_path):
    with pytest.raises(ConfigError) as missing:
        load_demo(tmp_path)
    assert str(missing.value) == (
        f"The demo needs its labels, demo.json. Received: [Errno 2] No such file or directory: "
        f"'{tmp_path / 'demo.json'}'. Run `pip install --force-reinstall kws`."
    )
    write_demo(tmp_path, '{"recording": 3}')
    with pytest.raises(ConfigError, match=re.escape("Received: Expected `str`, got `int` - at")):
        load_demo(tmp_path)


class LoudIsStop:
    """A model without a network: a frame of more than so much energy is `stop`."""

    n_outputs = 1
    manifest = Manifest(
        name="loud",
        labels=("_silence_", "stop", "go"),
        kind="step",
        features=FeatureSettings(),
        n_frames=1,
        hop_frames=1,
        decision=DecisionDefaults(smoothing_ms=20),
    )

    def reset(self):
        pass

    def step(self, frames):
        return np.eye(3, dtype=np.float32)[[int(frames[0, 0] > 15)]]


class Told(LoudIsStop):
    """A model that gives posteriors of `stop` and `go`, frame by frame, as it is told."""

    def __init__(self, *rises):
        self._rises = rises
        self._n_frames = 0

    def step(self, frames):
        at_s = self._n_frames / 100
        self._n_frames += 1
        row = np.zeros((1, 3), np.float32)
        for start_s, end_s, label, posterior in self._rises:
            if start_s <= at_s < end_s:
                row[0, label] = posterior
        return row


def played(*rises, words):
    spotter = Spotter(
        Told(*rises),
        gate=GateSettings(enabled=False),
        threshold=0.85,
        near_miss_score=LEAST_PEAK,
    )
    labels = LabelledRecording(recording="demo.wav", duration_s=4.0, words=words)
    printed = []
    matches = play(np.split(np.zeros(64_000, np.int16), 50), spotter, labels, echo=printed.append)
    return printed, matches


def test_every_miss_says_how_near_it_came():
    words = [said("stop", 0.5, 0.8), said("go", 1.5, 1.8), said("go", 2.4, 2.6)]
    printed, _ = played(
        (0.6, 0.8, 1, 0.9), (1.6, 1.7, 2, 0.4), (1.8, 2.0, 2, 0.61), (3.5, 3.6, 2, 0.7), words=words
    )
    assert [line.split(maxsplit=1)[1] for line in printed[:3]] == [
        "s  stop       0.90  ok",
        "s  go               missed: peak 0.61 of 0.85",
        "s  go               missed: peak below 0.02 of 0.85",
    ]
    assert max(map(len, printed)) < 80


def test_a_miss_says_which_other_word_was_detected():
    printed, _ = played((0.6, 0.8, 1, 0.9), (0.6, 0.8, 2, 0.05), words=[said("go", 0.5, 0.8)])
    assert printed[0].endswith("stop       0.90  wrong")
    assert printed[1].endswith("go               missed: peak below 0.02 of 0.85, detected as stop")


def test_the_bundled_recordings_are_explained_to_the_end(monkeypatch):
    monkeypatch.setattr("kws.commands.demo.as_typed", lambda name: f".venv/bin/{name}")
    printed = []
    run(echo=printed.append)
    text = "\n".join(printed)
    assert text.count(" missed: peak 0.") == text.count(" missed: peak ") == 3
    assert re.search(
        r"7 matched, 3 missed, 0 false; .*\nWith --threshold 0.6: 8 matched, 2 mi", text
    )
    assert text.count("computer   0.") == 7
    assert "7 matched, 0 missed, 0 false" in text
    assert max(map(len, text.split("\n"))) <= 80
    for part in ("Matched: ", "Missed: ", "False: ", "What to try next:", "  .venv/bin/kws listen"):
        assert part in text


def test_the_recording_of_the_wake_word_is_small_and_whole():
    labels, path = load_demo(name="demo_computer")
    assert path.stat().st_size < 300_000
    assert path.stat().st_size == pytest.approx(44 + 32_000 * labels.duration_s, abs=2)
    assert [word.word for word in labels.words] == ["computer"] * 7


def test_the_demo_prints_a_line_for_each_detection_each_miss_and_the_totals():
    samples = np.zeros(4 * 16_000, np.int16)
    tone = (9000 * np.sin(np.arange(4000) / 5)).astype(np.int16)
    for start_s in (0.5, 2.0):
        samples[int(start_s * 16_000) :][:4000] = tone
    words = [said("stop", 0.5, 0.8), said("go", 1.0, 1.2), said("go", 3.2, 3.5)]
    labels = LabelledRecording(recording="demo.wav", duration_s=4.0, words=words)
    spotter = Spotter(LoudIsStop(), gate=GateSettings(enabled=False), near_miss_score=LEAST_PEAK)
    printed = []
    matches = play(np.split(samples, 50), spotter, labels, echo=printed.append)
    assert (len(matches.hits), len(matches.missed), len(matches.false)) == (1, 2, 1)
    assert [line.split()[0:1] + line.split()[2:5] for line in printed[:4]] == [
        ["0.51", "stop", "0.50", "ok"],
        ["2.00", "stop", "0.50", "false"],
        ["1.20", "go", "missed:", "peak"],
        ["3.50", "go", "missed:", "peak"],
    ]
    assert re.fullmatch(
        r"1 matched, 2 missed, 1 false; \d+\.\d ms CPU per second of audio", printed[4]
    )


def test_a_word_at_the_very_end_of_the_recording_is_heard():
    tone = (9000 * np.sin(np.arange(420) / 5)).astype(np.int16)
    labels = LabelledRecording(
        recording="demo.wav", duration_s=0.1, words=[said("stop", 0.0, 0.02)]
    )
    spotter = Spotter(LoudIsStop(), gate=GateSettings(enabled=False))
    assert spotter.process(tone[:399]) == []
    spotter.reset()
    assert len(play([tone[:399]], spotter, labels, echo=str).hits) == 1


def test_detections_are_printed_as_they_are_found():
    """Not at the end: the line is there before the next chunk is asked for."""
    printed, seen = [], []

    def chunks():
        yield np.zeros(16_000, np.int16)
        yield (9000 * np.sin(np.arange(4000) / 5)).astype(np.int16)
        seen.extend(printed)

    labels = SimpleNamespace(words=[said("stop", 1.0, 1.2)])
    play(
        chunks(),
        Spotter(LoudIsStop(), gate=GateSettings(enabled=False)),
        labels,
        echo=printed.append,
    )
    assert len(seen) == 1
