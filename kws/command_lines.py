"""Commands of kws.toml that need a shell or an interpreter which they do not have.

Such a command starts, or fails, without a word that a user would connect with the cause: a program
gets `>` as an argument; the kernel says "No such file" of a script that is there.
"""

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

__all__ = ["doubtful_words", "interpreter_problem", "shell_operator"]

_OPERATOR = re.compile(r"\|\|?|&&|&|;|\d*>>?|\d*>&\d?|&>>?|<<?<?|2>&1")
_REDIRECTION = re.compile(r"(\d*>>?|&>>?|<)\S+")
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*|\{\w+\}|\([^)]*\))")
_RAW_WORD = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\])+""", re.DOTALL)
_LITERAL = re.compile(r"'[^']*'|\\.", re.DOTALL)
_SHELLS = frozenset(["sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "busybox"])
_LONGEST_LINE_BYTES = 512


def shell_operator(command: str) -> str | None:
    """Return the first operator of a shell that stands outside quotes as a word of its own.

    Within a word, as in `http://host/?a=1&b=2`, it means itself: no shell runs the line.
    """
    for word in _RAW_WORD.findall(command):
        if _OPERATOR.fullmatch(word) or _REDIRECTION.fullmatch(word):
            return str(word)
        if word.endswith(";") and not word.endswith("\\;"):
            return ";"
    return None


def doubtful_words(command: list[str] | str) -> list[str]:
    """Return what of a command without shell only a shell would understand.

    Operators in a list may mean themselves, and so may a `$`.
    """
    try:
        words = shlex.split(command) if isinstance(command, str) else command
    except ValueError:  # quotes without a partner, which are refused
        return []
    if _is_shell_line(words):
        return []
    if isinstance(command, str):
        return [found[0] for found in _VARIABLE.finditer(_LITERAL.sub("", command))]
    operators = [word for word in words if _OPERATOR.fullmatch(word)]
    return operators + [found[0] for word in words for found in _VARIABLE.finditer(word)]


def interpreter_problem(program: str) -> str | None:
    """Return why the interpreter that a script's first line names cannot run it, if so.

    Parameters
    ----------
    program : str
        Path of a file that may be executed.
    """
    try:
        with Path(program).open("rb") as file:
            line = file.read(_LONGEST_LINE_BYTES).split(b"\n")[0]
    except OSError:  # it may be run and not read
        return None
    if not line.startswith(b"#!"):
        return None
    words = os.fsdecode(line[2:]).split()
    first = os.fsdecode(line.rstrip(b"\r"))
    if line.endswith(b"\r"):
        return f"its first line, `{first}`, ends as on Windows: run `sed -i 's/\\r$//' {program}`"
    if not words or not Path(words[0]).exists():
        return f"its first line, `{first}`, names no program: install it, or correct the line"
    if Path(words[0]).name == "env" and len(words) == 2 and not shutil.which(words[1]):
        return f"its first line, `{first}`, names a program that is not on PATH: install it"
    return None


def _is_shell_line(words: Sequence[str]) -> bool:
    """Whether a shell gets the line as an argument, as in `sh -c LINE`."""
    return any(Path(word).name in _SHELLS for word in words[:3]) and any(
        word.startswith("-") and word.endswith("c") for word in words
    )
