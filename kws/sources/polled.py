"""What a command and a port have in common: a wait that `close` can end from any thread."""

import contextlib
import select
import socket
import threading
from abc import abstractmethod
from collections.abc import Iterator

from kws.audio import Samples
from kws.sources.source import Source, chunk_samples, cut

__all__ = ["PolledSource"]


class PolledSource(Source):
    """A source that is read as it is iterated, so that what nobody takes yet waits in the kernel.

    Parameters
    ----------
    name : str
        What it is, for people.
    chunk_ms : int
        Length of a chunk.
    """

    live = True

    def __init__(self, name: str, *, chunk_ms: int) -> None:
        self.name = name
        self._n_samples = chunk_samples(chunk_ms)
        self._closed = False
        self._in_use = threading.Lock()
        self._bell, self._button = socket.socketpair()

    def __iter__(self) -> Iterator[Samples]:
        return cut(self._read(), n_samples=self._n_samples)

    def close(self) -> None:
        """Let go of everything and end the iteration, in whichever thread it runs."""
        if self._closed:
            return
        self._closed = True
        self._button.send(b"!")
        with self._in_use:
            self._let_go()
            self._bell.close()
            self._button.close()

    def _wait(self, *descriptors: int, timeout_s: float | None) -> list[int]:
        """Return those that can be read; none at the timeout, or when it is closed.

        The lock `_in_use` is held around this and around the reading.
        """
        poll = select.poll()
        for descriptor in (self._bell.fileno(), *descriptors):
            poll.register(descriptor, select.POLLIN)
        timeout_ms = None if timeout_s is None else max(0, round(1000 * timeout_s))
        ready = [descriptor for descriptor, _ in poll.poll(timeout_ms)]
        return [] if self._closed else ready

    @contextlib.contextmanager
    def _using(self) -> Iterator[bool]:
        """Hold the lock; gives whether it is open still."""
        with self._in_use:
            yield not self._closed

    @abstractmethod
    def _read(self) -> Iterator[Samples]:
        """Yield samples as they come, until it is closed."""

    @abstractmethod
    def _let_go(self) -> None:
        """Close what was opened; no other thread uses it."""
