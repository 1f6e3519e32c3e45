"""What stands before each sink: a bounded queue and a thread, so that no sink delays the audio."""

import contextlib
import logging
import queue
import threading
import time
from typing import Generic, Protocol, TypeVar

from kws.daemon.sparing import Sparing

__all__ = ["Outlet", "Taker"]

_MOST_QUEUED = 1000
_SLOW_S = 5.0

_T = TypeVar("_T")
_T_contra = TypeVar("_T_contra", contravariant=True)

_log = logging.getLogger("kws.daemon")


class Taker(Protocol[_T_contra]):
    """What an outlet stands before: a `kws.sinks.Sink`, or the handlers of the log."""

    def send(self, event: _T_contra) -> None:
        """Take one event."""

    def close(self) -> None:
        """Finish what was sent."""


class Outlet(Generic[_T]):
    """Hand events to one sink, in order, in a thread of its own.

    Parameters
    ----------
    name : str
        What the log calls the sink.
    sink : Taker
        Whatever its methods raise is logged and counted.

    Attributes
    ----------
    n_sent, n_failed, n_dropped : int
        Events that the sink took, failed on, and that found the queue full.
    """

    def __init__(self, name: str, sink: Taker[_T], *, most_queued: int = _MOST_QUEUED) -> None:
        self.name = name
        self.sink = sink
        self.n_sent = self.n_failed = self.n_dropped = 0
        self._queue: queue.Queue[_T | None] = queue.Queue(most_queued)
        self._busy_since_s: float | None = None
        self._sparing = {what: Sparing(_log) for what in ("failed", "dropped", "slow")}
        self._closing = threading.Event()
        # A sink that hangs for ever must not keep the process alive.
        self._thread = threading.Thread(target=self._deliver, name=f"kws-{name}", daemon=True)
        self._thread.start()

    def put(self, event: _T) -> None:
        """Queue an event; never waits. When the queue is full, the event is dropped and counted."""
        busy_since_s = self._busy_since_s
        if busy_since_s is not None and (busy_s := time.monotonic() - busy_since_s) > _SLOW_S:
            self._sparing["slow"].warning(
                "%s has been busy with an event for %.0f s; %d wait.",
                self.name,
                busy_s,
                self._queue.qsize(),
            )
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.n_dropped += 1
            self._sparing["dropped"].warning(
                "%s: an event was dropped, as %d wait already; %d so far.",
                self.name,
                self._queue.maxsize,
                self.n_dropped,
            )

    def begin_close(self) -> None:
        """Let the thread close the sink after all that is queued; returns at once."""
        self._closing.set()
        with contextlib.suppress(queue.Full):  # then the thread looks at `_closing`
            self._queue.put_nowait(None)

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the sink to be closed; return whether it is."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _deliver(self) -> None:
        while (event := self._next()) is not None:
            self._busy_since_s = time.monotonic()
            try:
                self.sink.send(event)
                self.n_sent += 1
            except Exception as error:  # noqa: BLE001  a sink's error is its own
                self._fail(error)
            self._busy_since_s = None
        try:
            self.sink.close()
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def _next(self) -> _T | None:
        if self._closing.is_set():
            try:
                return self._queue.get_nowait()
            except queue.Empty:
                return None
        return self._queue.get()

    def _fail(self, error: Exception) -> None:
        self.n_failed += 1
        self._sparing["failed"].warning(
            "%s failed on an event: %s: %s; %d so far.",
            self.name,
            type(error).__name__,
            error,
            self.n_failed,
        )
