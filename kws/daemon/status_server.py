"""The server at the daemon's Unix socket: its state on request, and its events as they occur.

A client sends one line of JSON, `{"request": "status"}` or `{"request": "events"}`, and gets JSON
lines: one Snapshot, or every later event. An error is sent as `{"error": "…"}`.

In the daemon, all in its loop::

    server = StatusServer(path, snapshot=take_snapshot)
    await server.start()        # ConfigError if the socket cannot be created
    server.publish(event)       # does not wait
    await server.close()        # at most half a second; removes the socket
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from kws.daemon.snapshot import Snapshot
from kws.daemon.status_socket import bind_socket
from kws.events import Event, StateChange, rfc3339, to_json

__all__ = ["StatusServer"]

_MAX_REQUEST_BYTES = 1024
_REQUEST_S = 5.0
_ANSWER_S = 5.0
_REFUSAL_S = 1.0
_MAX_REFUSED = 64
_CLOSE_S = 0.5
_KERNEL_BYTES = 65_536


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    request: Literal["status", "events"]


class StatusServer:
    """Serve requests at a Unix socket that only this user can open.

    Parameters
    ----------
    path : Path
        Of the socket; a missing folder is created, for this user alone.
    snapshot : callable
        Called in the loop at every request; must be fast.
    max_clients : int
        More are answered with an error.
    max_queued : int
        Events queued for a client; when it is full, the oldest are dropped, and their number is
        sent.
    """

    def __init__(
        self,
        path: Path,
        snapshot: Callable[[], Snapshot],
        *,
        max_clients: int = 16,
        max_queued: int = 1000,
    ) -> None:
        self.path = path
        self._snapshot = snapshot
        self._max_clients, self._max_queued = max_clients, max_queued
        self._subscribers: set[_Subscriber] = set()
        self._connections = _Connections()
        self._n_served = 0
        self._server: asyncio.Server | None = None
        self._identity = (0, 0)

    async def start(self) -> None:
        """Open the socket.

        Raises
        ------
        ConfigError
            If it cannot be created, or another daemon listens there.
        """
        listening = bind_socket(self.path)
        at = self.path.lstat()
        self._identity = (at.st_dev, at.st_ino)
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listening, limit=_MAX_REQUEST_BYTES
        )

    def publish(self, event: Event) -> None:
        """Queue an event for all subscribers, without waiting."""
        if self._subscribers:
            line = to_json(event).encode() + b"\n"
            for subscriber in self._subscribers:
                subscriber.put(line)

    async def close(self) -> None:
        """Send queued events for up to half a second; close all connections; remove the socket."""
        if self._server is None:
            return
        self._server.close()
        for subscriber in self._subscribers:
            subscriber.end()
        await self._connections.close(grace_s=_CLOSE_S)
        with contextlib.suppress(OSError):  # removed, or replaced by another daemon
            at = self.path.lstat()
            if (at.st_dev, at.st_ino) == self._identity:
                self.path.unlink()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_served = self._n_served < self._max_clients
        self._n_served += is_served
        writer.transport.set_write_buffer_limits(_KERNEL_BYTES)
        try:
            with self._connections.serving(writer):
                await (self._answer if is_served else self._refuse)(reader, writer)
                writer.transport.set_write_buffer_limits(0)  # drain() waits for the last byte then
                async with asyncio.timeout(_ANSWER_S):
                    await writer.drain()
        finally:
            self._n_served -= is_served

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send the error, and read the request: closing before that would reset the client."""
        message = (
            f"At most {self._max_clients} clients may be connected. Received: one more. End a "
            f"`kws tail`, or try again later."
        )
        writer.write(_error(message))
        if len(self._connections) - self._n_served <= _MAX_REFUSED:
            with contextlib.suppress(TimeoutError, ValueError):  # nothing is sent, or too much
                async with asyncio.timeout(_REFUSAL_S):
                    await reader.readline()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S):
                line = await reader.readline()
            request = msgspec.json.decode(line, type=_Request).request
        except (ValueError, msgspec.DecodeError, TimeoutError):  # a line too long is a ValueError
            known = 'one line of JSON such as {"request": "status"}'
            writer.write(_error(f"A request must be {known}, sent at once."))
            return
        if request == "status":
            writer.write(msgspec.json.encode(self._snapshot()) + b"\n")
            return
        subscriber = _Subscriber(self._max_queued)
        self._subscribers.add(subscriber)
        gone = asyncio.create_task(reader.read(1))  # ends when the client disconnects
        try:
            await subscriber.feed(writer, gone)
        finally:
            self._subscribers.discard(subscriber)
            gone.cancel()


class _Subscriber:
    """One client of the events: a bounded queue of lines."""

    def __init__(self, max_queued: int) -> None:
        self._lines: deque[bytes] = deque(maxlen=max_queued)
        self._n_dropped = 0
        self._is_ending = False
        self._has_news = asyncio.Event()

    def put(self, line: bytes) -> None:
        self._n_dropped += len(self._lines) == self._lines.maxlen
        self._lines.append(line)
        self._has_news.set()

    def end(self) -> None:
        self._is_ending = True
        self._has_news.set()

    async def feed(self, writer: asyncio.StreamWriter, gone: "asyncio.Task[bytes]") -> None:
        """Send lines until the client disconnects, or `end` was called and all are sent."""
        gone.add_done_callback(lambda _: self.end())
        while not gone.done():
            await self._has_news.wait()
            self._has_news.clear()
            while self._lines and not gone.done():
                if self._n_dropped:
                    writer.write(_dropped(self._n_dropped))
                    self._n_dropped = 0
                writer.write(self._lines.popleft())
                await writer.drain()
            if self._is_ending:
                return


class _Connections:
    """The open connections of the server, each served by a task."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self._tasks)

    @contextlib.contextmanager
    def serving(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        """Serve a connection in the running task, and close it at the end.

        A client that disconnects or is too slow, and the end of the daemon, are no errors.
        """
        task = asyncio.current_task()
        assert task  # noqa: S101  a coroutine always runs in a task
        self._tasks.add(task)
        try:
            yield
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def close(self, *, grace_s: float = 0.0) -> None:
        """Wait up to `grace_s` for the tasks to end, then close every connection."""
        if self._tasks and grace_s:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _error(message: str) -> bytes:
    return msgspec.json.encode({"error": message}) + b"\n"


def _dropped(n: int) -> bytes:
    now = rfc3339(datetime.now(UTC))
    detail = f"{n} events were dropped here, as the client reads too slowly."
    return to_json(StateChange(event="error", time=now, detail=detail)).encode() + b"\n"
