"""Raw PCM received over the network: whole samples in UDP datagrams, or a TCP stream.

One sender is accepted at a time. Others are refused until it has disconnected (TCP), or has been
silent for `stall_s`. There is neither encryption nor authentication: listen on the loopback or a
trusted network.
"""

import contextlib
import logging
import re
import socket
import struct
import time
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from kws.arrays import Samples
from kws.errors import ConfigError, DeviceError
from kws.sources.byte_formats import sniff
from kws.sources.pcm import Layout, samples_of
from kws.sources.source import STALL_S, PolledSource, require_pipes

__all__ = ["TcpSource", "UdpSource", "is_address"]

_DATAGRAM_BYTES = 65_536
_KERNEL_BYTES = 1 << 20
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset
_SO_RXQ_OVFL = 40  # Linux: each datagram carries the count of those dropped before it

_log = logging.getLogger("kws.sources")


def is_address(text: str) -> bool:
    """Return whether an `input` is the address of a port to listen on."""
    return text.startswith(("udp://", "tcp://"))


class _NetworkSource(PolledSource):
    """A bound socket and its current sender.

    Parameters
    ----------
    address : str
        `udp://HOST:PORT` or `tcp://HOST:PORT` to listen on; port 0 lets the system choose.
    chunk_ms : int
        Length of a chunk.
    layout : Layout or None
        Of the samples; None is 16 kHz mono.
    stall_s : float
        A sender that was silent for so long is replaced by the next.

    Attributes
    ----------
    port : int

    Raises
    ------
    ConfigError
        If the address is malformed.
    DeviceError
        If it cannot be listened on.
    """

    _kind: ClassVar[socket.SocketKind]

    def __init__(
        self,
        address: str,
        *,
        chunk_ms: int,
        layout: Layout | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        require_pipes(f"The source {address}")
        self._layout = layout or Layout()
        self._stall_s = stall_s
        self._n_lost = 0
        self._last_s = 0.0
        self._has_rejected = False
        host, port = _split(address)
        self._socket = _bound(host, port, kind=self._kind, address=address)
        self.port: int = self._socket.getsockname()[1]
        super().__init__(f"{address.partition('://')[0]}://{host}:{self.port}", chunk_ms=chunk_ms)
        self._prepare()

    @property
    def dropped_chunks(self) -> int:
        """Number of losses: datagrams dropped by the kernel, and incomplete samples."""
        return self._n_lost

    def _read(self) -> Iterator[Samples]:
        return samples_of(self._blocks(), self._layout, name=self.name)

    def _blocks(self) -> Iterator[bytes]:
        """Yield whole frames until it is closed."""
        while not self._closed:
            with self._using() as is_open:
                data = self._receive() if is_open else b""
            if data:
                yield data

    @abstractmethod
    def _prepare(self) -> None:
        """Prepare the bound socket for receiving."""

    @abstractmethod
    def _receive(self) -> bytes:
        """Wait for whole frames and return them; empty if none arrived yet."""

    def _is_silent(self) -> bool:
        return time.monotonic() - self._last_s >= self._stall_s

    def _reject(self, sender: object) -> None:
        """Log a refused sender, once for each accepted one."""
        if not self._has_rejected:
            self._has_rejected = True
            _log.warning("%s: refused %s, as another sender is active.", self.name, _shown(sender))

    def _accept(self, sender: object) -> None:
        self._has_rejected = False
        self._last_s = time.monotonic()
        _log.info("%s: accepted %s.", self.name, _shown(sender))


class UdpSource(_NetworkSource):
    """Datagrams of raw PCM; an incomplete sample at the end of one is dropped."""

    _kind = socket.SOCK_DGRAM

    def _prepare(self) -> None:
        self._sender: object = None
        self._n_overflowed = 0
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BYTES)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)

    def _receive(self) -> bytes:
        if not self._wait(self._socket.fileno(), timeout_s=None):
            return b""
        try:
            data, extra, _, sender = self._socket.recvmsg(_DATAGRAM_BYTES, socket.CMSG_SPACE(4))
        except (BlockingIOError, ConnectionError):
            return b""
        self._count_overflows(extra)
        n_bytes = len(data) - len(data) % self._layout.frame_bytes
        self._n_lost += n_bytes < len(data)
        if not n_bytes:  # only audio makes a sender, and keeps it
            return b""
        if sender != self._sender:
            if self._sender is not None and not self._is_silent():
                self._reject(sender)
                return b""
            self._sender = sender
            self._accept(sender)
        self._last_s = time.monotonic()
        return data[:n_bytes]

    def _count_overflows(self, extra: list[tuple[int, int, bytes]]) -> None:
        for level, kind, value in extra:
            if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                (n_overflowed,) = struct.unpack("I", value[:4])
                self._n_lost += (n_overflowed - self._n_overflowed) % (1 << 32)
                self._n_overflowed = n_overflowed

    def _release(self) -> None:
        self._socket.close()


class TcpSource(_NetworkSource):
    """Streams of raw PCM from one client after another."""

    _kind = socket.SOCK_STREAM

    def _prepare(self) -> None:
        self._socket.listen()
        self._client: socket.socket | None = None
        self._rest = b""
        self._is_first = True

    def _receive(self) -> bytes:
        clients = [self._client.fileno()] if self._client else []
        ready = self._wait(self._socket.fileno(), *clients, timeout_s=None)
        # Before the new client: data that waits in the kernel is no silence.
        data = self._receive_client() if clients and clients[0] in ready else b""
        if self._socket.fileno() in ready:
            self._accept_client()
        return data

    def _accept_client(self) -> None:
        try:
            client, who = self._socket.accept()
        except OSError:  # it has disconnected already
            return
        client.setblocking(False)
        if self._client and not self._is_silent():
            self._reject(who)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            client.close()
            return
        self._drop_client()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._client, self._is_first = client, True
        self._accept(who)

    def _receive_client(self) -> bytes:
        """Return the whole frames received; an incomplete one waits for its rest."""
        try:
            data = self._client.recv(_DATAGRAM_BYTES) if self._client else b""
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if data and self._is_first and (kind := sniff(data)):
            _log.warning(
                "%s: a sender must send raw %s. Received: %s. It was disconnected; let it send "
                "`ffmpeg … -f s16le -ar 16000 -ac 1 tcp://HOST:PORT`.",
                self.name,
                self._layout,
                kind,
            )
            data = b""
        self._is_first = False
        if not data:
            self._drop_client()
            return b""
        data = self._rest + data
        n_bytes = len(data) - len(data) % self._layout.frame_bytes
        if n_bytes:
            self._last_s = time.monotonic()
        self._rest = data[n_bytes:]
        return data[:n_bytes]

    def _drop_client(self) -> None:
        """Close the client and discard its incomplete sample."""
        if self._client:
            self._client.close()
            _log.info("%s: the sender has disconnected; waiting for the next.", self.name)
        self._n_lost += bool(self._rest)
        self._client, self._rest = None, b""

    def _release(self) -> None:
        self._drop_client()
        self._socket.close()


def _split(address: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:udp|tcp)://(\[[0-9a-fA-F:.%\w]+\]|[^\[\]/:@\s]+):(\d{1,5})", address)
    if not found or int(found[2]) > 65_535:
        raise ConfigError(
            f"An address to listen on must be `udp://HOST:PORT` or `tcp://HOST:PORT`, its port up "
            f"to 65535. Received: {address}. Write for example `udp://127.0.0.1:10700`."
        )
    return found[1], int(found[2])


def _bound(host: str, port: int, *, kind: socket.SocketKind, address: str) -> socket.socket:
    try:
        family, *_, where = socket.getaddrinfo(host.strip("[]"), port, type=kind)[0]
        bound = socket.socket(family, kind)
        try:
            if kind == socket.SOCK_STREAM:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setblocking(False)
            bound.bind(where)
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DeviceError(
            f"Cannot listen on {address}: {reason}. Choose an address of this machine and a free "
            f"port, or end the program that holds it."
        ) from error
    return bound


def _shown(sender: object) -> str:
    return f"{sender[0]}:{sender[1]}" if isinstance(sender, tuple) else str(sender)
