"""The `kws` command as a whole: its help, its options, completion in a shell."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kws.cli import cli
from kws.command_group import SECTIONS, WORKBENCH, Command


def every_command(group=cli, context=None):
    """Give the words after `kws` of every command and subcommand, and the command."""
    context = context or click.Context(group, info_name="kws")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (name,), command
        if isinstance(command, click.Group):
            inner = click.Context(command, info_name=name, parent=context)
            yield from (((name, *words), one) for words, one in every_command(command, inner))


COMMANDS = dict(every_command())


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")


@pytest.mark.usefixtures("terminal")
def test_the_help_lists_every_command_in_one_of_three_sections(kws):
    code, out, _ = kws("--help")
    assert code == 0
    found = {}
    for line in out.splitlines():
        if line.endswith(":"):
            section = found.setdefault(line[:-1], [])
        elif line.startswith("  ") and section is not None:
            section.append(line.split()[0])
        else:
            section = None
    assert [title for title in found if title in SECTIONS] == list(SECTIONS)
    listed = [name for section in SECTIONS for name in found[section]]
    assert sorted(listed) == sorted(name for (name, *rest) in COMMANDS if not rest)
    assert {"listen", "demo", "daemon"} <= set(found["Listen"])
    assert found["Your own word"] == ["record", "enroll", "new"]
    assert {"train", "export", "eval"} <= set(found["Workbench"])


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("words", [(), *COMMANDS], ids=" ".join)
def test_help_is_whole_in_80_columns(kws, words):
    code, out, _ = kws(*words, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert not [line for line in out.splitlines() if re.match(r"  .*\.\.\.$", line)]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_takes_h_and_v_and_every_option_has_a_help_text(words):
    command = COMMANDS[words]
    context = click.Context(command, **command.context_settings)
    assert context.help_option_names == ["-h", "--help"]
    assert any(parameter.opts == ["-v", "--verbose"] for parameter in command.params)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_a_command_called_without_its_group_keeps_its_help_option():
    command = Command("alone", callback=lambda: None)
    command.main(["--help"], standalone_mode=False, prog_name="alone")
    assert command.get_help_option(click.Context(command)).opts == ["-h", "--help"]
    assert command.section == WORKBENCH


@pytest.mark.parametrize("at", [0, 1, 6])
def test_verbose_may_stand_before_or_after_the_command(model, recording, at):
    words = ["listen", "--json", "--no-vad", "--model", str(model), str(recording)]
    words.insert(at, "-v")
    done = _kws(*words)
    assert done.stderr == f"INFO: Processed the first chunk of {recording}.\n"
    assert len(done.stdout.splitlines()) == 5, "two detections, their peaks, the end"


def test_verbose_and_the_format_of_the_logs_hold_together(model, recording):
    options = ("--json", "--no-vad", "--model", model, recording)
    for words in (
        ("listen", "-v", "--log-format", "json", *options),
        ("-v", "listen", "--log-format", "json", *options),
    ):
        done = _kws(*words)
        assert json.loads(done.stderr)["level"] == "info"


def _kws(*words):
    return subprocess.run(
        [sys.executable, "-m", "kws", *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
    )


def completions(line):
    """Type a line in bash and press the tab key; return what is offered."""
    program = Path(sys.executable).with_name("kws")
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    script = (
        f'eval "$(_KWS_COMPLETE=bash_source kws)"\n'
        f"COMP_WORDS=({shlex.join(words)})\nCOMP_CWORD={len(words) - 1}\n"
        'compopt() { echo "compopt $*"; }\n'
        '_kws_completion kws\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=os.environ | {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("kws li", ["listen"]),
        ("kws eval cl", ["clips"]),
        ("kws listen --false", ["--false-alarms-per-hour"]),
        ("kws listen --model comm", ["commands", "commands-small"]),
        ("kws info comp", ["computer", "computer-small"]),
        ("kws eval clips comm", ["commands", "commands-small"]),
        ("kws listen --log-format ", ["text", "json"]),
    ],
)
def test_bash_completes_commands_options_and_bundled_models(line, offered):
    assert completions(line) == offered


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize("line", ["kws listen rec", "kws listen --model ./my", "kws info ./my"])
def test_bash_completes_files_where_no_name_fits(line):
    assert completions(line) == ["compopt", "-o", "default"]


def test_an_option_for_one_value_refuses_a_second(kws, tmp_path):
    words = ("--model", "commands", "--model", "computer", "--clips", tmp_path)
    code, out, err = kws("eval", "report", tmp_path, *words)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "Error: Invalid value for '--model': give it once."


def test_options_that_need_a_model_are_the_same_everywhere():
    """A second --model means two models, or is refused: never a silent override."""
    for words, command in COMMANDS.items():
        for parameter in command.params:
            if "--model" in parameter.opts:
                assert parameter.multiple, words
