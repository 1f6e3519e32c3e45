"""Listen within asyncio: python examples/asyncio_listen.py [RECORDING].

`process` takes about 2 ms per second of audio. What may wait is the source: it has a thread.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

import kws


async def detections(source: str) -> AsyncIterator[kws.Detection]:
    """Yield detections of a microphone or a file without blocking the event loop."""
    spotter = kws.Spotter("commands")
    with kws.open_source(kws.SourceSettings(input=source)) as audio:
        chunks = iter(audio)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            for detection in spotter.process(chunk):
                yield detection
    for detection in spotter.flush():
        yield detection


async def main() -> None:
    """Print detections, while something else goes on."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)

    ticking = asyncio.create_task(tick())
    async for detection in detections(sys.argv[1] if len(sys.argv) > 1 else "mic"):
        print(detection.keyword, detection.end_s)
    ticking.cancel()


asyncio.run(main())
