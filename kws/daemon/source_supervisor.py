"""Supervise one audio source; restart its capture process when it stalls or fails."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from kws.audio import SAMPLE_RATE_HZ
from kws.config import SourceSettings
from kws.daemon.backlog import AudioBlock, Backlog
from kws.daemon.capture_process import CAPTURE_COMMAND, CaptureProcess
from kws.events import StateChange, rfc3339
from kws.sources.network import is_address
from kws.sources.silence import CHECK_MUTED, SilenceWatch

__all__ = ["DEVICES", "SourceSupervisor", "State", "backoff_s", "wall_time"]

DEVICES = Path("/dev/snd")
"""The folder of Linux whose entries change when a sound card is plugged in."""

State = Literal["opening", "listening", "silent", "stalled", "ended"]

_T = TypeVar("_T")

_MIN_BACKOFF_S, _MAX_BACKOFF_S = 0.5, 30.0
_STEADY_S = 3.0
"""After so much audio the next failure counts as the first."""
_OPENING_S = 15.0
"""Time for a process to start, import and open a device, on a busy Raspberry Pi."""
_POLL_S = 0.5
_REPORT_S = 0.5
"""Extra time for a source to report its own stall, with more detail than the daemon has."""

_log = logging.getLogger("kws.daemon")


class SourceSupervisor:
    """Keep a source open, and queue its audio in a backlog.

    Parameters
    ----------
    settings : SourceSettings
        The source. A file ends; any other source is opened again for ever.
    backlog_s : float
        Capacity of the backlog. When it is full, the oldest audio is dropped, but a file waits.
    on_change : callable
        Called in the loop with each StateChange.
    on_audio : callable
        Called in the loop when the backlog has a new block.
    capture_command : sequence of str
        Command of the capture process.
    pause_s : callable
        Returns the pause after n failures in a row; the default is `backoff_s`.

    Attributes
    ----------
    label : str
        Name of the source in events.
    state : State
    since_s : float
        Unix time at which the state was entered.
    name : str
        Name of the opened source, for people; the label until it is open.
    n_reopened : int
        Number of recoveries after a stall.
    n_overruns : int
        Number of losses of audio in the sound system or in the capture process.
    last_error : str or None
        Reason of the last stall; for a file, its error.
    """

    def __init__(
        self,
        settings: SourceSettings,
        *,
        backlog_s: float,
        on_change: Callable[[StateChange], None],
        on_audio: Callable[[], None],
        capture_command: Sequence[str] = CAPTURE_COMMAND,
        pause_s: "Callable[[int], float] | None" = None,
    ) -> None:
        self.settings = settings
        self.label = settings.label
        self.name = settings.label
        self.is_file = _is_file(settings)
        self._is_port = is_address(settings.input) and not settings.command
        self.backlog = Backlog(backlog_s, drops=not self.is_file)
        self.state: State = "opening"
        self.since_s = time.time()
        self.n_reopened = 0
        self.n_overruns = 0
        self.last_error: str | None = None
        self._on_change, self._on_audio = on_change, on_audio
        self._capture_command = capture_command
        self._pause_s = pause_s or backoff_s
        self._capture: CaptureProcess | None = None
        self._n_at_opening = 0
        self._silence = SilenceWatch(0.0 if self.is_file else settings.silent_s)

    @property
    def has_ended(self) -> bool:
        """Whether the source is a file that has ended, and its backlog is empty."""
        return self.state == "ended" and self.backlog.is_empty

    def status(self) -> str:
        """Return the state, its start and the source in a few words."""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since_s))
        what = self.name if self.name == self.label else f"{self.label} ({self.name})"
        return f"{self.state.capitalize()} since {since}: {what}"

    async def run(self) -> None:
        """Capture until a file ends, or the task is cancelled; leave no process behind."""
        n_failures = 0
        while True:
            reason = await self._capture_once()
            if self.is_file:
                self._end(reason)
                return
            if self.backlog.n_received - self._n_at_opening >= _STEADY_S * SAMPLE_RATE_HZ:
                n_failures = 0
            pause_s = self._pause_s(n_failures)
            n_failures += 1
            self._stall(reason or "The source ended.", f"Next attempt in {pause_s:.1f} s.")
            await self._pause(pause_s)

    def take(self) -> AudioBlock | None:
        """Remove and return the oldest block of the backlog; None if there is none."""
        block = self.backlog.take()
        if self._capture and self._capture.is_paused and not self.backlog.is_full:
            self._capture.resume()
        return block

    async def _pause(self, pause_s: float) -> None:
        """Wait for the next attempt; a newly connected sound card ends the wait."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + pause_s
        before = _changed_ns(DEVICES)
        while (left_s := deadline_s - loop.time()) > 0 and _changed_ns(DEVICES) == before:
            await asyncio.sleep(min(left_s, _POLL_S))

    async def _capture_once(self) -> str | None:
        """Run one capture process until it ends or stalls; return the reason."""
        self._n_at_opening = self.backlog.n_received
        try:
            capture = CaptureProcess(
                self.settings,
                on_audio=self._receive,
                on_loss=self._count_loss,
                on_log=lambda level, message: _log.log(level, "%s: %s", self.label, message),
                command=self._capture_command,
            )
        except OSError as error:
            return f"The capture process cannot be started: {error}."
        self._capture = capture
        stall: str | None = None
        try:
            stall = await self._watch(capture)
        finally:
            self._capture = None
            reason = await _uncancelled(capture.stop())
        return stall or reason

    async def _watch(self, capture: CaptureProcess) -> str | None:
        """Wait for the end of the audio, or for a stall; return the reason of a stall."""
        stall_s = self.settings.stall_s + _REPORT_S
        while True:
            # A file may be on a slow disk.
            needs_time = self.is_file or not capture.name
            limit_s = stall_s + (_OPENING_S if needs_time else 0.0)
            left_s = capture.last_activity_s + limit_s - asyncio.get_running_loop().time()
            if capture.is_paused:
                left_s = limit_s
            if left_s <= 0:
                what = "No audio was received" if capture.name else "The source did not open"
                reason = f"{what} for {limit_s:g} s."
                if not (self._is_port and capture.name):
                    return reason
                self._stall_port(reason)
                left_s = _POLL_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _POLL_S)):
                    await capture.ended.wait()
                return None

    def _receive(self, data: bytes) -> None:
        """Queue audio of the capture process."""
        if self.state not in {"listening", "silent"}:
            self._start_listening()
        if self._silence.process(data):
            self._change_silence()
        n_dropped = self.backlog.append(data)
        if n_dropped:
            _log.warning(
                "%s: the oldest audio was dropped, as the machine is too busy: %.1f s so far.",
                self.label,
                self.backlog.n_dropped / SAMPLE_RATE_HZ,
            )
        if self.is_file and self._capture and self.backlog.is_full:
            self._capture.pause()
        self._on_audio()

    def _count_loss(self, n: int) -> None:
        self.n_overruns += n
        _log.warning(
            "%s: audio was lost before the daemon received it; the machine may be too busy. "
            "Overruns so far: %d.",
            self.label,
            self.n_overruns,
        )

    def _start_listening(self) -> None:
        """Report the first audio, or the first after a stall."""
        self._silence.reset()
        if self._capture and self._capture.name:
            self.name = self._capture.name
        is_recovery = self.state == "stalled"
        if is_recovery:
            self.n_reopened += 1
        self._enter("listening")
        how = "listening again" if is_recovery else "listening"
        _log.info("%s: %s to %s.", self.label, how, self.name)
        self._report("recovered" if is_recovery else "listening", self.name)

    def _change_silence(self) -> None:
        """Report digital silence, or that sound has come back after it."""
        if self._silence.is_silent:
            reason = f"Only digital silence for {self.settings.silent_s:g} s. {CHECK_MUTED}."
            _log.warning("%s: %s", self.label, reason)
            self._enter("silent")
            self._report("silent", reason)
        else:
            _log.info("%s: sound again.", self.label)
            self._enter("listening")
            self._report("recovered", "Sound again.")

    def _stall_port(self, reason: str) -> None:
        """Report a stall, once, but keep the port open: the sender has stopped, not the source."""
        if self.state != "stalled" or reason != self.last_error:
            self._stall(reason, "Its port stays open for a sender.")

    def _stall(self, reason: str, what_next: str) -> None:
        """Report a stall; a second one for the same reason is logged for debugging only.

        What a program last wrote is no part of the reason: it may hold times and numbers.
        """
        is_new = self.state != "stalled" or _without_stderr(reason) != _without_stderr(
            self.last_error or ""
        )
        level = logging.WARNING if is_new else logging.DEBUG
        _log.log(level, "%s: %s %s", self.label, reason, what_next)
        self.last_error = reason
        if self.state == "stalled":
            return
        if self.state in {"listening", "silent"}:
            self.backlog.mark_gap()
            self._on_audio()
        self._enter("stalled")
        self._report("stalled", reason)

    def _end(self, reason: str | None) -> None:
        """Report the end of a file, and its error if there is one."""
        self.last_error = reason
        self._enter("ended")
        if reason:
            _log.error("%s: %s", self.label, reason)
            self._report("error", reason)
        self.backlog.mark_gap()
        self._on_audio()

    def _enter(self, state: State) -> None:
        self.state = state
        self.since_s = time.time()

    def _report(
        self, event: Literal["listening", "silent", "recovered", "stalled", "error"], detail: str
    ) -> None:
        change = StateChange(event=event, time=wall_time(), source=self.label, detail=detail)
        self._on_change(change)


def backoff_s(n_failures: int) -> float:
    """Return the pause after so many failures: 0.5 s doubling to 30 s, with a jitter of 20 %.

    The jitter keeps sources that failed together from retrying together.
    """
    pause_s = _MIN_BACKOFF_S * 2.0 ** min(n_failures, 10) * random.uniform(0.8, 1.2)  # noqa: S311
    return min(_MAX_BACKOFF_S, max(_MIN_BACKOFF_S, pause_s))


def wall_time() -> str:
    """Return the current time, RFC 3339 in UTC."""
    return rfc3339(datetime.now(UTC))


def _without_stderr(reason: str) -> str:
    return reason.partition(" stderr: ")[0]


async def _uncancelled(work: Coroutine[Any, Any, _T]) -> _T:
    """Await `work` to its end, even if this task is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _changed_ns(folder: Path) -> int:
    """Return the time at which the entries of a folder last changed; 0 if there is no folder."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _is_file(settings: SourceSettings) -> bool:
    is_live = settings.command or settings.input in {"mic", "-"} or "://" in settings.input
    return not is_live
