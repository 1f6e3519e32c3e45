"""The daemon's Unix socket: its state on demand, and its events as they come.

A client sends one line of JSON, `{"request": "status"}` or `{"request": "events"}`, and gets JSON
lines: one Snapshot, or every event from then on. What is wrong comes as `{"error": "…"}`.

In the daemon, all in its loop::

    server = StatusServer(path, snapshot=take_snapshot)
    await server.start()        # ConfigError if the socket cannot be had
    server.publish(event)       # never waits
    await server.close()        # at most half a second; removes the socket
"""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import socket
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from kws.daemon.clients import Clients
from kws.daemon.snapshot import Snapshot
from kws.errors import ConfigError
from kws.events import Event, StateChange, rfc3339, to_json

__all__ = ["StatusServer", "default_socket"]

_LONGEST_PATH = 107
"""Bytes that `sockaddr_un` has room for, less the NUL (unix(7))."""
_LONGEST_REQUEST = 1024
_REQUEST_S = 5.0
_ANSWER_S = 5.0
_REFUSAL_S = 1.0
_MOST_REFUSED = 64
_CLOSE_S = 0.5
_LOCK_S = 2.0
_KERNEL_BYTES = 65_536

_log = logging.getLogger("kws.daemon")


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    request: Literal["status", "events"]


class StatusServer:
    """Answer on a Unix socket that only this user can open.

    Parameters
    ----------
    path : Path
        Of the socket; its folder is made, for this user alone, if it is missing.
    snapshot : callable
        Called in the loop whenever a client asks; to be quick.
    most_clients : int
        Beyond that, a client is told so and sent away.
    most_queued : int
        Events that may wait for a client; then its oldest are left out, which it is told.
    """

    def __init__(
        self,
        path: Path,
        snapshot: Callable[[], Snapshot],
        *,
        most_clients: int = 16,
        most_queued: int = 1000,
    ) -> None:
        self.path = path
        self._snapshot = snapshot
        self._most_clients, self._most_queued = most_clients, most_queued
        self._followers: set[_Follower] = set()
        self._clients = Clients()
        self._n_served = 0
        self._server: asyncio.Server | None = None
        self._identity = (0, 0)

    async def start(self) -> None:
        """Open the socket.

        Raises
        ------
        ConfigError
            If it cannot be made, or another daemon answers there.
        """
        listening = _bind(self.path)
        at = self.path.lstat()
        self._identity = (at.st_dev, at.st_ino)
        self._server = await asyncio.start_unix_server(
            self._attend, sock=listening, limit=_LONGEST_REQUEST
        )

    def publish(self, event: Event) -> None:
        """Queue an event for all who follow; never waits."""
        if self._followers:
            line = to_json(event).encode() + b"\n"
            for follower in self._followers:
                follower.put(line)

    async def close(self) -> None:
        """Send what is queued, as far as it is read in half a second; remove the socket."""
        if self._server is None:
            return
        self._server.close()
        for follower in self._followers:
            follower.end()
        await self._clients.close(grace_s=_CLOSE_S)
        with contextlib.suppress(OSError):  # another daemon's by now, or gone
            at = self.path.lstat()
            if (at.st_dev, at.st_ino) == self._identity:
                self.path.unlink()
        self._server = None

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_served = self._n_served < self._most_clients
        self._n_served += is_served
        writer.transport.set_write_buffer_limits(_KERNEL_BYTES)
        try:
            with self._clients.attending(writer):
                await (self._answer if is_served else self._refuse)(reader, writer)
                writer.transport.set_write_buffer_limits(0)  # drain() waits for the last byte then
                async with asyncio.timeout(_ANSWER_S):
                    await writer.drain()
        finally:
            self._n_served -= is_served

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say why, and take the request: closed with bytes unread, a socket resets the client."""
        message = (
            f"No more than {self._most_clients} clients may ask at once. Received: one more. End a "
            f"`kws tail` that nobody needs, or ask again later."
        )
        writer.write(_error(message))
        if len(self._clients) - self._n_served <= _MOST_REFUSED:
            with contextlib.suppress(TimeoutError, ValueError):  # nothing comes, or too much
                async with asyncio.timeout(_REFUSAL_S):
                    await reader.readline()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S):
                line = await reader.readline()
            request = msgspec.json.decode(line, type=_Request).request
        except (ValueError, msgspec.DecodeError, TimeoutError):  # also too long a line
            known = 'one line of JSON such as {"request": "status"}'
            writer.write(_error(f"A request must be {known}, sent at once."))
            return
        if request == "status":
            writer.write(msgspec.json.encode(self._snapshot()) + b"\n")
            return
        follower = _Follower(self._most_queued)
        self._followers.add(follower)
        gone = asyncio.create_task(reader.read(1))  # ends when the client hangs up
        try:
            await follower.feed(writer, gone)
        finally:
            self._followers.discard(follower)
            gone.cancel()


class _Follower:
    """One client that follows events: a bounded queue of lines."""

    def __init__(self, most_queued: int) -> None:
        self._lines: deque[bytes] = deque(maxlen=most_queued)
        self._n_left_out = 0
        self._is_ending = False
        self._news = asyncio.Event()

    def put(self, line: bytes) -> None:
        self._n_left_out += len(self._lines) == self._lines.maxlen
        self._lines.append(line)
        self._news.set()

    def end(self) -> None:
        self._is_ending = True
        self._news.set()

    async def feed(self, writer: asyncio.StreamWriter, gone: "asyncio.Task[bytes]") -> None:
        """Send lines until the client hangs up, or all are sent and the daemon ends."""
        gone.add_done_callback(lambda _: self.end())
        while not gone.done():
            await self._news.wait()
            self._news.clear()
            while self._lines and not gone.done():
                if self._n_left_out:
                    writer.write(_left_out(self._n_left_out))
                    self._n_left_out = 0
                writer.write(self._lines.popleft())
                await writer.drain()
            if self._is_ending:
                return


def default_socket() -> Path:
    """Return where the daemon's socket is unless kws.toml says otherwise.

    systemd's runtime directory, else that of the user's session, else /run/kws.
    """
    if folders := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(folders.split(":")[0]) / "kws.sock"
    if session := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(session) / "kws.sock"
    return Path("/run/kws/kws.sock")


def _bind(path: Path) -> socket.socket:
    """Make the socket, closed to others before anybody can connect; replace a dead daemon's."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(
            f"The daemon's socket must have a path of at most {_LONGEST_PATH} bytes. Received: "
            f"{path}. Set `[daemon] socket` to a shorter one."
        )
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.parent):
            _clear(path)
            listening.bind(str(path))
            path.chmod(0o600)  # nobody can connect before listen()
            listening.listen()
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"The daemon's socket must lie where it can be made. Received: {path} "
            f"({error.strerror or error}). Set `[daemon] socket` to a path in a folder of yours."
        ) from error
    except ConfigError:
        listening.close()
        raise
    return listening


def _clear(path: Path) -> None:
    """Remove the socket of a daemon that is dead; refuse anything else that is there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            f"The daemon's socket must have a path to itself. Received: {path}, which is no "
            f"socket. Remove it, or set `[daemon] socket`."
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:  # it listens, and its queue is full
            pass
    raise ConfigError(
        f"Each daemon must have a socket of its own. Received: {path}, on which another answers. "
        f"`kws status --socket {path}` shows it; end it, or set `[daemon] socket`."
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep two daemons that start at once from taking each other's socket for a dead one's."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline_s = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise OSError(errno.EBUSY, "another program holds the folder's lock") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(opened)


def _error(message: str) -> bytes:
    return msgspec.json.encode({"error": message}) + b"\n"


def _left_out(n: int) -> bytes:
    now = rfc3339(datetime.now(UTC))
    detail = f"{n} events were left out here, as they were read too slowly."
    return to_json(StateChange(event="error", time=now, detail=detail)).encode() + b"\n"
