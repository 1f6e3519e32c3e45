import logging
import os

import pytest

from kws.command_lines import doubtful_words, interpreter_problem, shell_operator
from kws.config import HookSettings, SourceSettings, load_config, parse_config
from kws.daemon.loaded_config import LoadedConfig
from kws.errors import ConfigError, DeviceError, HookError
from kws.sinks.hooks import Hooks
from kws.sources.command import check_command


@pytest.mark.parametrize(
    ("command", "operator"),
    [
        ("echo heard > heard.txt", ">"),
        ("echo heard >heard.txt", ">heard.txt"),
        ("play a.wav 2>/dev/null", "2>/dev/null"),
        ("play a.wav 2>&1", "2>&1"),
        ("play a.wav &> /dev/null", "&>"),
        ("arecord -t raw | sox - out.wav", "|"),
        ("cat < in.txt", "<"),
        ("light on && sleep 5", "&&"),
        ("light on || true", "||"),
        ("light on; light off", ";"),
        ("light on &", "&"),
        ("curl http://host/?a=1&b=2", None),
        ("grep a|b file", None),
        ("echo 'a > b' \"c | d\"", None),
        ('echo --text="a > b" it\\\'s', None),
        ("echo \\> \\;", None),
        ("sh -c 'echo heard > heard.txt'", None),
        ("echo 'no partner > x", ">"),
        ("", None),
    ],
)
def test_operators_of_a_shell_outside_quotes_are_found(command, operator):
    assert shell_operator(command) == operator


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("notify-send $KWS_KEYWORD", ["$KWS_KEYWORD"]),
        ('notify-send "heard ${KWS_KEYWORD}" $(date)', ["${KWS_KEYWORD}", "$(date)"]),
        ("notify-send '$KWS_KEYWORD' \\$HOME 5$ $5", []),
        ('sh -c "echo $KWS_KEYWORD"', []),
        (["sh", "-c", "echo $KWS_KEYWORD > x"], []),
        (["/usr/bin/env", "bash", "-ec", "echo $KWS_KEYWORD"], []),
        (["echo", "heard", ">", "$HOME/heard.txt"], [">", "$HOME"]),
        (["echo", "a > b"], []),
        ("echo 'no partner $X", []),
    ],
)
def test_what_only_a_shell_understands_is_found(command, words):
    assert doubtful_words(command) == words


def test_a_hook_with_an_operator_is_refused_when_it_is_made():
    with pytest.raises(HookError) as refused:
        HookSettings(command="echo heard $KWS_KEYWORD > heard.txt")
    assert str(refused.value) == (
        "A hook's `command` is run by a shell only with `shell = true`. Received: `>` in "
        "`echo heard $KWS_KEYWORD > heard.txt`. Set `shell = true`, or quote the `>`."
    )
    assert HookSettings(command="echo heard > heard.txt", shell=True)
    assert HookSettings(command=["echo", ">"])


def test_a_source_with_a_pipe_is_refused_when_the_configuration_is_read():
    with pytest.raises(ConfigError) as refused:
        parse_config("[source]\ncommand = 'arecord -t raw | sox - -t raw -'\n")
    assert str(refused.value) == (
        "The `command` of a source is not run by a shell. Received: `|` in "
        '`arecord -t raw | sox - -t raw -`. Write `command = ["sh", "-c", "…"]` with the line in '
        "the last string, or quote the `|`."
    )
    assert SourceSettings(command=["sh", "-c", "arecord -t raw | sox - -t raw -"])


def test_the_reading_of_a_file_warns_of_variables_once(tmp_path, caplog):
    path = tmp_path / "kws.toml"
    path.write_text(
        """
        [source]
        command = ["cat", "|", "$HOME/a.wav"]
        [[hooks]]
        command = "notify-send $KWS_KEYWORD secret"
        [[hooks]]
        command = "notify-send $KWS_KEYWORD"
        shell = true
        """
    )
    with caplog.at_level(logging.WARNING, "kws"):
        load_config(path)
    assert caplog.messages == [
        f"{path}: no shell runs the command `notify-send …`, which gets `$KWS_KEYWORD` as it "
        "stands. For a shell, set `shell = true`.",
        f"{path}: no shell runs the command `cat …`, which gets `|` `$HOME` as it stands. "
        'For a shell, run it by `["sh", "-c", "…"]`.',
    ]


def script(path, first_line):
    path.write_bytes(first_line + b"\necho heard\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("first_line", "problem"),
    [
        (b"#!/bin/sh", None),
        (b"#! /usr/bin/env sh", None),
        (b"#!/usr/bin/env -S sh -e", None),
        (b"\x7fELF", None),
        (b"#!/bin/sh\r", "`#!/bin/sh`, ends as on Windows: run `sed -i 's/\\r$//' {program}`"),
        (b"#!/no/such", "`#!/no/such`, names no program: install it, or correct the line"),
        (b"#!", "`#!`, names no program: install it, or correct the line"),
        (
            b"#!/usr/bin/env no-such",
            "`#!/usr/bin/env no-such`, names a program that is not on PATH: install it",
        ),
    ],
)
def test_a_script_without_its_interpreter_is_told_apart(tmp_path, first_line, problem):
    program = script(tmp_path / "heard", first_line)
    expected = problem and "its first line, " + problem.format(program=program)
    assert interpreter_problem(program) == expected
    assert interpreter_problem(str(tmp_path / "none")) is None


def test_hooks_and_sources_say_so_when_the_configuration_is_read(tmp_path):
    program = script(tmp_path / "heard", b"#!/bin/sh\r")
    problem = f"its first line, `#!/bin/sh`, ends as on Windows: run `sed -i 's/\\r$//' {program}`."
    with pytest.raises(HookError) as refused:
        Hooks([HookSettings(command=[program])], keywords=["stop"])
    assert str(refused.value) == (
        f"A hook's program must have its interpreter. Received: `{program}` in entry 1 of "
        f"[[hooks]]; {problem}"
    )
    with pytest.raises(DeviceError) as refused:
        check_command([program])
    assert str(refused.value) == (
        f"The program of a source must have its interpreter. Received: {program}; {problem}"
    )
    check_command([os.fspath(tmp_path / "to be installed later")])


def test_the_daemon_reads_no_configuration_with_such_a_source(tmp_path):
    program = script(tmp_path / "heard", b"#!/no/such")
    path = tmp_path / "kws.toml"
    path.write_text(f"[source]\ncommand = ['{program}']\n")
    with pytest.raises(DeviceError, match="names no program: install it"):
        LoadedConfig.read(path)
