"""The command of a hook, checked before anything is heard."""

import shlex
import shutil
from pathlib import Path

from kws.config import HookSettings
from kws.errors import HookError
from kws.player import find_player

__all__ = ["command_words", "play_words", "program_file"]


def command_words(settings: HookSettings, *, place: str) -> list[str]:
    """Return a hook's program and arguments.

    Raises
    ------
    HookError
        If the command is empty, ill-quoted, or not for a shell; the message names the `place`.
    """
    command = settings.command
    if isinstance(command, str):
        words = [command] if settings.shell else _split(command, place)
    elif settings.shell:
        raise HookError(
            f"With `shell = true` a hook's `command` must be one string. Received: a list in "
            f"{place}. Write it as a shell line, or leave `shell` out."
        )
    else:
        words = command
    if not words or not words[0].strip():
        raise HookError(
            f"A hook's `command` must name a program. Received: an empty one in {place}. "
            f'Write one, such as `command = ["notify-send", "heard"]`.'
        )
    if any("\0" in word for word in words):
        raise HookError(
            f"A hook's `command` must be free of NUL characters. Received: one in {place}. "
            f"Take it out."
        )
    return ["/bin/sh", "-c", *words] if settings.shell else words


def program_file(word: str, *, place: str) -> str:
    """Return the file of a program, looked up as a shell would.

    Raises
    ------
    HookError
        If there is none, or it may not be executed; the message names the `place`.
    """
    if file := shutil.which(word):
        return file
    remedy = "Mend the path."
    try:
        if "/" not in word:
            problem, remedy = "not on PATH", "Install it, or write its whole path."
        elif Path(word).stat() and Path(word).is_file():
            problem, remedy = "not executable", f"Run `chmod +x {shlex.quote(word)}`."
        else:
            problem = "not a file"
    except OSError as error:
        problem = str(error.strerror)
        if not Path(word).is_absolute():
            remedy = f"Write its whole path: this one starts at {Path.cwd()}."
    raise HookError(
        f"A hook's program must exist and be executable. Received: `{word}` in {place} "
        f"({problem}). {remedy}"
    )


def play_words(sound: str, *, place: str) -> list[str]:
    """Return the command that plays a sound file.

    Raises
    ------
    HookError
        If there is no such file, or nothing here that plays it; the message names the `place`.
    """
    file = Path(sound).expanduser()
    if not file.is_file():
        raise HookError(
            f"A hook's `awake_wav` must be a sound file. Received: `{sound}` in {place}, which is "
            f"none. Mend the path."
        )
    if words := find_player():
        return [*words, str(file.absolute())]
    raise HookError(
        f"A hook's `awake_wav` needs a program that plays it. Received: `{sound}` in {place}, and "
        f"none of pw-play, paplay and aplay. Run `sudo apt install alsa-utils`."
    )


def _split(command: str, place: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise HookError(
            f"A hook's `command` must have its quotes in pairs. Received: `{command}` in {place} "
            f"({error}). Mend it, or write it as a list of words."
        ) from error
