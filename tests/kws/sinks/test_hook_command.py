import os
import re
from pathlib import Path

import pytest

from kws.config import HookSettings
from kws.errors import HookError
from kws.sinks.hook_command import command_words, program_file

PLACE = "entry 1 of [[hooks]]"


def words(command, **settings):
    return command_words(HookSettings(keyword="*", command=command, **settings), place=PLACE)


def test_a_list_is_taken_as_it_is():
    assert words(["echo", "$HOME", "a b", ""]) == ["echo", "$HOME", "a b", ""]


def test_a_string_is_split_at_blanks_outside_quotes():
    line = """echo 'a b' "$HOME" c\\ d\\; true"""
    assert words(line) == ["echo", "a b", "$HOME", "c d;", "true"]


def test_a_shell_gets_the_string_untouched():
    line = """ echo "$KWS_KEYWORD" | cat # isn't split"""
    assert words(line, shell=True) == ["/bin/sh", "-c", line]


@pytest.mark.parametrize("command", ["", "  ", [], [""], ["", "x"]])
def test_an_empty_command_is_refused(command):
    with pytest.raises(HookError) as caught:
        words(command)
    assert str(caught.value) == (
        "A hook's `command` must name a program. Received: an empty one in entry 1 of [[hooks]]. "
        'Write one, such as `command = ["notify-send", "heard"]`.'
    )


def test_an_empty_shell_line_is_refused():
    with pytest.raises(HookError, match=r"must name a program"):
        words(" \n", shell=True)


def test_a_list_for_a_shell_is_refused():
    with pytest.raises(HookError) as caught:
        words(["echo", "a"], shell=True)
    assert str(caught.value) == (
        "With `shell = true` a hook's `command` must be one string. Received: a list in "
        "entry 1 of [[hooks]]. Write it as a shell line, or leave `shell` out."
    )


def test_an_open_quote_is_refused():
    with pytest.raises(HookError) as caught:
        words("echo 'a b")
    assert str(caught.value) == (
        "A hook's `command` must have its quotes in pairs. Received: `echo 'a b` in "
        "entry 1 of [[hooks]] (No closing quotation). Add the missing quote, or write it "
        "as a list of words."
    )


def test_a_nul_character_is_refused():
    with pytest.raises(HookError) as caught:
        words(["echo", "a\0b"])
    assert str(caught.value) == (
        "`command` of HookSettings must be free of NUL characters. Received: ['echo', 'a\\x00b']. "
        "Take them out."
    )


def test_a_program_is_found_on_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program_file(script(tmp_path / "ring").name, place=PLACE) == str(tmp_path / "ring")


def test_a_relative_path_starts_at_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script(tmp_path / "ring")
    assert program_file("./ring", place=PLACE) == str(tmp_path / "ring")
    monkeypatch.setenv("PATH", "bin:.")
    assert program_file("ring", place=PLACE) == str(tmp_path / "ring")


def test_root_runs_no_program_that_every_user_may_change(tmp_path, monkeypatch):
    program = script(tmp_path / "ring")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert program_file(str(program), place=PLACE) == str(program)
    program.chmod(0o757)
    with pytest.raises(HookError) as caught:
        program_file(str(program), place=PLACE)
    assert str(caught.value) == (
        f"The program in entry 1 of [[hooks]] of root must not be writable by every user. "
        f"Received: {program}, where {program} has mode 757. Run `chmod o-w {program}`."
    )


def test_a_program_not_on_path_is_refused():
    with pytest.raises(HookError) as caught:
        program_file("no-such-program", place=PLACE)
    assert str(caught.value) == (
        "A hook's program must exist and be executable. Received: `no-such-program` in "
        "entry 1 of [[hooks]] (not on PATH). Install it, or write its whole path."
    )
    assert caught.value.exit_code == 5


def test_a_path_that_does_not_exist_is_refused():
    with pytest.raises(HookError) as caught:
        program_file("/no/such/program", place=PLACE)
    assert str(caught.value) == (
        "A hook's program must exist and be executable. Received: `/no/such/program` in "
        "entry 1 of [[hooks]] (No such file or directory). Correct the path."
    )


def test_a_relative_path_that_does_not_exist_is_refused_with_where_it_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HookError) as caught:
        program_file("~/ring", place=PLACE)
    assert str(caught.value) == (
        "A hook's program must exist and be executable. Received: `~/ring` in "
        f"entry 1 of [[hooks]] (No such file or directory). Write its whole path: this one "
        f"starts at {tmp_path}."
    )


def test_a_file_that_may_not_be_executed_is_refused(tmp_path):
    file = script(tmp_path / "ring it")
    file.chmod(0o644)
    with pytest.raises(HookError) as caught:
        program_file(str(file), place=PLACE)
    assert str(caught.value) == (
        f"A hook's program must exist and be executable. Received: `{file}` in "
        f"entry 1 of [[hooks]] (not executable). Run `chmod +x '{file}'`."
    )


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(HookError, match=re.escape("(not a file). Correct the path.")):
        program_file(str(tmp_path), place=PLACE)


def script(file: Path) -> Path:
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file
