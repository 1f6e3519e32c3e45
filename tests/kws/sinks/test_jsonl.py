import io
import json

import pytest

from kws.events import Detection, End
from kws.sinks.jsonl import JsonLines

STOP = Detection(keyword="stop", score=0.97, start_s=12.34, end_s=12.81, model="commands")
END = End(audio_s=60.0, detections=1, cpu_s=0.2)


def test_every_event_is_one_line_in_the_order_of_the_contract():
    stream = io.StringIO()
    sink = JsonLines(stream)
    sink.send(STOP)
    sink.send(END)
    sink.close()
    lines = [list(json.loads(line).items()) for line in stream.getvalue().splitlines()]
    assert lines == [
        [
            ("event", "detection"),
            ("keyword", "stop"),
            ("score", 0.97),
            ("start_s", 12.34),
            ("end_s", 12.81),
            ("model", "commands"),
        ],
        [("event", "end"), ("audio_s", 60.0), ("detections", 1), ("cpu_s", 0.2)],
    ]


def test_a_keyword_cannot_break_its_line():
    stream = io.StringIO()
    word = 'a"b\nc\u2028'
    JsonLines(stream).send(
        Detection(keyword=word, score=0.5, start_s=0.0, end_s=1.0, model="m"),
    )
    assert stream.getvalue().count("\n") == 1
    assert json.loads(stream.getvalue())["keyword"] == word


def test_each_line_is_flushed():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")
    JsonLines(stream).send(END)
    assert raw.getvalue().endswith(b"}\n")


def test_json_is_utf8_whatever_the_locale():
    raw = io.BytesIO()
    word = Detection(keyword="größe", score=0.5, start_s=0.0, end_s=1.0, model="m")
    stream = io.TextIOWrapper(raw, encoding="ascii")
    JsonLines(stream).send(word)
    assert json.loads(raw.getvalue().decode("utf-8"))["keyword"] == "größe"


def test_closing_leaves_the_stream_open():
    stream = io.StringIO()
    JsonLines(stream).close()
    assert not stream.closed


def test_a_reader_that_left_is_a_broken_pipe(broken_pipe):
    with pytest.raises(BrokenPipeError):
        JsonLines(broken_pipe).send(END)
