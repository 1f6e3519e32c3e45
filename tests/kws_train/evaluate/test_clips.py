"""Clips are sorted right, and counted right: read-out, confusion, reliability."""

import re

import msgspec
import numpy as np
import pytest

from kws.errors import ConfigError
from kws_train.evaluate.clips import classify, evaluate_clips, labelled_clips, reliability

LABELS = ("_silence_", "_unknown_", "go", "stop")
LOW_HZ, MIDDLE_HZ, HIGH_HZ = 300, 1300, 5000


def test_a_word_is_read_out_by_its_peak_and_silence_by_its_lowest_point():
    posteriors = np.zeros((20, 4))
    posteriors[:, 0] = 1.0
    assert classify(posteriors, LABELS) == (0, pytest.approx(1.0))
    posteriors[8:14] = [0.1, 0.1, 0.1, 0.7]
    assert classify(posteriors, LABELS) == (3, pytest.approx(0.7))


def test_one_frame_is_not_enough_to_be_read_out():
    posteriors = np.zeros((20, 4))
    posteriors[:, 0] = 1.0
    posteriors[9] = [0.1, 0.0, 0.9, 0.0]
    assert classify(posteriors, LABELS)[0] == 0


def test_clips_are_counted_by_true_and_heard_label(tmp_path, make_tone, pitch):
    make_tone(tmp_path / "go" / "a.wav", hz=LOW_HZ)
    make_tone(tmp_path / "go" / "b.wav", hz=MIDDLE_HZ)
    make_tone(tmp_path / "_silence_" / "1.wav", hz=LOW_HZ, amplitude=0)
    (tmp_path / "go" / "c.wav").write_bytes(b"not audio")
    scores = evaluate_clips(pitch, tmp_path, split="all", model_bytes=7)
    assert scores.n == 3
    assert scores.accuracy == pytest.approx(2 / 3)
    assert scores.recall == {"_silence_": 1.0, "go": 0.5}
    assert scores.confusion[2] == [0, 0, 1, 1]
    assert scores.unreadable == [str(tmp_path / "go" / "c.wav")]
    assert scores.model_bytes == 7


def test_what_a_model_of_keywords_alone_does_not_take_for_one_is_unknown(
    tmp_path, make_tone, pitch
):
    """Models of other tools have no label for other words."""
    labels = pitch.manifest.labels[2:]
    pitch.manifest = msgspec.structs.replace(pitch.manifest, labels=labels)
    step = pitch.step
    pitch.step = lambda frames: step(frames)[:, 2:]
    make_tone(tmp_path / "go" / "a.wav", hz=LOW_HZ)
    make_tone(tmp_path / "stop" / "a.wav", hz=MIDDLE_HZ)
    make_tone(tmp_path / "bird" / "a.wav", hz=HIGH_HZ)
    scores = evaluate_clips(pitch, tmp_path, split="all")
    assert scores.labels == ["go", "stop", "_unknown_"]
    assert scores.confusion == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_folders_of_other_words_are_unknown(tmp_path, make_tone, pitch):
    make_tone(tmp_path / "bird" / "a.wav", hz=HIGH_HZ)
    assert labelled_clips(tmp_path, labels=LABELS, split="all")[0][1] == "_unknown_"


def test_a_folder_without_clips_is_refused(tmp_path, make_tone, pitch):
    message = (
        "A folder to evaluate on must hold word/clip files of the split `test`. Received: "
        f"{tmp_path} with none. Give another folder, or `--split all`."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        labelled_clips(tmp_path, labels=LABELS, split="test")


def test_reliability_compares_scores_with_how_often_they_are_right():
    scores = reliability([0.95, 0.95, 0.95, 0.95, 0.25], [True, True, True, False, False])
    assert [(one.low, one.n, one.accuracy) for one in scores.bins] == [
        (0.2, 1, 0.0),
        (0.9, 4, 0.75),
    ]
    assert scores.expected_error == pytest.approx((4 * 0.2 + 0.25) / 5)


def test_a_score_of_one_is_in_the_last_bin_and_no_scores_are_no_error():
    assert reliability([1.0], [True]).bins[0].high == 1.0
    assert reliability([], []).expected_error == 0.0


def test_clips_in_folders_of_speakers_are_of_the_word(tmp_path):
    for name in ("yes/anna/1.wav", "yes/bert/1.wav", "no/1.wav", "tree/anna/1.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = labelled_clips(tmp_path, labels=["_silence_", "_unknown_", "yes", "no"], split="all")
    assert [(str(path.relative_to(tmp_path)), label) for path, label in found] == [
        ("no/1.wav", "no"),
        ("tree/anna/1.wav", "_unknown_"),
        ("yes/anna/1.wav", "yes"),
        ("yes/bert/1.wav", "yes"),
    ]
