"""A client's connection: events in and out, with bounds on waiting."""

import asyncio
import contextlib
import socket

from wyoming.error import Error
from wyoming.event import Event, async_write_event

from kws.wyoming.events import LONGEST_LINE, read_event

__all__ = ["Connection", "IdleError"]

_SEND_S = 10.0
_REFUSAL_S = 1.0
_UNSENT_BYTES = 65_536
_KEEPALIVE = (
    ("TCP_KEEPIDLE", 60),
    ("TCP_KEEPINTVL", 15),
    ("TCP_KEEPCNT", 4),
    ("TCP_USER_TIMEOUT", 60_000),
)


class IdleError(Exception):
    """A client has sent nothing for too long."""


class Connection:
    """Read and write the events of one client.

    Attributes
    ----------
    writer : asyncio.StreamWriter
    last_s : float
        When its last event came, by the loop's clock.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(_UNSENT_BYTES)
        self.writer = writer
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self.last_s = self._loop.time()

    async def next_event(self, most_s: float) -> Event | None:
        """Return the next event, None at the end; `IdleError` if it is not complete in time."""
        try:
            async with asyncio.timeout(most_s):
                event = await read_event(self._reader)
        except TimeoutError:
            raise IdleError from None
        self.last_s = self._loop.time()
        return event

    async def send(self, event: Event) -> None:
        """Send an event; TimeoutError if the client does not read what was sent before."""
        async with asyncio.timeout(_SEND_S):
            await async_write_event(event, self.writer)

    async def refuse(self, text: str, code: str) -> None:
        """Send an error, and take what the client still sends, so that it can read the error.

        A socket that is closed with bytes unread resets the connection.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REFUSAL_S):
                await async_write_event(Error(text=text, code=code).event(), self.writer)
                if self.writer.can_write_eof():
                    self.writer.write_eof()
                while await self._reader.read(LONGEST_LINE):
                    pass

    def keep_alive(self) -> None:
        """Have the kernel notice a client that has vanished, within two minutes."""
        connection = self.writer.get_extra_info("socket")
        if connection is None or connection.family == socket.AF_UNIX:
            return
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
