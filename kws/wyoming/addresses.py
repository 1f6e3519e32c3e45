"""Addresses of the service: `tcp://HOST:PORT` and `unix:///PATH`."""

import contextlib
import errno
import ipaddress
import socket
import stat
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from kws.errors import ConfigError

__all__ = ["DEFAULT_URI", "Address", "bind", "parse_uri"]

DEFAULT_URI = "tcp://127.0.0.1:10400"
"""The port is the one that Home Assistant knows from wyoming-openwakeword."""

_BACKLOG = 128
_LONGEST_PATH = 107  # bytes that `sockaddr_un` has room for, less the NUL (unix(7))


class Address(NamedTuple):
    """Where the service listens: a host and a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can connect."""
        if self.path or self.host == "localhost":
            return True
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return False

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        return (
            f"tcp://[{self.host}]:{self.port}"
            if ":" in self.host
            else f"tcp://{self.host}:{self.port}"
        )


def parse_uri(uri: str) -> Address:
    """Parse an address.

    Raises
    ------
    ConfigError
        If it is neither `tcp://HOST:PORT` nor `unix:///PATH`.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:  # brackets, or a port that is no number up to 65535
        raise _invalid(uri) from None
    if parts.scheme == "tcp" and parts.hostname and port is not None and parts.path in {"", "/"}:
        return Address(host=parts.hostname, port=port)
    path = parts.netloc + parts.path
    if parts.scheme == "unix" and path and len(path.encode()) <= _LONGEST_PATH:
        return Address(path=Path(path))
    raise _invalid(uri)


def bind(address: Address) -> list[socket.socket]:
    """Return listening sockets: one for each address that a host name stands for.

    Raises
    ------
    ConfigError
        If the address cannot be had, or another service answers there.
    """
    try:
        return [_bound_to_path(address.path)] if address.path else _bound_to_port(address)
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "Give another --uri."
        if error.errno == errno.EADDRINUSE:
            remedy = "End the program that listens there, or give another --uri."
        raise ConfigError(
            f"An address of the Wyoming service must be free and of this machine. Received: "
            f"{address} ({reason}). {remedy}"
        ) from error


def _bound_to_port(address: Address) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    port = address.port
    try:
        for family, _, _, _, place in dict.fromkeys(
            socket.getaddrinfo(address.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        ):
            listening = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and address.host != "::":
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((place[0], port, *place[2:]))
            listening.listen(_BACKLOG)
            port = listening.getsockname()[1]  # of the first, where port 0 leaves the choice
    except OSError:
        for listening in sockets:
            listening.close()
        raise
    return sockets


def _bound_to_path(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_left_over(path)
        listening.bind(str(path))
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _remove_left_over(path: Path) -> None:
    """Remove the socket of a service that has ended without removing it."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EADDRINUSE, "a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        else:
            raise OSError(errno.EADDRINUSE, "another service answers there")


def _invalid(uri: str) -> ConfigError:
    return ConfigError(
        f"An address must be tcp://HOST:PORT or unix:///PATH, with a path of up to "
        f"{_LONGEST_PATH} bytes. Received: {uri}. Give {DEFAULT_URI}, for example."
    )
