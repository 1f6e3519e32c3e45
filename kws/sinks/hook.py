"""One hook: its checked settings, and the environment and input of its command."""

import os
import shlex
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kws.config import HookSettings
from kws.errors import HookError, did_you_mean
from kws.events import Detection, StateChange, rfc3339, to_json
from kws.sinks.hook_command import account_of, command_words, player_words, program_file

__all__ = ["Hook", "Run"]

_MAX_COOLDOWNS = 256  # phrases of a model of sequences are without number


@dataclass(frozen=True, kw_only=True)
class Run:
    """One event, as the hooks get it."""

    event: Detection | StateChange
    environment: dict[bytes, bytes]

    @classmethod
    def of(cls, event: Detection | StateChange, *, wall_s: float) -> "Run":
        """Return the run of an event that occurred at `wall_s`, in seconds since 1970."""
        return cls(event=event, environment=_environment(event, wall_s=wall_s))

    def __str__(self) -> str:
        return _subject(self.event)


class Hook:
    """A hook: its checked settings, its queue, and the number of its runs.

    Parameters
    ----------
    settings : HookSettings
    keywords : collection of str
        Those of the model.
    place : str
        Where the hook is in kws.toml, for messages.

    Raises
    ------
    HookError
        If the keyword is unknown, or the command, sound, user or directory cannot be used.
    """

    def __init__(self, settings: HookSettings, *, keywords: Collection[str], place: str) -> None:
        if settings.keyword != "*" and settings.keyword not in keywords:
            raise HookError(
                f"A hook's `keyword` must be `*` or one of the model's. Received: "
                f"`{settings.keyword}` in {place}.{did_you_mean(settings.keyword, keywords)} "
                f"The keywords are: {', '.join(keywords)}."
            )
        self.settings = settings
        self.words = command_words(settings, place=place)
        self.program = program_file(self.words[0], place=place)
        self.player = player_words(settings.awake_wav, place=place) if settings.awake_wav else []
        self.player_file = program_file(self.player[0], place=place) if self.player else ""
        self.account = account_of(settings.user, place=place) if settings.user else None
        self.n_running = 0
        self.queue: deque[Run] = deque()
        self._last_s: dict[str, float] = {}
        _check_directory(settings.working_directory, place=place)
        self._variables = _variables(settings.environment, place=place)

    def matches(self, event: Detection | StateChange) -> bool:
        """Return whether the hook runs on an event."""
        if isinstance(event, StateChange):
            return event.event in self.settings.on
        return "detection" in self.settings.on and self.settings.keyword in {"*", event.keyword}

    def is_cooling_down(self, event: Detection | StateChange) -> bool:
        """Return whether the last event like it was less than `cooldown_s` ago; if not, note it."""
        subject, now_s = _subject(event), time.monotonic()
        if now_s - self._last_s.get(subject, -float("inf")) < self.settings.cooldown_s:
            return True
        self._last_s.pop(subject, None)
        while len(self._last_s) >= _MAX_COOLDOWNS:
            del self._last_s[next(iter(self._last_s))]  # the oldest
        self._last_s[subject] = now_s
        return False

    def environment(self, event: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Return the whole environment of the command, or of the player without an event.

        That of another user begins with the user's own, without anything of kws.
        """
        base = self.account.environment if self.account else os.environb
        return base | self._variables | event

    def payload(self, event: Detection | StateChange) -> bytes:
        """Return the standard input of the command."""
        line = _subject(event) if self.settings.keyword_on_stdin else to_json(event)
        return line.encode() + b"\n"

    def __str__(self) -> str:
        return f"Hook `{shlex.join(self.words)}`"


def _subject(event: Detection | StateChange) -> str:
    """Return the keyword of a detection, or the name of a state change."""
    return event.keyword if isinstance(event, Detection) else event.event


def _check_directory(directory: str | None, *, place: str) -> None:
    if directory is not None and not Path(directory).is_dir():
        raise HookError(
            f"A hook's `working_directory` must be a folder. Received: `{directory}` in {place}, "
            f"which is none. Create it, or correct the path."
        )


def _variables(variables: dict[str, str], *, place: str) -> dict[bytes, bytes]:
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name + value:
            raise HookError(
                f"A hook's `environment` must hold names without `=` and no NUL characters. "
                f"Received: {name!r} in {place}. Correct it."
            )
    return {name.encode(): value.encode() for name, value in variables.items()}


def _environment(event: Detection | StateChange, *, wall_s: float) -> dict[bytes, bytes]:
    """Return the variables of an event, in UTF-8 whatever the locale."""
    if isinstance(event, StateChange):
        values = {"KWS_EVENT": event.event, "KWS_TIME": event.time, "KWS_DETAIL": event.detail}
    else:
        values = {
            "KWS_EVENT": "detection",
            "KWS_KEYWORD": event.keyword,
            "KWS_SCORE": str(event.score),
            "KWS_START_S": "" if event.start_s is None else str(event.start_s),
            "KWS_END_S": str(event.end_s),
            "KWS_MODEL": event.model,
            "KWS_TIME": rfc3339(datetime.fromtimestamp(wall_s, UTC)),
        }
    values["KWS_SOURCE"] = event.source
    # A detail may quote what a program has printed; a variable cannot hold NUL.
    known = {key: value.replace("\0", "\\0") for key, value in values.items() if value is not None}
    return {key.encode(): value.encode() for key, value in known.items()}
