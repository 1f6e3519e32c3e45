"""The trial of an enrolled model: its spotter on the audio of one page."""

from pathlib import Path

import numpy as np
from starlette.websockets import WebSocket

from kws.audio import SAMPLE_RATE_HZ
from kws.events import Detection, NearMiss
from kws.spotter import Spotter
from kws.threads import in_thread
from kws.ui.audio_input import AudioRequest, read_audio, send
from kws.ui.feed import LiveFeed, SourceFrame, levels_dbfs
from kws.ui.host import PageModel
from kws.ui.requests import NotThereError

__all__ = ["try_model"]

_FRAME_SAMPLES = 960
"""Audio of a frame: 60 ms, whole levels."""
_NEAR_MISS_SCORE = 0.25


async def try_model(socket: WebSocket, feed: LiveFeed, request: AudioRequest, path: Path) -> None:
    """Run a model on the audio that a page gives or names, and send it frames and events.

    Raises
    ------
    KwsError
        If there is no such model, or it cannot be used.
    """
    if not path.is_file():
        raise NotThereError(
            f"There is no model of this word yet. Received: {request.word}. Enrol it first."
        )
    spotter = await in_thread(lambda: Spotter(path, near_miss_score=_NEAR_MISS_SCORE))
    (manifest,) = spotter.manifests
    spotter.keep_posteriors(True)
    model = PageModel(
        name=manifest.name,
        keywords=list(manifest.keywords),
        thresholds=spotter.thresholds,
        kind=manifest.decision.kind,
    )
    await send(socket, "model", model=model)
    pending, n_done = b"", 0
    async with read_audio(socket, feed, request) as audio:
        async for samples in audio:
            pending += samples.tobytes()
            while len(pending) >= 2 * _FRAME_SAMPLES:
                block, pending = pending[: 2 * _FRAME_SAMPLES], pending[2 * _FRAME_SAMPLES :]
                await _send_frame(socket, spotter, block, start_s=n_done / SAMPLE_RATE_HZ)
                n_done += _FRAME_SAMPLES


async def _send_frame(socket: WebSocket, spotter: Spotter, block: bytes, *, start_s: float) -> None:
    events: list[Detection | NearMiss] = [*spotter.process(block), *spotter.take_near_misses()]
    frame = SourceFrame(
        "trial",
        round(start_s, 3),
        levels_dbfs(np.frombuffer(block, "<i2")),
        spotter.gate_open,
        spotter.take_posteriors(),
    )
    await send(socket, "frame", frame=frame, events=events)
