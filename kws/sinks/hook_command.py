"""The command, sound player and user of a hook, checked when kws starts."""

import os
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

from kws.command_lines import interpreter_problem
from kws.config import HookSettings
from kws.errors import HookError, did_you_mean
from kws.paths import expanded
from kws.trusted_files import check_trusted

__all__ = [
    "Account",
    "account_of",
    "command_words",
    "find_player",
    "player_words",
    "program_file",
]

_SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PLAYERS = (["pw-play"], ["paplay"], ["aplay", "-q"])


class Account(NamedTuple):
    """Identity of the user a hook runs as: for the kernel, and its whole environment."""

    uid: int
    gid: int
    groups: list[int]
    environment: dict[bytes, bytes]


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
    return ["/bin/sh", "-c", *words] if settings.shell else words


def program_file(word: str, *, place: str) -> str:
    """Return the absolute path of a program, looked up as a shell would.

    It is looked up once: the same file is run later, in whatever folder.

    Raises
    ------
    HookError
        If there is none, it is not executable, its interpreter is missing, or, as root, every user
        may change it; the message names the `place`.
    """
    if file := shutil.which(word):
        if problem := interpreter_problem(file):
            raise HookError(
                f"A hook's program must have its interpreter. Received: `{word}` in {place}; "
                f"{problem}."
            )
        check_trusted(file, what=f"The program in {place}", error=HookError)
        return os.path.abspath(file)  # noqa: PTH100  a link may name one program of several
    remedy = "Correct the path."
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


def player_words(sound: str, *, place: str) -> list[str]:
    """Return the command that plays a sound file.

    Raises
    ------
    HookError
        If there is no such file, or no program that plays it; the message names the `place`.
    """
    file = expanded(sound, what=f"a hook's `awake_wav` in {place}", error=HookError)
    if not file.is_file():
        raise HookError(
            f"A hook's `awake_wav` must be a sound file. Received: `{sound}` in {place}, which is "
            f"none. Correct the path."
        )
    if words := find_player():
        return [*words, str(file.absolute())]
    raise HookError(
        f"A hook's `awake_wav` needs a program that plays it. Received: `{sound}` in {place}, and "
        f"none of pw-play, paplay and aplay. Run `sudo apt install alsa-utils`."
    )


def find_player() -> list[str] | None:
    """Return the first of pw-play, paplay and aplay that is installed, with its options."""
    return next((words for words in _PLAYERS if shutil.which(words[0])), None)


def account_of(user: str, *, place: str) -> Account:
    """Look up a user.

    Raises
    ------
    HookError
        If there is no such user, or kws may not switch to it; the message names the `place`.
    """
    import pwd  # not on Windows, where `Hooks` says so

    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):
        known = [one.pw_name for one in pwd.getpwall()]
        raise HookError(
            f"A hook's `user` must be a user of this system. Received: `{user}` in {place}."
            f"{did_you_mean(user, known)} `getent passwd` lists them."
        ) from None
    if os.geteuid() not in {0, entry.pw_uid}:
        raise HookError(
            f"Only root may run a hook as another `user`. Received: `{user}` in {place}, and kws "
            f"run by {pwd.getpwuid(os.geteuid()).pw_name}. Leave `user` out, or use sudo in the "
            f"command."
        )
    names = {
        "HOME": entry.pw_dir,
        "USER": user,
        "LOGNAME": user,
        "SHELL": entry.pw_shell or "/bin/sh",
        "PATH": _SAFE_PATH,
    }
    environment = {key.encode(): value.encode() for key, value in names.items()}
    return Account(entry.pw_uid, entry.pw_gid, os.getgrouplist(user, entry.pw_gid), environment)


def _split(command: str, place: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise HookError(
            f"A hook's `command` must have its quotes in pairs. Received: `{command}` in {place} "
            f"({error}). Add the missing quote, or write it as a list of words."
        ) from error
