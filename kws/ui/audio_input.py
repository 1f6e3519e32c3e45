"""Audio for takes and trials: the browser's microphone, or a source of this machine.

A browser sends s16le, mono, at a rate of its own, in binary messages. A source is the one that the
daemon listens to anyway, so that no microphone is opened twice.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator

import msgspec
import numpy as np
from starlette.websockets import WebSocket

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ, Resampler, check_rate, to_int16
from kws.errors import ConfigError
from kws.ui.feed import LiveFeed
from kws.ui.live_pages import until_gone

__all__ = ["BROWSER", "AudioRequest", "read_audio", "receive", "send"]

BROWSER = "browser"
"""The input that stands for the microphone of the browser."""
_POLL_S = 0.05
_REQUEST_S = 10.0
_MAX_S = 600.0


class AudioRequest(msgspec.Struct, kw_only=True, frozen=True):
    """Which audio a page wants to be used; the first message of its WebSocket.

    Attributes
    ----------
    word : str
    input : str
        `BROWSER`, or the name of a source.
    rate_hz : int
        Of what a browser sends.
    speaker : str
    n_takes : int
        Takes wanted, existing ones included.
    """

    word: str
    input: str = BROWSER
    rate_hz: int = SAMPLE_RATE_HZ
    speaker: str = "me"
    n_takes: int = 5


async def receive(socket: WebSocket) -> AudioRequest:
    """Return the request that a page sends first.

    Raises
    ------
    KwsError
        If it is not as it must be, or does not come.
    """
    try:
        async with asyncio.timeout(_REQUEST_S):
            text = await socket.receive_text()
        return msgspec.json.decode(text, type=AudioRequest)
    except (msgspec.DecodeError, KeyError, TimeoutError) as error:
        raise ConfigError(
            f"A page must first say what it wants. Received: {error or 'nothing'}. Load it again."
        ) from error


async def send(socket: WebSocket, kind: str, **fields: object) -> None:
    """Send a message to the page."""
    await socket.send_text(msgspec.json.encode({"kind": kind, **fields}).decode())


@contextlib.asynccontextmanager
async def read_audio(
    socket: WebSocket, feed: LiveFeed, request: AudioRequest
) -> AsyncIterator[AsyncIterator[Samples]]:
    """Give int16 at 16 kHz until the page closes the socket, for ten minutes at most.

    Raises
    ------
    KwsError
        If the rate is none of audio.
    """
    if request.input == BROWSER:
        audio = _of_browser(socket, request)
    else:
        audio = _of_source(socket, feed, request.input)
    async with contextlib.aclosing(_limited(audio)) as limited, contextlib.aclosing(audio):
        yield limited


async def _limited(audio: AsyncIterator[Samples]) -> AsyncGenerator[Samples, None]:
    end_s = time.monotonic() + _MAX_S
    async for samples in audio:
        yield samples
        if time.monotonic() > end_s:
            raise ConfigError("This page has listened for ten minutes. Start again.")


async def _of_browser(socket: WebSocket, request: AudioRequest) -> AsyncGenerator[Samples, None]:
    check_rate(request.rate_hz, name="the browser")
    is_same = request.rate_hz == SAMPLE_RATE_HZ
    resampler = None if is_same else Resampler(request.rate_hz)
    half = b""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data = half + (message.get("bytes") or b"")
        n_whole = len(data) // 2 * 2
        half = data[n_whole:]
        samples = np.frombuffer(data[:n_whole], "<i2").astype(np.int16)
        if resampler:
            samples = to_int16(resampler.process(samples.astype(np.float32)))
        yield samples


async def _of_source(
    socket: WebSocket, feed: LiveFeed, source: str
) -> AsyncGenerator[Samples, None]:
    tap = feed.tap(source)
    gone = asyncio.create_task(until_gone(socket))
    try:
        while not gone.done():
            if audio := tap.take():
                yield np.frombuffer(audio, "<i2").astype(np.int16)
            await asyncio.sleep(_POLL_S)
    finally:
        feed.untap(tap)
        gone.cancel()
