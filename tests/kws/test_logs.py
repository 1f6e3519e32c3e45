import json
import logging
import os
import sys

import pytest

from kws.logs import JournalFormatter, JsonFormatter, RepeatFilter, configure, last_words

LOG = logging.getLogger("kws.a_test")


@pytest.fixture(autouse=True)
def root_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message="it is %d", *args, level=logging.WARNING, **extra):
    made = logging.LogRecord("kws.a", level, "file.py", 1, message, args, None)
    vars(made).update(extra)
    return made


def test_json_lines_carry_the_message_and_what_programs_want(capsys):
    configure("json")
    LOG.warning("heard `%s`", "go", extra={"keyword": "go", "score": 0.9, "source": "mic"})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "kws.a_test",
        "message": "heard `go`",
        "keyword": "go",
        "score": 0.9,
        "source": "mic",
    }


def test_a_json_line_stays_one_line_and_keeps_what_json_has_no_word_for():
    text = JsonFormatter().format(record("two\nlines", path=os.sep, odd=object))
    assert "\n" not in text
    assert json.loads(text)["message"] == "two\nlines"
    assert json.loads(text)["odd"] == str(object)


def test_an_exception_is_in_its_json_line():
    try:
        int("why")
    except ValueError:
        made = record("it broke")
        made.exc_info = sys.exc_info()
    assert json.loads(JsonFormatter().format(made))["exception"].endswith(
        "literal for int() with base 10: 'why'"
    )


@pytest.mark.parametrize(
    ("level", "prefix"),
    [("DEBUG", 7), ("INFO", 6), ("WARNING", 4), ("ERROR", 3), ("CRITICAL", 2)],
)
def test_the_journal_is_told_the_level_of_every_line(level, prefix):
    made = record("one\ntwo", level=getattr(logging, level))
    assert JournalFormatter().format(made) == f"<{prefix}>one\n<{prefix}>two"


def test_levels_are_prefixed_only_if_standard_error_is_the_journal(monkeypatch, tmp_path):
    shown = {}
    for name in ("journal", "file"):
        with (tmp_path / name).open("w+") as stream:
            at = os.fstat(stream.fileno())
            there = f"{at.st_dev}:{at.st_ino + (name == 'file')}"
            monkeypatch.setenv("JOURNAL_STREAM", there)
            monkeypatch.setattr(sys, "stderr", stream)
            configure()
            LOG.warning("hot")
            stream.seek(0)
            shown[name] = stream.read()
    assert shown == {"journal": "<4>hot\n", "file": "WARNING: hot\n"}


def test_only_warnings_are_shown_unless_more_is_wanted(capsys):
    for verbose in (False, True):
        configure(verbose=verbose)
        LOG.info("by the way")
    assert capsys.readouterr().err == "INFO: by the way\n"


def test_a_warning_that_repeats_is_counted_and_the_count_told(monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr("kws.logs.time.monotonic", lambda: now_s[0])
    repeats = RepeatFilter(max_n=3, period_s=60)
    assert [repeats.filter(record("it is %d", i)) for i in range(8)] == [True] * 3 + [False] * 5
    assert all(repeats.filter(record(level=logging.INFO)) for _ in range(8))
    now_s[0] = 61.0
    late = record("it is %d", 9)
    assert repeats.filter(late)
    assert late.getMessage() == "it is 9 (5 more like it were left out.)"
    again = record("it is %d", 10)
    assert repeats.filter(again)
    assert again.getMessage() == "it is 10"


def test_other_lines_of_code_are_no_repeats():
    repeats = RepeatFilter(max_n=1)
    first, second = record(), record()
    second.lineno = 2
    assert repeats.filter(first)
    assert repeats.filter(second)


def test_memory_for_repeats_is_bounded():
    repeats = RepeatFilter()
    for i in range(2000):
        made = record()
        made.lineno = i
        repeats.filter(made)
    assert len(repeats._places) < 1000


def test_a_stream_that_takes_the_place_of_standard_error_is_used(capsys, monkeypatch, tmp_path):
    configure()
    with (tmp_path / "log").open("w+") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        LOG.warning("later")
        stream.seek(0)
        assert stream.read() == "WARNING: later\n"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("stderr", "shown"),
    [
        ("", ""),
        ("  one\n\ntwo\r\nthree\nfour\n", "two; three; four"),
        ("\x1b[2J\x9b1m\ta\x00", r"\x1b[2J\x9b1m\ta\x00"),
        (300 * "x", 200 * "x" + "..."),
        (200 * "x", 200 * "x"),
    ],
)
def test_last_words_are_escaped_and_cut_to_a_line_each(stderr, shown):
    assert last_words(stderr) == shown
