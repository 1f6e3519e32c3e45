import io

import pytest

from kws.events import Detection, End, NearMiss, StateChange
from kws.sinks.text import Text, describe

STOP = Detection(keyword="stop", score=0.9712, start_s=12.34, end_s=12.81, model="commands")


def test_a_detection_is_one_aligned_line():
    stream = io.StringIO()
    sink = Text(stream, keywords=("stop", "forward"))
    sink.send(STOP)
    sink.send(
        Detection(keyword="forward", score=0.5, start_s=3600.0, end_s=3600.6, model="commands")
    )
    sink.close()
    assert stream.getvalue() == (
        "   12.34 -   12.81 s  stop     0.97\n"
        " 3600.00 - 3600.60 s  forward  0.50\n"
    )  # fmt: skip


def test_the_end_is_left_to_the_command():
    stream = io.StringIO()
    Text(stream).send(End(audio_s=1.0, detections=0, cpu_s=0.1))
    assert stream.getvalue() == ""


def test_each_line_is_flushed():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")
    Text(stream).send(STOP)
    assert raw.getvalue().endswith(b"0.97\n")


def test_characters_the_terminal_lacks_are_escaped():
    raw = io.BytesIO()
    word = Detection(keyword="größe", score=0.5, start_s=0.0, end_s=1.0, model="m")
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Text(stream, keywords=("größe",)).send(word)
    assert raw.getvalue() == b"    0.00 -    1.00 s  gr\\xf6\\xdfe  0.50\n"


def test_closing_leaves_the_stream_open():
    stream = io.StringIO()
    Text(stream).close()
    assert not stream.closed


def test_a_reader_that_left_is_a_broken_pipe(broken_pipe):
    with pytest.raises(BrokenPipeError):
        Text(broken_pipe).send(STOP)


def test_a_near_miss_of_the_daemon_is_described_in_a_line():
    event = NearMiss(keyword="go", score=0.4, start_s=1.0, end_s=1.5, model="m", source="hall")
    assert describe(event) == "hall: near miss of go 0.40, 1.0-1.5 s"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (STOP, "daemon: stop 0.97, 12.34-12.81 s"),
        (
            End(audio_s=2.0, detections=3, cpu_s=0.1, source="mic"),
            "mic: ended after 2.0 s, 3 detections",
        ),
        (
            StateChange(
                event="stalled", time="2026-01-31T12:00:00.000Z", source="mic", detail="Why."
            ),
            "mic: stalled 2026-01-31T12:00:00.000Z Why.",
        ),
        (
            StateChange(event="stop", time="2026-01-31T12:00:00.000Z"),
            "daemon: stop 2026-01-31T12:00:00.000Z",
        ),
    ],
)
def test_an_event_of_the_daemon_is_a_line(event, line):
    assert describe(event) == line
