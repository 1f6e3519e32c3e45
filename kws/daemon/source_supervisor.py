"""One supervised source: heard without end, opened anew whenever it falls silent or fails."""

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
from kws.daemon.backlog import Backlog, Piece
from kws.daemon.capture_process import CAPTURE, Recorder
from kws.daemon.sparing import Sparing
from kws.events import StateChange, rfc3339
from kws.sources.network import is_address

__all__ = ["DEVICES", "Ear", "State", "back_off_s", "wall_time"]

DEVICES = Path("/dev/snd")
"""Where Linux shows sound cards as they are plugged in."""

State = Literal["opening", "listening", "stalled", "ended"]

_T = TypeVar("_T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_STEADY_S = 3.0
"""After so much audio the next failure counts as the first."""
_OPENING_S = 15.0
"""How long a process may take to start, import and open a device, on a busy Raspberry Pi."""
_LOOK_S = 0.5
_SOURCE_TELLS_S = 0.5
"""A source that notices its own stall says more about it; it is given the time."""

_log = logging.getLogger("kws.daemon")


class Ear:
    """Keep a source open; give what it hears to a backlog.

    Parameters
    ----------
    settings : SourceSettings
        What to open. A file ends; anything else is opened anew for ever.
    backlog_s : float
        Audio that may wait to be taken. Then the oldest is dropped, but a file waits.
    tell : callable
        Called in the loop with each StateChange.
    wake : callable
        Called in the loop when there is something to take.
    command : sequence of str
        What records; tests bring their own.
    pause_s : callable
        How long to wait before attempt n, counted from 0 since it was last heard well.

    Attributes
    ----------
    state : State
    since_s : float
        Unix time at which it came into that state.
    name : str
        What the source calls itself, for people; the label until it is open.
    n_reopened : int
        How often it was heard again after a stall.
    n_overruns : int
        How often audio was lost before it came here: in the sound system, or in the recorder.
    last_error : str or None
        Why it was last silent, or for a file, what was wrong with it.
    """

    def __init__(
        self,
        settings: SourceSettings,
        *,
        backlog_s: float,
        tell: Callable[[StateChange], None],
        wake: Callable[[], None],
        command: Sequence[str] = CAPTURE,
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
        self._tell, self._wake = tell, wake
        self._command = command
        self._pause_s = pause_s or back_off_s
        self._recorder: Recorder | None = None
        self._n_at_opening = 0
        self._drops, self._losses = Sparing(_log), Sparing(_log)

    @property
    def is_over(self) -> bool:
        """True for a file that has ended and was taken to its end."""
        return self.state == "ended" and self.backlog.is_empty

    def status(self) -> str:
        """Say in a few words what it hears, since when."""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since_s))
        what = self.name if self.name == self.label else f"{self.label} ({self.name})"
        return f"{self.state.capitalize()} since {since}: {what}"

    async def run(self) -> None:
        """Hear the source until a file ends, or the task is cancelled; leaves no process behind."""
        n_failures = 0
        while True:
            reason = await self._record()
            if self.is_file:
                self._end(reason)
                return
            if self.backlog.n_received - self._n_at_opening >= _STEADY_S * SAMPLE_RATE_HZ:
                n_failures = 0
            pause_s = self._pause_s(n_failures)
            n_failures += 1
            self._stall(reason or "It ended.", f"Next attempt in {pause_s:.1f} s.")
            await self._rest(pause_s)

    def take(self) -> Piece | None:
        """Remove and return the oldest piece of audio; None if there is none."""
        piece = self.backlog.take()
        if self._recorder and self._recorder.is_paused and not self.backlog.is_full:
            self._recorder.resume()
        return piece

    async def _rest(self, pause_s: float) -> None:
        """Wait before the next attempt; no longer than until a device was plugged in."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + pause_s
        before = _changed_ns(DEVICES)
        while (left_s := deadline_s - loop.time()) > 0 and _changed_ns(DEVICES) == before:
            await asyncio.sleep(min(left_s, _LOOK_S))

    async def _record(self) -> str | None:
        """Run one recorder to its end; return why it ended."""
        self._n_at_opening = self.backlog.n_received
        try:
            recorder = Recorder(
                self.settings, hear=self._hear, lose=self._lose, command=self._command
            )
        except OSError as error:
            return f"No process can be started to record: {error}."
        self._recorder = recorder
        stall: str | None = None
        try:
            stall = await self._watch(recorder)
        finally:
            self._recorder = None
            reason = await _to_the_end(recorder.stop())
        return stall or reason

    async def _watch(self, recorder: Recorder) -> str | None:
        """Wait until it is over, or silent for too long; return what is wrong then."""
        stall_s = self.settings.stall_s + _SOURCE_TELLS_S
        while True:
            # A file is no microphone: a slow disk is given the time.
            is_slow = self.is_file or not recorder.name
            limit_s = stall_s + _OPENING_S * is_slow
            left_s = recorder.last_sign_s + limit_s - asyncio.get_running_loop().time()
            if recorder.is_paused:
                left_s = limit_s
            if left_s <= 0:
                what = "No audio came" if recorder.name else "It could not be opened"
                reason = f"{what} for {limit_s:g} s."
                if not (self._is_port and recorder.name):
                    return reason
                self._await_sender(reason)
                left_s = _LOOK_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _LOOK_S)):
                    await recorder.over.wait()
                return None

    def _hear(self, data: bytes) -> None:
        if self.state != "listening":
            self._listen()
        recorder = self._recorder
        n_dropped = self.backlog.append(data)
        if n_dropped:
            self._drops.warning(
                "%s: the oldest audio was dropped, as the machine is too busy: %.1f s so far.",
                self.label,
                self.backlog.n_dropped / SAMPLE_RATE_HZ,
            )
        if self.is_file and recorder and self.backlog.is_full:
            recorder.pause()
        self._wake()

    def _lose(self, n: int) -> None:
        self.n_overruns += n
        self._losses.warning(
            "%s: audio was lost on its way to the daemon; the machine may be too busy. Overruns so "
            "far: %d.",
            self.label,
            self.n_overruns,
        )

    def _listen(self) -> None:
        """Say that it is heard, for the first time or again."""
        if self._recorder and self._recorder.name:
            self.name = self._recorder.name
        again = self.state == "stalled"
        self.n_reopened += again
        self._enter("listening")
        _log.info("%s: %s %s.", self.label, "hears again" if again else "listens to", self.name)
        self._say("recovered" if again else "listening", self.name)

    def _await_sender(self, reason: str) -> None:
        """Keep an open port open: that nobody sends is no fault of it, and nothing to mend here."""
        if self.state != "stalled" or reason != self.last_error:
            self._stall(reason, "Its port stays open for a sender.")

    def _stall(self, reason: str, what_next: str) -> None:
        """Say that nothing is heard any more, once for the same reason."""
        is_news = self.state != "stalled" or reason != self.last_error
        level = logging.WARNING if is_news else logging.DEBUG
        _log.log(level, "%s: %s %s", self.label, reason, what_next)
        self.last_error = reason
        if self.state == "stalled":
            return
        if self.state == "listening":
            self.backlog.gap()
            self._wake()
        self._enter("stalled")
        self._say("stalled", reason)

    def _end(self, reason: str | None) -> None:
        self.last_error = reason
        self._enter("ended")
        if reason:
            _log.error("%s: %s", self.label, reason)
            self._say("error", reason)
        self.backlog.gap()
        self._wake()

    def _enter(self, state: State) -> None:
        self.state = state
        self.since_s = time.time()

    def _say(self, event: Literal["listening", "recovered", "stalled", "error"], what: str) -> None:
        self._tell(StateChange(event=event, time=wall_time(), source=self.label, detail=what))


async def _to_the_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Finish what must not be left half done, even if this task is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def back_off_s(n_failures: int) -> float:
    """Return how long to wait after so many failures: 0.5 s doubling to 30 s, give or take a fifth.

    The jitter keeps what failed together from trying together.
    """
    pause_s = _FIRST_PAUSE_S * 2.0 ** min(n_failures, 10) * random.uniform(0.8, 1.2)  # noqa: S311
    return min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, pause_s))


def wall_time() -> str:
    """Return the time now, RFC 3339 in UTC."""
    return rfc3339(datetime.now(UTC))


def _changed_ns(folder: Path) -> int:
    """Return when an entry came into the folder or left it, 0 where there is none."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _is_file(settings: SourceSettings) -> bool:
    is_live = settings.command or settings.input in {"mic", "-"} or "://" in settings.input
    return not is_live
