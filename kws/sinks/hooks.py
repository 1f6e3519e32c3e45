"""The user's commands, run when a keyword is heard.

A hook gets the event twice: in its environment (KWS_KEYWORD, KWS_SCORE, KWS_START_S, KWS_END_S and
KWS_TIME, the wall time in RFC 3339) and as a line of JSON on standard input. Nothing of an event is
ever part of a command line. Standard output is thrown away; of standard error the end is logged
where the hook fails.

Each run has a thread and a process group of its own. What a hook leaves in the background goes on
after it, holds its place among `max_running`, and is ended like it at `timeout_s`: the whole group
gets SIGTERM, half a second later SIGKILL. Only a process in a session of its own escapes that.
"""

import datetime
import errno
import logging
import os
import shlex
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from kws.config import HookSettings
from kws.errors import HookError, did_you_mean
from kws.events import Detection, Event, to_json
from kws.sinks.command import command_words, program_file
from kws.sinks.process_group import ProcessGroup

__all__ = ["HookCounts", "Hooks"]

_log = logging.getLogger("kws.hooks")


@dataclass
class HookCounts:
    """What became of the detections that hooks were there for.

    A run that started ends as `ok` (exit status 0), `failed`, or `timed_out`; one that could not
    start counts as `failed`, one beyond `max_running` as `dropped`.
    """

    started: int = 0
    ok: int = 0
    failed: int = 0
    timed_out: int = 0
    dropped: int = 0


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
        If a hook names an unknown keyword, or a command that cannot be run.
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
        self._threads: list[threading.Thread] = []

    def send(self, event: Event) -> None:
        """Start the hooks of a detection's keyword; return without waiting for any.

        A hook that cannot run, or not now, is logged and counted. After `close` nothing starts.
        """
        if not isinstance(event, Detection) or self._closed:
            return
        run = _Run(
            keyword=event.keyword,
            environment=_environment(event, wall_s=self._clock()),
            payload=to_json(event).encode() + b"\n",
        )
        for hook in self._hooks:
            if hook.settings.keyword in {"*", event.keyword}:
                self._start(hook, run)

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
            is_full = hook.n_running >= hook.settings.max_running
            hook.n_running += not is_full
            self.counts.dropped += is_full
        if is_full:
            _log.warning(
                "%s was not run for `%s`: %d of it are running, its `max_running`.",
                hook,
                run.keyword,
                hook.settings.max_running,
            )
            return
        thread = threading.Thread(target=self._attend, args=(hook, run), daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads on this system
            _log.warning("%s was not run for `%s`: %s.", hook, run.keyword, error)
            self._count(hook, "failed")
        self._threads = [t for t in (*self._threads, thread) if t.is_alive()]

    def _attend(self, hook: "_Hook", run: "_Run") -> None:
        """See a run through, from its start to the end of its process group."""
        try:
            group = ProcessGroup(
                hook.words,
                executable=hook.program,
                environment=run.environment,
                payload=run.payload,
            )
        except (OSError, ValueError) as error:
            _log.warning("%s cannot be started for `%s`: %s", hook, run.keyword, _reason(error))
            self._count(hook, "failed")
            return
        with self._lock:
            self.counts.started += 1
        if not group.wait(hook.settings.timeout_s, cancelled=self._killed) and not group.end():
            _log.error("%s (process group %d) cannot be killed.", hook, group.pid)
        self._count(hook, self._outcome(hook, run, group))

    def _outcome(
        self, hook: "_Hook", run: "_Run", group: ProcessGroup
    ) -> Literal["ok", "failed", "timed_out"]:
        status, last_words = group.close()
        if group.was_signalled and not self._killed.is_set():
            _log.warning(
                "%s ran for `%s` longer than %g s, its `timeout_s`, and was told to end.",
                hook,
                run.keyword,
                hook.settings.timeout_s,
            )
            return "timed_out"
        if group.was_signalled:
            _log.warning("%s ran for `%s` when kws ended, and was told to end.", hook, run.keyword)
        elif status:
            _log.warning(
                "%s failed for `%s` with %s. Its last words: %s",
                hook,
                run.keyword,
                f"signal {-status}" if status < 0 else f"exit status {status}",
                last_words or "none.",
            )
        return "failed" if group.was_signalled or status else "ok"

    def _count(self, hook: "_Hook", outcome: Literal["ok", "failed", "timed_out"]) -> None:
        with self._lock:
            setattr(self.counts, outcome, getattr(self.counts, outcome) + 1)
            hook.n_running -= 1


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What a detection hands to each of its hooks."""

    keyword: str
    environment: dict[bytes, bytes]
    payload: bytes


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
        self.n_running = 0

    def __str__(self) -> str:
        return f"Hook `{shlex.join(self.words)}`"


def _environment(event: Detection, *, wall_s: float) -> dict[bytes, bytes]:
    """Return this process's environment with the event; UTF-8 whatever the locale says."""
    wall = datetime.datetime.fromtimestamp(wall_s, datetime.UTC)
    values = {
        "KWS_KEYWORD": event.keyword,
        "KWS_SCORE": str(event.score),
        "KWS_START_S": str(event.start_s),
        "KWS_END_S": str(event.end_s),
        "KWS_TIME": wall.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    return os.environb | {key.encode(): value.encode() for key, value in values.items()}


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOEXEC:
        return f"{error}. Its first line must name its interpreter, as #!/bin/sh does."
    return f"{error}."
