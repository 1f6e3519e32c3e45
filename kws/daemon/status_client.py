"""The client of a daemon's socket: its state once, or its events as they occur."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kws.daemon.snapshot import Snapshot
from kws.daemon.status_socket import default_socket
from kws.errors import ConfigError, KwsError
from kws.events import Event, from_json

__all__ = ["ask", "find_socket", "follow"]

_ANSWER_S = 5.0
_SYSTEM_SOCKET = Path("/run/kws/kws.sock")


def find_socket() -> Path:
    """Return the socket of the user's own daemon if it exists, else that of the system's."""
    own = default_socket()
    return own if _may_exist(own) or not _may_exist(_SYSTEM_SOCKET) else _SYSTEM_SOCKET


def ask(path: Path) -> Snapshot:
    """Return the state of the daemon at a socket.

    Raises
    ------
    KwsError
        If no daemon answers there, or this user may not connect.
    """
    with _connected(path, "status") as connection:
        for line in _lines(connection, path):
            return _decoded(line, path)
    raise _connection_lost(path)


def follow(path: Path) -> Iterator[Event]:
    """Yield the events of the daemon at a socket, until its `stop`.

    Raises
    ------
    KwsError
        If no daemon answers there, this user may not connect, or the connection is lost.
    """
    with _connected(path, "events") as connection:
        connection.settimeout(None)
        for line in _lines(connection, path):
            _check(line)
            try:
                event = from_json(line)
            except msgspec.DecodeError as error:
                raise _other_version(path, error) from error
            yield event
            if getattr(event, "event", None) == "stop":
                return
    raise _connection_lost(path)


def _may_exist(path: Path) -> bool:
    """Whether there may be a socket; a folder without access may hold that of another user."""
    try:
        return path.exists()
    except PermissionError:
        return True


@contextlib.contextmanager
def _connected(path: Path, request: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(str(path))
            # An error that the daemon has sent before can still be read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(msgspec.json.encode({"request": request}) + b"\n")
        except PermissionError as error:
            raise ConfigError(
                f"Only the user it runs as, and root, may connect to a daemon. Received: "
                f"permission denied for {path}. Run this as that user, or with sudo."
            ) from error
        except TimeoutError as error:
            raise _no_answer(path) from error
        except OSError as error:
            if os.environ.get("XDG_RUNTIME_DIR") or path != _SYSTEM_SOCKET:
                start = "Start one with `kws daemon --config kws.toml`"
            else:
                start = "Start one with `systemctl start kws`"
            is_missing = isinstance(error, FileNotFoundError)
            reason = "no socket at" if is_missing else f"{error.strerror or error}:"
            raise ConfigError(
                f"No kws daemon is running ({reason} {path}). {start}, or give its socket with "
                f"--socket."
            ) from error
        yield connection


def _lines(connection: socket.socket, path: Path) -> Iterator[bytes]:
    """Yield whole lines until the daemon closes the connection."""
    rest = b""
    while True:
        try:
            data = connection.recv(65_536)
        except TimeoutError as error:
            raise _no_answer(path) from error
        except ConnectionError:
            return
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _decoded(line: bytes, path: Path) -> Snapshot:
    _check(line)
    try:
        return msgspec.json.decode(line, type=Snapshot)
    except msgspec.DecodeError as error:
        raise _other_version(path, error) from error


class _Refusal(msgspec.Struct):
    error: str | None = None


def _check(line: bytes) -> None:
    """Raise KwsError if the line is an error of the daemon."""
    with contextlib.suppress(msgspec.DecodeError):
        if refusal := msgspec.json.decode(line, type=_Refusal).error:
            raise KwsError(f"The daemon refused the request. {refusal}")


def _no_answer(path: Path) -> KwsError:
    return KwsError(
        f"The daemon did not answer within {_ANSWER_S:g} s ({path}). It hangs, or its machine is "
        f"overloaded; see its log."
    )


def _connection_lost(path: Path) -> KwsError:
    return KwsError(
        f"The daemon closed the connection ({path}). It was killed or crashed; see its log."
    )


def _other_version(path: Path, error: msgspec.DecodeError) -> KwsError:
    return KwsError(
        f"The answer from {path} is not from a daemon of this version ({error}). Use the `kws` "
        f"that the daemon runs with."
    )
