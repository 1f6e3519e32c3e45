import re
import shutil
import sys

import pytest

from kws.errors import ModelError
from kws.model import bundled_models
from kws.model_check import check_model

COMMANDS = bundled_models()["commands"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "untrusted.tflite"
    shutil.copy(COMMANDS, path)
    return path


@pytest.fixture
def checks(tmp_path, monkeypatch):
    """Let a shell script stand for the subprocess; count its runs."""
    python, runs = tmp_path / "python", tmp_path / "runs"
    runs.touch()
    monkeypatch.setattr(sys, "executable", str(python))

    def end_with(script):
        python.write_text(f"#!/bin/sh\necho >> {runs}\n{script}\n")
        python.chmod(0o755)

    end_with("exit 0")
    return end_with, lambda: len(runs.read_text())


def refused(path):
    with pytest.raises(ModelError) as caught:
        check_model(path)
    return str(caught.value)


def test_a_good_model_passes_and_a_bad_one_has_the_error_of_open_model(file):
    check_model(file)
    file.write_bytes(b"not a model")
    assert refused(file) == (
        f"The model must be a whole .tflite file. Received: {file}, 11 bytes without its mark "
        f"TFL3. Copy it again, or make one with `kws export`."
    )


@pytest.mark.parametrize(
    ("script", "received"),
    [
        ("kill -SEGV $$", "SIGSEGV"),
        ("kill -ABRT $$", "SIGABRT"),
        ("echo terminate called >&2; exit 3", "exit status 3: terminate called"),
    ],
)
def test_a_model_that_ends_its_process_is_refused(file, checks, script, received):
    end_with, _ = checks
    end_with(script)
    assert refused(file) == (
        f"A model must open in a subprocess before it is used. Received: {received} from {file}. "
        f"The file is damaged or malicious: copy or export it again."
    )


def test_a_model_that_takes_too_long_is_refused(file, checks, monkeypatch):
    end_with, _ = checks
    end_with("exec sleep 60")
    monkeypatch.setattr("kws.model_check._WALL_S", 0.2)
    assert re.search(r"Received: no end within 0\.2 s", refused(file))


def test_a_model_is_checked_once_until_its_file_changes(file, checks):
    _, n_runs = checks
    check_model(file)
    check_model(file)
    assert n_runs() == 1
    file.write_bytes(file.read_bytes() + b"\0")
    check_model(file)
    assert n_runs() == 2


def test_the_bundled_models_are_trusted(checks):
    _, n_runs = checks
    check_model(COMMANDS)
    assert n_runs() == 0
