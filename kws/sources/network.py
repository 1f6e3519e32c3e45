"""Raw s16le that somebody sends: each UDP datagram holds whole samples, a TCP stream any bytes.

One sender is heard at a time. Another is refused until the first has hung up (TCP), or has been
silent for `stall_s`. There is no encryption and nobody is asked who they are: listen on a loopback
or a trusted network.
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

from kws.audio import Samples
from kws.errors import ConfigError, DeviceError
from kws.sources.microphone import STALL_S
from kws.sources.pcm import Layout, samples_of
from kws.sources.polled import PolledSource

__all__ = ["TcpSource", "UdpSource", "is_address"]

_DATAGRAM_BYTES = 65_536
_KERNEL_BYTES = 1 << 20
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset
_SO_RXQ_OVFL = 40  # Linux: each datagram tells how many before it found the buffer full

_log = logging.getLogger("kws.sources")


def is_address(text: str) -> bool:
    """Return whether an `input` is meant as a port to listen on."""
    return text.startswith(("udp://", "tcp://"))


class _NetworkSource(PolledSource):
    """A bound socket, and the one sender that is heard.

    Parameters
    ----------
    address : str
        `udp://HOST:PORT` or `tcp://HOST:PORT` to listen on; port 0 lets the system choose.
    chunk_ms : int
        Length of a chunk.
    layout : Layout or None
        Of the samples; None is 16 kHz mono.
    stall_s : float
        A sender that was silent for so long gives way to another.

    Attributes
    ----------
    port : int

    Raises
    ------
    ConfigError
        If the address is none.
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
        self._layout = layout or Layout()
        self._stall_s = stall_s
        self._n_lost = 0
        self._last_s = 0.0
        self._has_refused = False
        host, port = _split(address)
        self._socket = _bound(host, port, kind=self._kind, address=address)
        self.port: int = self._socket.getsockname()[1]
        super().__init__(f"{address.partition('://')[0]}://{host}:{self.port}", chunk_ms=chunk_ms)
        self._prepare()

    @property
    def dropped_chunks(self) -> int:
        """How many pieces were lost: datagrams that came too fast, and ends that were no sample."""
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
        """Make the bound socket ready to hear."""

    @abstractmethod
    def _receive(self) -> bytes:
        """Wait for whole frames and return them; none where another look is due."""

    def _is_silent(self) -> bool:
        return time.monotonic() - self._last_s >= self._stall_s

    def _refuse(self, who: object) -> None:
        """Say so once for each sender that is heard."""
        if not self._has_refused:
            self._has_refused = True
            _log.warning("%s: %s is refused, as another sender is heard.", self.name, _shown(who))

    def _welcome(self, who: object) -> None:
        self._has_refused = False
        self._last_s = time.monotonic()
        _log.info("%s: hears %s.", self.name, _shown(who))


class UdpSource(_NetworkSource):
    """Datagrams of raw s16le; what is no whole sample at the end of one is dropped."""

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
        if sender != self._sender:
            if self._sender is not None and not self._is_silent():
                self._refuse(sender)
                return b""
            self._sender = sender
            self._welcome(sender)
        self._last_s = time.monotonic()
        n_bytes = len(data) - len(data) % self._layout.frame_bytes
        self._n_lost += n_bytes < len(data)
        return data[:n_bytes]

    def _count_overflows(self, extra: list[tuple[int, int, bytes]]) -> None:
        for level, kind, value in extra:
            if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                (n_overflowed,) = struct.unpack("I", value[:4])
                self._n_lost += (n_overflowed - self._n_overflowed) % (1 << 32)
                self._n_overflowed = n_overflowed

    def _let_go(self) -> None:
        self._socket.close()


class TcpSource(_NetworkSource):
    """A stream of raw s16le from one client after another, each from its first sample on."""

    _kind = socket.SOCK_STREAM

    def _prepare(self) -> None:
        self._socket.listen()
        self._client: socket.socket | None = None
        self._rest = b""

    def _receive(self) -> bytes:
        clients = [self._client.fileno()] if self._client else []
        ready = self._wait(self._socket.fileno(), *clients, timeout_s=None)
        # Before the newcomer is judged: what waits in the kernel is no silence.
        data = self._take() if clients and clients[0] in ready else b""
        if self._socket.fileno() in ready:
            self._admit()
        return data

    def _admit(self) -> None:
        try:
            client, who = self._socket.accept()
        except OSError:  # it has gone already
            return
        client.setblocking(False)
        if self._client and not self._is_silent():
            self._refuse(who)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            client.close()
            return
        self._hang_up()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._client = client
        self._welcome(who)

    def _take(self) -> bytes:
        """Return the whole frames that have come; the rest waits for what follows it."""
        try:
            data = self._client.recv(_DATAGRAM_BYTES) if self._client else b""
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return b""
        self._last_s = time.monotonic()
        data = self._rest + data
        n_bytes = len(data) - len(data) % self._layout.frame_bytes
        self._rest = data[n_bytes:]
        return data[:n_bytes]

    def _hang_up(self) -> None:
        """Let go of the client, and of what it left of a sample."""
        if self._client:
            self._client.close()
            _log.info("%s: the sender has gone; waiting for the next.", self.name)
        self._n_lost += bool(self._rest)
        self._client, self._rest = None, b""

    def _let_go(self) -> None:
        self._hang_up()
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
            f"The address to listen on must be this machine's, and its port free. Received: "
            f"{reason} for {address}. Choose another port, or end the program that holds it."
        ) from error
    return bound


def _shown(who: object) -> str:
    return f"{who[0]}:{who[1]}" if isinstance(who, tuple) else str(who)
