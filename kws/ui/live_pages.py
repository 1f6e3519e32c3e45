"""The open pages: 20 frames a second for all, each page behind a bounded queue of its own.

A frame is encoded once for all pages. A page that does not read loses the oldest frames, and is
disconnected after five seconds: nothing else waits for it.
"""

import asyncio
import contextlib
import time
from collections import deque

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from kws.ui.feed import LiveFeed

__all__ = ["FRAME_S", "LivePages", "until_gone"]

FRAME_S = 0.05
_MAX_QUEUED = 40
_SEND_S = 5.0
_TRY_AGAIN_LATER = 1013


class LivePages:
    """Send a feed to every open page.

    Parameters
    ----------
    feed : LiveFeed
    max_pages : int
        A further page is told so and disconnected.

    Attributes
    ----------
    n_dropped : int
        Frames that pages did not take in time.
    """

    def __init__(self, feed: LiveFeed, *, max_pages: int) -> None:
        self._feed = feed
        self._max_pages = max_pages
        self._pages: set[_Page] = set()
        self._ticking: asyncio.Task[None] | None = None
        self.n_dropped = 0

    def __len__(self) -> int:
        """Return the number of pages that are served."""
        return len(self._pages)

    async def serve(self, socket: WebSocket) -> None:
        """Serve one page until it is closed, or does not read for five seconds."""
        if len(self._pages) >= self._max_pages:
            await _refuse(socket, self._max_pages)
            return
        page = _Page()
        page.put(msgspec.json.encode({"kind": "recent", "events": self._feed.recent()}).decode())
        self._pages.add(page)
        self._start()
        try:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(page.send_to(socket))
                await until_gone(socket)
                sending.cancel()
        except* (TimeoutError, WebSocketDisconnect, OSError, RuntimeError):
            pass  # it does not read, or is gone
        finally:
            self._pages.discard(page)
            self.n_dropped += page.n_dropped
            if not self._pages:
                self._feed.is_watched = False
        if socket.application_state is not WebSocketState.DISCONNECTED:
            with contextlib.suppress(TimeoutError, OSError, RuntimeError, WebSocketDisconnect):
                async with asyncio.timeout(1.0):
                    await socket.close()

    def _start(self) -> None:
        if self._feed.is_watched:
            return
        self._feed.forget()
        self._feed.is_watched = True
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        """Send a frame every 50 ms while there are pages."""
        last_s = due_s = time.monotonic()
        while self._pages:
            due_s = max(due_s + FRAME_S, time.monotonic())
            await asyncio.sleep(due_s - time.monotonic())
            now_s = time.monotonic()
            frames, events = self._feed.take(now_s - last_s)
            last_s = now_s
            if frames or events:
                self._broadcast({"kind": "frame", "sources": frames, "events": events})

    def _broadcast(self, message: object) -> None:
        text = msgspec.json.encode(message).decode()
        for page in self._pages:
            page.put(text)


class _Page:
    """A bounded queue of messages for one page."""

    def __init__(self) -> None:
        self._queue: deque[str] = deque(maxlen=_MAX_QUEUED)
        self._has_news = asyncio.Event()
        self.n_dropped = 0

    def put(self, text: str) -> None:
        self.n_dropped += len(self._queue) == self._queue.maxlen
        self._queue.append(text)
        self._has_news.set()

    async def send_to(self, socket: WebSocket) -> None:
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            while self._queue:
                async with asyncio.timeout(_SEND_S):
                    await socket.send_text(self._queue.popleft())


async def until_gone(socket: WebSocket) -> None:
    """Wait until the page closes the socket; what it sends is ignored."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


async def _refuse(socket: WebSocket, most: int) -> None:
    reason = (
        f"At most {most} pages may be open. Close another one, or raise `[ui] max_pages` in "
        f"kws.toml."
    )
    with contextlib.suppress(OSError, RuntimeError, WebSocketDisconnect):
        await socket.send_text(msgspec.json.encode({"kind": "refused", "error": reason}).decode())
        await socket.close(_TRY_AGAIN_LATER)
