"""A service in the test's own loop, and clients of the package wyoming."""

import asyncio
import contextlib
import wave

import numpy as np
import pytest
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.wake import Detect

from kws.commands.demo import load_demo
from kws.config import WyomingSettings
from kws.wyoming.server import WyomingServer, catalog_of

MOST_S = 20.0


@pytest.fixture(scope="session")
def demo():
    """Return the path of the bundled recording, a minute with the ten words of `commands`."""
    return load_demo()[1]


@pytest.fixture(scope="session")
def demo_samples(demo):
    with wave.open(str(demo)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.fixture
def scenario():
    """Run a coroutine function with a service: `scenario(steps, **settings)`."""

    def run(steps, **settings):
        async def all_steps():
            async with serving(**settings) as server:
                return await asyncio.wait_for(steps(server), MOST_S)

        return asyncio.run(all_steps())

    return run


@contextlib.asynccontextmanager
async def serving(**settings):
    known = {"uri": ["tcp://127.0.0.1:0"], "models": ["commands"]}
    settings = WyomingSettings(**known | settings)
    server = WyomingServer(settings, await asyncio.to_thread(catalog_of, settings))
    await server.start()
    try:
        yield server
    finally:
        await server.close()


def client_of(server, i=0):
    return AsyncClient.from_uri(str(server.addresses[i]), read_timeout=MOST_S)


async def ask(client, request):
    await client.write_event(request.event())
    return await client.read_event()


async def stream(
    client, data, *, rate=16_000, width=2, channels=1, names=None, chunk_ms=64, start=True,
    timestamp=0, stop=True,
):  # fmt: skip
    """Stream PCM; return all events up to the end: `not-detected`, or the answer to a ping."""
    from wyoming.ping import Ping

    audio = {"rate": rate, "width": width, "channels": channels}
    if names is not None:
        await client.write_event(Detect(names=names).event())
    if start:
        await client.write_event(AudioStart(**audio).event())

    async def write():
        n_bytes = rate * chunk_ms // 1000 * width * channels
        for i in range(0, len(data), n_bytes):
            now = None if timestamp is None else timestamp + i // n_bytes * chunk_ms
            chunk = AudioChunk(**audio, audio=data[i : i + n_bytes], timestamp=now)
            await client.write_event(chunk.event())
        if stop:
            await client.write_event(AudioStop().event())
        await client.write_event(Ping(text="end").event())

    writing = asyncio.create_task(write())
    events = []
    while (event := await client.read_event()) and event.type != "pong":
        events.append(event)
    await writing
    return events
