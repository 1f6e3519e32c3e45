"""Hooks: the user's commands, run on a detection or a change of the daemon's state.

A hook gets the event twice: in its environment (KWS_EVENT, KWS_KEYWORD and so on, and KWS_TIME, the
wall time in RFC 3339) and as a line of JSON on standard input. An event is never part of a command
line. Standard output is discarded; the end of standard error is logged if the hook fails.

Each run has a thread and a process group of its own. Background processes of a hook continue after
it, count towards `max_running`, and are ended like it at `timeout_s`: the whole group gets SIGTERM,
and SIGKILL half a second later. Only a process in a session of its own escapes that.
"""

import errno
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kws.config import HookSettings
from kws.errors import HookError
from kws.events import End, Event, NearMiss, Peak
from kws.platforms import require_posix
from kws.sinks.hook import Hook, Run
from kws.sinks.process_group import ProcessGroup

__all__ = ["HookCounts", "Hooks"]

_Outcome: TypeAlias = Literal["ok", "failed", "timed_out"]

_LONGEST_SOUND_S = 30.0

_log = logging.getLogger("kws.hooks")


@dataclass
class HookCounts:
    """Counts of the runs of hooks, by outcome.

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
        Those of the model; each hook names one of them, or `*`.
    clock : callable
        Gives the wall time in seconds since 1970.

    Attributes
    ----------
    counts : HookCounts
        So far.

    Raises
    ------
    HookError
        If a hook names an unknown keyword, or a command, sound, user or directory that cannot be
        used.
    """

    def __init__(
        self,
        settings: Sequence[HookSettings],
        *,
        keywords: Collection[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        if settings:
            remedy = "Leave [[hooks]] out; `kws listen --json` prints events for another program."
            require_posix("A hook", error=HookError, remedy=remedy)
        self.counts = HookCounts()
        self._clock = clock
        self._hooks = [
            Hook(hook, keywords=keywords, place=f"entry {i} of [[hooks]]")
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
        """Whether a hook with `mute` runs, or has ended less than `mute_after_s` ago."""
        return self._n_muting > 0 or time.monotonic() < self._muted_until_s

    def send(self, event: Event) -> None:
        """Start the hooks of an event; return without waiting for any.

        A hook that cannot run is logged and counted. After `close` nothing starts.
        """
        if isinstance(event, End | NearMiss | Peak) or self._closed:
            return
        run = Run.of(event, wall_s=self._clock())
        for hook in self._hooks:
            if hook.matches(event):
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

    def _start(self, hook: Hook, run: Run) -> None:
        """Start a thread for the run, unless it must wait or is dropped.

        The thread also starts the process, which may take long on a busy disk.
        """
        with self._lock:
            decision = self._admit(hook, run)
        if decision == "dropped":
            self._log_dropped(hook, run)
        if decision != "started":
            return
        thread = threading.Thread(target=self._work, args=(hook, run), daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads on this system
            _log.warning("%s was not run for `%s`: %s.", hook, run, error)
            while self._finish(hook, "failed"):  # nor can what waits in its queue
                pass
        self._threads = [t for t in (*self._threads, thread) if t.is_alive()]

    def _admit(self, hook: Hook, run: Run) -> Literal["cooled", "dropped", "queued", "started"]:
        """Decide what becomes of a run, and count or queue it; the caller holds the lock."""
        if hook.is_cooling_down(run.event):
            self.counts.cooled += 1
            return "cooled"
        is_full = hook.n_running >= hook.settings.max_running
        if is_full and len(hook.queue) >= hook.settings.max_queued:
            self.counts.dropped += 1
            return "dropped"
        if hook.settings.mute:
            self._n_muting += 1
        if is_full:
            hook.queue.append(run)
            return "queued"
        hook.n_running += 1
        return "started"

    def _log_dropped(self, hook: Hook, run: Run) -> None:
        queued = hook.settings.max_queued
        _log.warning(
            "%s was not run for `%s`: %d of it are running, its `max_running`%s.",
            hook,
            run,
            hook.settings.max_running,
            f", and {queued} wait, its `max_queued`" if queued else "",
        )

    def _work(self, hook: Hook, run: Run | None) -> None:
        """Run the command until its process group has ended; then the next run in the queue."""
        while run:
            outcome: _Outcome = "failed"
            try:
                player = self._play(hook)
                outcome = self._run(hook, run)
                if player:
                    self._wait_for_player(player)
            except Exception:  # noqa: BLE001  whatever it is, the place and `mute` go back
                _log.exception("%s failed for `%s` by an error of kws.", hook, run)
            run = self._finish(hook, outcome)

    def _run(self, hook: Hook, run: Run) -> _Outcome:
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

    def _outcome(self, hook: Hook, run: Run, group: ProcessGroup) -> _Outcome:
        status, stderr = group.close()
        if group.was_signalled and not self._killed.is_set():
            _log.warning(
                "%s ran for `%s` longer than %g s, its `timeout_s`, and was ended.",
                hook,
                run,
                hook.settings.timeout_s,
            )
            return "timed_out"
        if group.was_signalled:
            _log.warning("%s was running for `%s` when kws ended, and was ended.", hook, run)
        elif status:
            _log.warning(
                "%s failed for `%s` with %s. stderr: %s",
                hook,
                run,
                f"signal {-status}" if status < 0 else f"exit status {status}",
                stderr or "none.",
            )
        return "failed" if group.was_signalled or status else "ok"

    def _play(self, hook: Hook) -> ProcessGroup | None:
        """Start to play the hook's sound, if it has one."""
        if not (words := hook.player):
            return None
        try:
            return ProcessGroup(
                words,
                executable=hook.player_file,
                environment=hook.environment({}),
                payload=b"",
                account=hook.account,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            _log.warning("The sound of %s cannot be played: %s", hook, _reason(error))
            return None

    def _wait_for_player(self, player: ProcessGroup) -> None:
        if not player.wait(_LONGEST_SOUND_S, cancelled=self._killed):
            player.end()
        status, stderr = player.close()
        if status and not player.was_signalled:
            _log.warning("A hook's sound was not played: %s", stderr or f"status {status}.")

    def _finish(self, hook: Hook, outcome: _Outcome) -> Run | None:
        """Count a run that has ended; return the next one in the queue."""
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


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOEXEC:
        return f"{error}. Its first line must name its interpreter, such as #!/bin/sh."
    return f"{error}."
