"""Debug recordings: what each client sends, as the models get it, in clips of up to a minute."""

import asyncio
import io
import logging
import wave
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.sinks.clip_folder import ClipFolder

__all__ = ["Recording", "Recordings"]

_MOST_CLIPS, _MOST_BYTES, _MOST_DAYS = 1000, 1_000_000_000, 30.0
_CLIP_SAMPLES = 60 * SAMPLE_RATE_HZ
_MOST_WAITING = 32

_log = logging.getLogger("kws.wyoming")


class Recordings:
    """A folder of recordings that holds 1000 clips, 1 GB and 30 days at most.

    Files are written in threads; what a slow disk would keep waiting is dropped and logged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = ClipFolder(
            folder, max_clips=_MOST_CLIPS, max_bytes=_MOST_BYTES, max_days=_MOST_DAYS
        )
        self._writing: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def begin(self, client: int) -> "Recording":
        """Return what records one stream of a client."""
        return Recording(self, client)

    def write(self, client: int, pieces: list[Samples]) -> None:
        """Write a clip; never waits."""
        if len(self._writing) >= _MOST_WAITING:
            _log.warning("The disk is too slow for debug recordings: a clip is dropped.")
            return
        now = datetime.now(UTC)
        task = asyncio.create_task(self._write(f"client{client}", pieces, now))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Wait until everything is written."""
        if self._writing:
            await asyncio.wait(list(self._writing))

    async def _write(self, name: str, pieces: list[Samples], now: datetime) -> None:
        async with self._turn:
            try:
                await asyncio.to_thread(
                    lambda: self._folder.write(name, {"wav": _wav(pieces)}, now=now)
                )
            except OSError as error:
                _log.warning("A debug recording could not be written: %s", error)


class Recording:
    """The recording of one stream."""

    def __init__(self, recordings: Recordings, client: int) -> None:
        self._recordings = recordings
        self._client = client
        self._pieces: list[Samples] = []
        self._n_samples = 0

    def add(self, samples: Samples) -> None:
        """Append samples; a full clip is written and the next one begun."""
        self._pieces.append(samples.copy())
        self._n_samples += len(samples)
        if self._n_samples >= _CLIP_SAMPLES:
            self.end()

    def end(self) -> None:
        """Write what is left."""
        if self._n_samples:
            self._recordings.write(self._client, self._pieces)
        self._pieces, self._n_samples = [], 0


def _wav(pieces: list[Samples]) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes(np.concatenate(pieces).astype("<i2").tobytes())
    return content.getvalue()
