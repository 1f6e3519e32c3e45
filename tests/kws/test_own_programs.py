import sys

import pytest

from kws.own_programs import as_typed, with_own_pip


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An installation below the working directory, whose programs are not in PATH."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "pip", "kws"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    return programs


def test_a_program_that_is_not_in_path_is_named_by_its_path(environment, tmp_path, monkeypatch):
    assert as_typed("kws") == ".venv/bin/kws"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert as_typed("kws") == str(environment / "kws")


def test_a_program_in_path_is_named_alone_also_behind_a_link(environment, tmp_path, monkeypatch):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "kws").symlink_to(environment / "kws")
    monkeypatch.setenv("PATH", str(tmp_path / "links"))
    assert as_typed("kws") == "kws"


def test_another_program_of_that_name_is_not_taken_for_it(environment, tmp_path, monkeypatch):
    (tmp_path / "system").mkdir()
    (tmp_path / "system" / "pip").write_text("#!/bin/sh\n")
    (tmp_path / "system" / "pip").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "system"))
    assert as_typed("pip") == ".venv/bin/pip"
    assert with_own_pip("Run `pip install 'kws[ui]'`.") == (
        "Run `.venv/bin/pip install 'kws[ui]'`."
    )


def test_a_program_that_this_installation_lacks_is_named_alone(environment):
    (environment / "pip").unlink()
    assert with_own_pip("Run `pip install soxr`.") == "Run `pip install soxr`."
