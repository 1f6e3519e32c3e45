"""The daemon's Unix socket: its default path, and its creation for one user and one daemon."""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from kws.errors import ConfigError

__all__ = ["bind_socket", "default_socket"]

_MAX_PATH_BYTES = 107
"""Capacity of `sockaddr_un`, less the NUL (unix(7))."""
_LOCK_S = 2.0


def default_socket() -> Path:
    """Return the path of the daemon's socket unless kws.toml sets one.

    It is in systemd's runtime directory, else in that of the user's session, else in /run/kws.
    """
    if folders := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(folders.split(":")[0]) / "kws.sock"
    if session := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(session) / "kws.sock"
    return Path("/run/kws/kws.sock")


def bind_socket(path: Path) -> socket.socket:
    """Create the socket, for this user alone; replace that of a daemon that was killed.

    Raises
    ------
    ConfigError
        If it cannot be created, or another daemon listens there.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise ConfigError(
            f"The daemon's socket must have a path of at most {_MAX_PATH_BYTES} bytes. Received: "
            f"{path}. Set `[daemon] socket` to a shorter one."
        )
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path):
            _clear(path)
            listening.bind(str(path))
            path.chmod(0o600)  # before listen() nobody can connect
            listening.listen()
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"The daemon's socket cannot be created: {path} ({error.strerror or error}). Set "
            f"`[daemon] socket` to a path in a folder of yours."
        ) from error
    except ConfigError:
        listening.close()
        raise
    return listening


def _clear(path: Path) -> None:
    """Remove the socket of a daemon that was killed; refuse any other file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            f"The daemon's socket must have a path of its own. Received: {path}, which is another "
            f"file. Remove it, or set `[daemon] socket`."
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:  # a daemon listens, and its queue is full
            pass
    raise ConfigError(
        f"Each daemon must have a socket of its own. Received: {path}, on which another listens. "
        f"`kws status --socket {path}` shows it; end it, or set `[daemon] socket`."
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock a file of ours beside the socket, so that two daemons do not remove each other's.

    Nobody else can lock it. Where somebody else has put one in its place there is no lock.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        opened = os.open(path.with_name(f".{path.name}.lock"), flags, 0o600)
    except OSError:
        if path.parent.is_dir() and os.access(path.parent, os.W_OK):
            yield
            return
        raise
    try:
        if os.fstat(opened).st_uid != os.geteuid():
            yield
            return
        deadline_s = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise OSError(errno.EBUSY, "another daemon is starting here") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(opened)
