"""Label files of both kinds are read, and what is wrong with one is said."""

import re
from pathlib import Path

import pytest

import kws.models
from kws.errors import ConfigError
from kws.matching import Word
from kws_train.evaluate.label_files import labelled_stream, read_labels

MODELS = Path(kws.models.__path__[0])
RULE = (
    "A label file must hold a word a line, as Audacity exports labels (start, end and word, with "
    'tabs between) or as JSON ({"word": "stop", "start_s": 1.2, "end_s": 1.7}). '
)


@pytest.mark.parametrize(
    "text",
    [
        "1.5\t2.000000\tstop\n\\\t100.0\t200.0\n0.25\t0.5\tgo \n",
        '{"word":"stop","start_s":1.5,"end_s":2.0}\n\n{"word":"go","start_s":0.25,"end_s":0.5}\n',
    ],
    ids=["Audacity", "JSON lines"],
)
def test_labels_are_read_by_time(tmp_path, text):
    (tmp_path / "labels").write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / "labels") == [
        Word(word="go", start_s=0.25, end_s=0.5),
        Word(word="stop", start_s=1.5, end_s=2.0),
    ]


def test_the_labels_of_the_demonstration_are_read():
    stream = labelled_stream(MODELS / "demo.wav", MODELS / "demo.json")
    assert stream.words
    assert stream.name == "demo"


@pytest.mark.parametrize("line", ["1.0 2.0 stop", "one\ttwo\tstop", '{"word":"stop"}', "1\t2"])
def test_a_line_that_is_no_label_is_named(tmp_path, line):
    path = tmp_path / "labels.txt"
    path.write_text(f"0.1\t0.2\tgo\n{line}\n", encoding="utf-8")
    message = f"{RULE}Received: line 2 of {path}, {line!r}. Correct it."
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        read_labels(path)


def test_a_label_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=rf"^{re.escape(RULE)}Received: {tmp_path}/none \("):
        read_labels(tmp_path / "none")


@pytest.mark.parametrize(("start", "end"), [("2", "1"), ("-1", "1"), ("nan", "1")])
def test_a_word_that_ends_before_it_starts_is_refused(tmp_path, start, end):
    path = tmp_path / "labels.txt"
    path.write_text(f"{start}\t{end}\tgo\n", encoding="utf-8")
    message = (
        f"A word must start at 0 s or later and end after that. Received: `go` from {start} to "
        f"{end} s in {path}. Correct that label."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        read_labels(path)


def test_labels_of_another_recording_are_refused(tmp_path, make_tone):
    audio = make_tone(tmp_path / "a.wav", hz=300)
    (tmp_path / "labels.txt").write_text("5.0\t6.0\tgo\n", encoding="utf-8")
    message = (
        f"Labels must lie within the audio. Received: `go` to 6 s in {tmp_path}/labels.txt, "
        f"{audio} lasting 1 s. Give the label file of this recording."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        labelled_stream(audio, tmp_path / "labels.txt")
