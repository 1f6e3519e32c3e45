"""A work folder belongs to one request."""

from pathlib import Path

import msgspec
import pytest

from kws.errors import ConfigError
from kws_train.own_word.workspace import Request, Work

REQUEST = Request(phrases=("hey robot",), speech=(Path("speech"),), minutes=10)


def test_the_same_request_goes_on(tmp_path):
    work = Work(tmp_path / "work")
    assert work.begin(REQUEST) is False
    assert work.begin(REQUEST) is True


def test_another_request_is_refused_and_says_what_differs(tmp_path):
    work = Work(tmp_path / "work")
    work.begin(REQUEST)
    with pytest.raises(ConfigError, match="Received: another phrases, minutes than"):
        work.begin(msgspec.structs.replace(REQUEST, phrases=("hey you",), minutes=30))


def test_minutes_add_up_over_interrupted_calls(tmp_path, monkeypatch):
    work = Work(tmp_path)
    assert work.minutes == 0.0
    now = iter([0.0, 90.0, 1000.0, 1060.0])
    monkeypatch.setattr("kws_train.own_word.workspace.time.monotonic", lambda: next(now))
    with pytest.raises(KeyboardInterrupt), work.timed():
        raise KeyboardInterrupt
    assert work.minutes == 1.5
    with work.timed():
        pass
    assert work.minutes == 2.5


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="must be a folder that can be written to"):
        Work(tmp_path / "file" / "work").begin(REQUEST)
