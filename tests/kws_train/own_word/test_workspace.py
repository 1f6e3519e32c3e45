"""A working folder belongs to one request."""

import re
from pathlib import Path

import msgspec
import pytest

from kws.errors import ConfigError
from kws_train.own_word.workspace import Request, Workspace

REQUEST = Request(phrases=("hey robot",), speech=(Path("speech"),), minutes=10)


def test_the_same_request_goes_on(tmp_path):
    workspace = Workspace(tmp_path / "work")
    assert workspace.begin(REQUEST) is False
    assert workspace.begin(REQUEST) is True


def test_another_request_is_refused_and_says_what_differs(tmp_path):
    workspace = Workspace(tmp_path / "work")
    workspace.begin(REQUEST)
    with pytest.raises(ConfigError, match="Received: another phrases, minutes than in"):
        workspace.begin(msgspec.structs.replace(REQUEST, phrases=("hey you",), minutes=30))


def test_the_request_is_read_from_the_folder(tmp_path):
    workspace = Workspace(tmp_path / "work")
    workspace.begin(REQUEST)
    assert workspace.read_request() == REQUEST


def test_a_folder_of_an_earlier_version_is_refused(tmp_path):
    """Its subfolders have other names, and would be taken for missing."""
    content = msgspec.json.encode(REQUEST, enc_hook=str)
    (tmp_path / "request.json").write_bytes(content)
    message = (
        f"A working folder can only be continued by the version of kws that began it. Received: "
        f"{tmp_path}, begun by another one. Give another --work or --out, or remove {tmp_path}."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Workspace(tmp_path).begin(REQUEST)


def test_a_folder_from_before_there_was_a_choice_of_formats_goes_on(tmp_path):
    workspace = Workspace(tmp_path / "work")
    workspace.begin(REQUEST)
    path = workspace.folder / "request.json"
    content = msgspec.json.decode(path.read_bytes())
    assert content.pop("format") == "kws"
    path.write_bytes(msgspec.json.encode(content))
    assert workspace.begin(REQUEST) is True
    with pytest.raises(ConfigError, match="Received: another format than in"):
        workspace.begin(msgspec.structs.replace(REQUEST, format="microwakeword"))


def test_minutes_add_up_over_interrupted_calls(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    assert workspace.training_minutes == 0.0
    now = iter([0.0, 90.0, 1000.0, 1060.0])
    monkeypatch.setattr("kws_train.own_word.workspace.time.monotonic", lambda: next(now))
    with pytest.raises(KeyboardInterrupt), workspace.count_training_time():
        raise KeyboardInterrupt
    assert workspace.training_minutes == 1.5
    with workspace.count_training_time():
        pass
    assert workspace.training_minutes == 2.5


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="must be a folder that can be written to"):
        Workspace(tmp_path / "file" / "work").begin(REQUEST)
