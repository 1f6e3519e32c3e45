"""The user's commands, run when a keyword is heard or the daemon's state changes.

A hook gets the event twice: in its environment (KWS_EVENT, KWS_KEYWORD and so on, and KWS_TIME, the
wall time in RFC 3339) and as a line of JSON on standard input. Nothing of an event is ever part of
a command line. Standard output is thrown away; of standard error the end is logged where the hook
fails.

Each run has a thread and a process group of its own. What a hook leaves in the background goes on
after it, holds its place among `max_running`, and is ended like it at `timeout_s`: the whole group
gets SIGTERM, half a second later SIGKILL. Only a process in a session of its own escapes that.
"""

import errno
import logging
import os
import shlex
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

from kws.config import HookSettings
from kws.errors import HookError, did_you_mean
from kws.events import Detection, End, Event, NearMiss, Peak, StateChange, rfc3339, to_json
from kws.sinks.account import account_of
from kws.sinks.hook_command import command_words, play_words, program_file
from kws.sinks.process_group import ProcessGroup

__all__ = ["HookCounts", "Hooks"]

_Outcome: TypeAlias = Literal["ok", "failed", "timed_out"]

_LONGEST_SOUND_S = 30.0

_log = logging.getLogger("kws.hooks")


@dataclass
class HookCounts:
    """What became of the events that hooks were there for.

    A run that started ends as `ok` (exit status 0), `failed`, or `timed_out`; one that could not
    start counts as `failed`, one beyond `max_running` and `max_queued` as `dropped`, one within
    `cooldown_s` of the last as `cooled`.
    """

    started: int = 0
    ok: int = 0
    failed: int = 0
    timed_out: int = 0
    dropped: int = 0
    cooled: int = 0


class Hooks:
    """Run commands on detections.

    Parameters
    ----------
    settings : sequence of HookSettings
        The `[[hooks]]` of kws.toml.
    keywords : collection of str
        Those of the model; a hook must name one of them, or `*`.
    clock : callable
        Gives the wall time in seconds since 1970.

    Attributes
    ----------
    counts : HookCounts
        So far.

    Raises
    ------
    HookError
        If a hook names an unknown keyword, or a command, sound, user or directory that is not as
        it must be.
    """

    def __init__(
        self,
        settings: Sequence[HookSettings],
        *,
        keywords: Collection[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counts = HookCounts()
        self._clock = clock
        self._hooks = [
            _Hook(hook, keywords=keywords, place=f"entry {i} of [[hooks]]")
            for i, hook in enumerate(settings, start=1)
        ]
        self._lock = threading.Lock()
        self._killed = threading.Event()
        self._closed = False
        self._n_muting = 0
        self._muted_until_s = 0.0
        self._threads: list[threading.Thread] = []

    @property
    def muted(self) -> bool:
        """Whether a hook with `mute` wants nothing to be heard now."""
        return self._n_muting > 0 or time.monotonic() < self._muted_until_s

    def send(self, event: Event) -> None:
        """Start the hooks of an event; return without waiting for any.

        A hook that cannot run, or not now, is logged and counted. After `close` nothing starts.
        """
        if isinstance(event, End | NearMiss | Peak) or self._closed:
            return
        environment = _environment(event, wall_s=self._clock())
        for hook in self._hooks:
            if hook.wants(event):
                self._start(hook, _Run(event=event, environment=environment))

    def close(self, *, kill: bool = False) -> None:
        """Wait for the running hooks, each of which ends by its `timeout_s`.

        Parameters
        ----------
        kill : bool
            End them now, as their timeout would. May follow a `close` that was interrupted.
        """
        self._closed = True
        if kill:
            self._killed.set()
        for thread in self._threads:
            thread.join()

    def _start(self, hook: "_Hook", run: "_Run") -> None:
        """Give the run a thread: even the start of a process may be slow, on a busy disk."""
        with self._lock:
            if hook.cools(run.event):
                self.counts.cooled += 1
                return
            is_full = hook.n_running >= hook.settings.max_running
            is_refused = is_full and len(hook.queue) >= hook.settings.max_queued
            self.counts.dropped += is_refused
            if is_full and not is_refused:
                hook.queue.append(run)
            hook.n_running += not is_full
            self._n_muting += hook.settings.mute and not is_refused
        if is_refused:
            self._say_refused(hook, run)
        if is_full:
            return
        thread = threading.Thread(target=self._attend, args=(hook, run), daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads on this system
            _log.warning("%s was not run for `%s`: %s.", hook, run, error)
            self._end_run(hook, "failed")
        self._threads = [t for t in (*self._threads, thread) if t.is_alive()]

    def _say_refused(self, hook: "_Hook", run: "_Run") -> None:
        queued = hook.settings.max_queued
        _log.warning(
            "%s was not run for `%s`: %d of it are running, its `max_running`%s.",
            hook,
            run,
            hook.settings.max_running,
            f", and {queued} wait, its `max_queued`" if queued else "",
        )

    def _attend(self, hook: "_Hook", run: "_Run | None") -> None:
        """See a run through, from its start to the end of its process group; then what waits."""
        while run:
            player = self._play(hook)
            outcome = self._see_through(hook, run)
            if player:
                self._await_player(player)
            run = self._end_run(hook, outcome)

    def _see_through(self, hook: "_Hook", run: "_Run") -> _Outcome:
        try:
            group = ProcessGroup(
                hook.words,
                executable=hook.program,
                environment=hook.environment(run.environment),
                payload=hook.payload(run.event),
                account=hook.account,
                directory=hook.settings.working_directory,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            _log.warning("%s cannot be started for `%s`: %s", hook, run, _reason(error))
            return "failed"
        with self._lock:
            self.counts.started += 1
        if not group.wait(hook.settings.timeout_s, cancelled=self._killed) and not group.end():
            _log.error("%s (process group %d) cannot be killed.", hook, group.pid)
        return self._outcome(hook, run, group)

    def _outcome(self, hook: "_Hook", run: "_Run", group: ProcessGroup) -> _Outcome:
        status, last_words = group.close()
        if group.was_signalled and not self._killed.is_set():
            _log.warning(
                "%s ran for `%s` longer than %g s, its `timeout_s`, and was told to end.",
                hook,
                run,
                hook.settings.timeout_s,
            )
            return "timed_out"
        if group.was_signalled:
            _log.warning("%s ran for `%s` when kws ended, and was told to end.", hook, run)
        elif status:
            _log.warning(
                "%s failed for `%s` with %s. Its last words: %s",
                hook,
                run,
                f"signal {-status}" if status < 0 else f"exit status {status}",
                last_words or "none.",
            )
        return "failed" if group.was_signalled or status else "ok"

    def _play(self, hook: "_Hook") -> ProcessGroup | None:
        """Begin to play the hook's sound, if it has one."""
        if not (words := hook.player):
            return None
        try:
            return ProcessGroup(
                words, executable=hook.player_file, environment=os.environb, payload=b""
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            _log.warning("The sound of %s cannot be played: %s", hook, _reason(error))
            return None

    def _await_player(self, player: ProcessGroup) -> None:
        if not player.wait(_LONGEST_SOUND_S, cancelled=self._killed):
            player.end()
        status, last_words = player.close()
        if status and not player.was_signalled:
            _log.warning("A hook's sound was not played: %s", last_words or f"status {status}.")

    def _end_run(self, hook: "_Hook", outcome: _Outcome) -> "_Run | None":
        """Count a run that is over; return the one that has waited longest for its place."""
        with self._lock:
            setattr(self.counts, outcome, getattr(self.counts, outcome) + 1)
            if hook.settings.mute:
                self._n_muting -= 1
                until_s = time.monotonic() + hook.settings.mute_after_s
                self._muted_until_s = max(self._muted_until_s, until_s)
            if hook.queue and self._killed.is_set():
                self.counts.dropped += len(hook.queue)
                hook.queue.clear()
            if hook.queue:
                return hook.queue.popleft()
            hook.n_running -= 1
            return None


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What an event hands to each of its hooks."""

    event: Detection | StateChange
    environment: dict[bytes, bytes]

    def __str__(self) -> str:
        return _subject(self.event)


class _Hook:
    """A hook whose settings were found good."""

    def __init__(self, settings: HookSettings, *, keywords: Collection[str], place: str) -> None:
        if settings.keyword != "*" and settings.keyword not in keywords:
            raise HookError(
                f"A hook's `keyword` must be `*` or one of the model's. Received: "
                f"`{settings.keyword}` in {place}.{did_you_mean(settings.keyword, keywords)} "
                f"The model knows: {', '.join(keywords)}."
            )
        self.settings = settings
        self.words = command_words(settings, place=place)
        self.program = program_file(self.words[0], place=place)
        self.player = play_words(settings.awake_wav, place=place) if settings.awake_wav else []
        self.player_file = program_file(self.player[0], place=place) if self.player else ""
        self.account = account_of(settings.user, place=place) if settings.user else None
        self.n_running = 0
        self.queue: deque[_Run] = deque()
        self._last_s: dict[str, float] = {}
        _check_directory(settings.working_directory, place=place)
        self._own = _own_variables(settings.environment, place=place)

    def wants(self, event: Detection | StateChange) -> bool:
        """Return whether it is to run on an event."""
        if isinstance(event, StateChange):
            return event.event in self.settings.on
        return "detection" in self.settings.on and self.settings.keyword in {"*", event.keyword}

    def cools(self, event: Detection | StateChange) -> bool:
        """Return whether an event comes within `cooldown_s` of the last that did not."""
        subject, now_s = _subject(event), time.monotonic()
        if now_s - self._last_s.get(subject, -float("inf")) < self.settings.cooldown_s:
            return True
        self._last_s[subject] = now_s
        return False

    def environment(self, event: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Return all that the command finds in its environment."""
        who = self.account.environment if self.account else {}
        return os.environb | who | self._own | event

    def payload(self, event: Detection | StateChange) -> bytes:
        """Return what the command finds on its standard input."""
        line = _subject(event) if self.settings.keyword_on_stdin else to_json(event)
        return line.encode() + b"\n"

    def __str__(self) -> str:
        return f"Hook `{shlex.join(self.words)}`"


def _subject(event: Detection | StateChange) -> str:
    """Return in a word what an event is about."""
    return event.keyword if isinstance(event, Detection) else event.event


def _check_directory(directory: str | None, *, place: str) -> None:
    if directory is not None and not Path(directory).is_dir():
        raise HookError(
            f"A hook's `working_directory` must be a folder. Received: `{directory}` in {place}, "
            f"which is none. Make it, or mend the path."
        )


def _own_variables(variables: dict[str, str], *, place: str) -> dict[bytes, bytes]:
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name + value:
            raise HookError(
                f"A hook's `environment` must hold names without `=` and no NUL characters. "
                f"Received: {name!r} in {place}. Mend it."
            )
    return {name.encode(): value.encode() for name, value in variables.items()}


def _environment(event: Detection | StateChange, *, wall_s: float) -> dict[bytes, bytes]:
    """Return the variables that tell of an event; UTF-8 whatever the locale says."""
    if isinstance(event, StateChange):
        values = {"KWS_EVENT": event.event, "KWS_TIME": event.time, "KWS_DETAIL": event.detail}
    else:
        values = {
            "KWS_EVENT": "detection",
            "KWS_KEYWORD": event.keyword,
            "KWS_SCORE": str(event.score),
            "KWS_START_S": "" if event.start_s is None else str(event.start_s),
            "KWS_END_S": str(event.end_s),
            "KWS_TIME": rfc3339(datetime.fromtimestamp(wall_s, UTC)),
        }
    values["KWS_SOURCE"] = event.source
    return {key.encode(): value.encode() for key, value in values.items() if value is not None}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOEXEC:
        return f"{error}. Its first line must name its interpreter, as #!/bin/sh does."
    return f"{error}."
