"""Levels, posteriors and events, handed from the thread of the audio to that of the pages.

`put` and `send` only append to bounded queues: whatever a browser does, the audio does not wait.
While no page is open, `is_watched` is False and nothing is collected but the last events.
"""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import numpy as np

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.detector import Posteriors
from kws.events import End, Event, Peak, rfc3339

__all__ = ["LEVEL_S", "AudioTap", "LiveFeed", "ShownEvent", "SourceFrame", "levels_dbfs"]

LEVEL_S = 0.02
"""Time between two levels."""
_FLOOR_DBFS = -90.0
_LATE_S = 0.6
"""A frame is at most this much behind the newest audio."""
_LAG_S = 0.1
_MAX_LEVELS = 250
_MAX_POSTERIORS = 500
_MAX_EVENTS = 200
_N_RECENT = 50
_TAP_S = 5.0


class ShownEvent(msgspec.Struct, frozen=True):
    """An event and when it came, RFC 3339 in UTC."""

    time: str
    event: Event


class SourceFrame(msgspec.Struct, frozen=True):
    """What a scope draws next of one source.

    Attributes
    ----------
    name : str
    start_s : float
        Time of the first level in the source; one follows every `LEVEL_S`.
    levels : list of float
        dB re full-scale square wave, of 20 ms each.
    gate_open : bool
        Whether models ran at its end.
    posteriors : list of Posteriors
    """

    name: str
    start_s: float
    levels: list[float]
    gate_open: bool
    posteriors: list[Posteriors]


@dataclass
class _Queued:
    """What was collected of one source and is not taken yet."""

    levels: deque[tuple[float, float, bool]] = field(
        default_factory=lambda: deque(maxlen=_MAX_LEVELS)
    )
    posteriors: deque[Posteriors] = field(default_factory=lambda: deque(maxlen=_MAX_POSTERIORS))
    shown_s: float | None = None


class AudioTap:
    """The audio of one source for a second reader, which may lose some: five seconds are kept."""

    def __init__(self) -> None:
        self._blocks: deque[bytes] = deque()
        self._n_bytes = 0
        self._lock = threading.Lock()

    def put(self, audio: bytes) -> None:
        """Append s16le, mono, 16 kHz; the oldest is dropped beyond five seconds."""
        with self._lock:
            self._blocks.append(audio)
            self._n_bytes += len(audio)
            while self._n_bytes > 2 * _TAP_S * SAMPLE_RATE_HZ:
                self._n_bytes -= len(self._blocks.popleft())

    def take(self) -> bytes:
        """Return the audio since the last call."""
        with self._lock:
            taken = b"".join(self._blocks)
            self._blocks.clear()
            self._n_bytes = 0
        return taken


class LiveFeed:
    """What pages show of the sources.

    Attributes
    ----------
    is_watched : bool
        Whether a page is open; set by the thread of the pages.
    """

    def __init__(self) -> None:
        self.is_watched = False
        self._lock = threading.Lock()
        self._sources: dict[str, _Queued] = {}
        self._events: deque[ShownEvent] = deque(maxlen=_MAX_EVENTS)
        self._recent: deque[ShownEvent] = deque(maxlen=_N_RECENT)
        self._taps: list[tuple[str, AudioTap]] = []

    def put(
        self,
        source: str,
        audio: bytes,
        *,
        start_sample: int,
        gate_open: bool,
        posteriors: Iterable[Posteriors],
    ) -> None:
        """Append a block of a source, s16le, and what the models made of it; never waits."""
        levels = levels_dbfs(np.frombuffer(audio, "<i2"))
        start_s = start_sample / SAMPLE_RATE_HZ
        with self._lock:
            queued = self._sources.setdefault(source, _Queued())
            if queued.levels and start_s < queued.levels[-1][0]:  # the source began anew
                queued.levels.clear()
                queued.posteriors.clear()
            for i, level in enumerate(levels):
                queued.levels.append((start_s + i * LEVEL_S, level, gate_open))
            queued.posteriors.extend(posteriors)

    def tap(self, source: str) -> AudioTap:
        """Return a new tap of a source; `untap` ends it."""
        tap = AudioTap()
        self._taps = [*self._taps, (source, tap)]
        return tap

    def untap(self, tap: AudioTap) -> None:
        """End a tap."""
        self._taps = [one for one in self._taps if one[1] is not tap]

    def put_audio(self, source: str, audio: bytes) -> None:
        """Hand a block of a source to its taps."""
        for name, tap in self._taps:
            if name == source:
                tap.put(audio)

    def send(self, event: Event) -> None:
        """Append an event; never waits."""
        if isinstance(event, End):
            return
        shown = ShownEvent(rfc3339(datetime.now(UTC)), event)
        if not isinstance(event, Peak):
            self._recent.append(shown)
        if self.is_watched:
            self._events.append(shown)

    def recent(self) -> list[ShownEvent]:
        """Return the last events, oldest first."""
        return list(self._recent)

    def forget(self) -> None:
        """Drop what was collected, when the first page opens after a time without any."""
        with self._lock:
            self._sources.clear()
            self._events.clear()

    def take(self, elapsed_s: float) -> tuple[list[SourceFrame], list[ShownEvent]]:
        """Return what is to be shown after so much time, and the events since the last call.

        Audio comes in blocks of uneven times; frames follow the clock, about 0.1 s behind.
        """
        with self._lock:
            frames = [
                frame
                for name, queued in self._sources.items()
                if (frame := _next_frame(name, queued, elapsed_s))
            ]
        events = [self._events.popleft() for _ in range(len(self._events))]
        return frames, events


def levels_dbfs(samples: Samples) -> list[float]:
    """Return the level of each whole 20 ms [dB re full-scale square wave], -90 at least."""
    size = round(LEVEL_S * SAMPLE_RATE_HZ)
    blocks = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float32)
    power = np.square(blocks).mean(axis=1) / 32_768**2
    levels: list[float] = 10 * np.log10(np.maximum(power, 10 ** (_FLOOR_DBFS / 10)))
    return [round(float(level), 1) for level in levels]


def _next_frame(name: str, queued: _Queued, elapsed_s: float) -> SourceFrame | None:
    if not queued.levels:
        return None
    newest_s = queued.levels[-1][0]
    shown_s = newest_s - _LAG_S if queued.shown_s is None else queued.shown_s + elapsed_s
    if not newest_s - _LATE_S < shown_s <= newest_s + LEVEL_S:
        shown_s = newest_s - _LAG_S
    queued.shown_s = shown_s
    due = []
    while queued.levels and queued.levels[0][0] <= shown_s:
        due.append(queued.levels.popleft())
    if not due:
        return None
    posteriors = []
    while queued.posteriors and queued.posteriors[0].end_s <= shown_s:
        one = queued.posteriors.popleft()
        posteriors.append(one._replace(scores=[round(score, 3) for score in one.scores]))
    return SourceFrame(
        name, round(due[0][0], 3), [level for _, level, _ in due], due[-1][2], posteriors
    )
