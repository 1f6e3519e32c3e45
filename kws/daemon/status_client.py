"""What asks a daemon: its state once, or its events as they come."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kws.daemon.snapshot import Snapshot
from kws.daemon.status_server import default_socket
from kws.errors import ConfigError, KwsError
from kws.events import Event, from_json

__all__ = ["ask", "find_socket", "follow"]

_ANSWER_S = 5.0
_SYSTEM_SOCKET = Path("/run/kws/kws.sock")


def find_socket() -> Path:
    """Return the socket of a daemon: the user's own if it is there, else the system's."""
    own = default_socket()
    return own if _is_there(own) or not _is_there(_SYSTEM_SOCKET) else _SYSTEM_SOCKET


def ask(path: Path) -> Snapshot:
    """Return the state of the daemon behind a socket.

    Raises
    ------
    KwsError
        If none answers there, or it may not be asked.
    """
    with _connected(path, "status") as connection:
        for line in _lines(connection, path):
            return _decoded(line, path)
    raise _lost(path)


def follow(path: Path) -> Iterator[Event]:
    """Yield the events of the daemon behind a socket, until it says that it stops.

    Raises
    ------
    KwsError
        If none answers there, it may not be asked, or it is gone without a word.
    """
    with _connected(path, "events") as connection:
        connection.settimeout(None)
        for line in _lines(connection, path):
            _check(line)
            try:
                event = from_json(line)
            except msgspec.DecodeError as error:
                raise _other(path, error) from error
            yield event
            if getattr(event, "event", None) == "stop":
                return
    raise _lost(path)


def _is_there(path: Path) -> bool:
    """Whether there may be a socket; a folder that is closed to us holds that of another user."""
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
            # What it has said before is still there.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(msgspec.json.encode({"request": request}) + b"\n")
        except PermissionError as error:
            raise ConfigError(
                f"A daemon can be asked only by the user it runs as, and by root. Received: "
                f"permission denied for {path}. Run this as that user, or with sudo."
            ) from error
        except TimeoutError as error:
            raise _silent(path) from error
        except OSError as error:
            if os.environ.get("XDG_RUNTIME_DIR") or path != _SYSTEM_SOCKET:
                start = "Start one with `kws daemon --config kws.toml`"
            else:
                start = "Start one with `systemctl start kws`"
            raise ConfigError(
                f"A daemon must be running to be asked. Received: none at {path} "
                f"({error.strerror or error}). {start}, or give its socket with --socket."
            ) from error
        yield connection


def _lines(connection: socket.socket, path: Path) -> Iterator[bytes]:
    """Yield whole lines until the daemon hangs up."""
    rest = b""
    while True:
        try:
            data = connection.recv(65_536)
        except TimeoutError as error:
            raise _silent(path) from error
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
        raise _other(path, error) from error


class _Refusal(msgspec.Struct):
    error: str | None = None


def _check(line: bytes) -> None:
    """Raise what the daemon answers in place of what was asked for."""
    with contextlib.suppress(msgspec.DecodeError):
        if refusal := msgspec.json.decode(line, type=_Refusal).error:
            raise KwsError(f"The daemon refuses: {refusal}")


def _silent(path: Path) -> KwsError:
    return KwsError(
        f"A daemon must answer within {_ANSWER_S:g} s. Received: nothing from {path}. It hangs, or "
        f"its machine is overloaded: look at its log."
    )


def _lost(path: Path) -> KwsError:
    return KwsError(
        f"The daemon must stay until it is asked no more. Received: the end of {path} without a "
        f"farewell. It was killed, or has crashed: look at its log."
    )


def _other(path: Path, error: msgspec.DecodeError) -> KwsError:
    return KwsError(
        f"A daemon of the same version must answer. Received: something else from {path} "
        f"({error}). Use the `kws` that the daemon runs with."
    )
