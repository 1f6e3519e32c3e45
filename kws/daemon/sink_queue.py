"""A bounded queue and worker thread per sink, so that a slow sink cannot delay audio."""

import contextlib
import logging
import queue
import threading
import time
from typing import Generic, Protocol, TypeVar

__all__ = ["Receiver", "SinkQueue"]

_MAX_QUEUED = 1000
_SLOW_S = 5.0

_T = TypeVar("_T")
_T_contra = TypeVar("_T_contra", contravariant=True)

_log = logging.getLogger("kws.daemon")


class Receiver(Protocol[_T_contra]):
    """The end of a queue: a `kws.sinks.Sink`, or the handlers of the log."""

    def send(self, event: _T_contra) -> None:
        """Accept one event."""

    def close(self) -> None:
        """Finish the events sent."""


class SinkQueue(Generic[_T]):
    """Send events to one sink, in order, from a thread of its own.

    Parameters
    ----------
    name : str
        Name of the sink in the log.
    sink : Receiver
        Exceptions of its methods are logged and counted.
    max_queued : int
        Capacity of the queue.

    Attributes
    ----------
    n_sent, n_failed, n_dropped : int
        Events that were sent, failed in the sink, and found the queue full.
    """

    def __init__(self, name: str, sink: Receiver[_T], *, max_queued: int = _MAX_QUEUED) -> None:
        self.name = name
        self.sink = sink
        self.n_sent = self.n_failed = self.n_dropped = 0
        self._queue: queue.Queue[_T | None] = queue.Queue(max_queued)
        self._busy_since_s: float | None = None
        self._closing = threading.Event()
        # A sink that hangs for ever must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=f"kws-{name}", daemon=True)
        self._thread.start()

    def put(self, event: _T) -> None:
        """Queue an event without waiting; if the queue is full, drop and count it."""
        busy_since_s = self._busy_since_s
        if busy_since_s is not None and (busy_s := time.monotonic() - busy_since_s) > _SLOW_S:
            _log.warning(
                "%s has been busy with an event for %.0f s; %d wait.",
                self.name,
                busy_s,
                self._queue.qsize(),
            )
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.n_dropped += 1
            _log.warning(
                "%s: an event was dropped, as %d wait already; %d so far.",
                self.name,
                self._queue.maxsize,
                self.n_dropped,
            )

    def begin_close(self) -> None:
        """Have the thread close the sink after all queued events; return at once."""
        self._closing.set()
        with contextlib.suppress(queue.Full):  # then the thread checks `_closing`
            self._queue.put_nowait(None)

    def join(self, timeout_s: float | None) -> bool:
        """Wait until the sink is closed; return whether it is."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (event := self._next()) is not None:
            self._busy_since_s = time.monotonic()
            try:
                self.sink.send(event)
                self.n_sent += 1
            except Exception as error:  # noqa: BLE001  an error of one sink must not stop the others
                self._count_failure(error)
            self._busy_since_s = None
        try:
            self.sink.close()
        except Exception as error:  # noqa: BLE001
            self._count_failure(error)

    def _next(self) -> _T | None:
        """Wait for the next event; None once the queue is closed and empty."""
        if self._closing.is_set():
            try:
                return self._queue.get_nowait()
            except queue.Empty:
                return None
        return self._queue.get()

    def _count_failure(self, error: Exception) -> None:
        self.n_failed += 1
        _log.warning(
            "%s failed on an event: %s: %s; %d so far.",
            self.name,
            type(error).__name__,
            error,
            self.n_failed,
        )
