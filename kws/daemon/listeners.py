"""One source and every model that hears it."""

import time
from collections import deque
from typing import NamedTuple, TypeVar

import numpy as np
from msgspec.structs import replace

from kws.audio import SAMPLE_RATE_HZ, level_dbfs
from kws.config import Config, GateSettings, ListenerSettings
from kws.daemon.backlog import Piece
from kws.daemon.source_supervisor import Ear
from kws.events import Detection, End, NearMiss
from kws.model import model_path
from kws.spotter import Spotter

__all__ = ["Channel", "Listener", "Voice", "voices_of"]

_HISTORY_S = 2.0
"""What a model that comes in by a reload is given first, so that no word under way is lost."""
_SAME_WORD_S = 0.5


_Word = TypeVar("_Word", Detection, NearMiss)


class Voice(NamedTuple):
    """All that makes a listener what it is; the same voice again needs no new one."""

    settings: ListenerSettings
    gate: GateSettings
    near_miss_score: float | None
    file: tuple[int, ...]
    """Which file the model was read from: its inode, size and time."""


class Listener:
    """A spotter, and where in its source's time it began.

    Parameters
    ----------
    spotter : Spotter
        For this listener alone.
    voice : Voice
        What it was made of.
    """

    def __init__(self, spotter: Spotter, voice: Voice) -> None:
        self.spotter = spotter
        self.voice = voice
        (self.name,) = (one.name for one in spotter.manifests)
        self._start_sample = 0

    @classmethod
    def open(cls, voice: Voice) -> "Listener":
        """Open the model; errors as in `Spotter`."""
        settings = voice.settings
        spotter = Spotter(
            settings,
            gate=voice.gate,
            decision=settings.decision,
            near_miss_score=voice.near_miss_score,
        )
        return cls(spotter, voice)

    def begin(self, start_sample: int) -> list[Detection]:
        """End the stream so far, return what is still heard in it, and begin one there."""
        found = self._placed(self.spotter.flush())
        self._start_sample = start_sample
        return found

    def hear(self, audio: bytes) -> list[Detection]:
        """Return what is heard in mono s16le."""
        return self._placed(self.spotter.process(audio))

    def near_misses(self) -> list[NearMiss]:
        """Return what came near a detection since the last call."""
        return self._placed(self.spotter.take_near_misses())

    def _placed(self, detections: list[_Word]) -> list[_Word]:
        start_s = self._start_sample / SAMPLE_RATE_HZ
        return [one.shifted(start_s) for one in detections]


class Channel:
    """An ear with its listeners.

    Parameters
    ----------
    ear : Ear
        Gives the audio.
    listeners : list of Listener
        New ones.

    Attributes
    ----------
    n_detections : int
    level_dbfs : float or None
        Of the last audio.
    cpu_s : float
        Spent on the audio, all stages.
    is_done : bool
        Whether the end of a file was told.
    """

    def __init__(self, ear: Ear, listeners: list[Listener]) -> None:
        self.ear = ear
        self.listeners = listeners
        self.n_detections = 0
        self.level_dbfs: float | None = None
        self.cpu_s = 0.0
        self.is_done = False
        self._position = 0
        self._is_deaf = False
        self._history: deque[bytes] = deque()
        self._recent: deque[Detection] = deque(maxlen=16)

    def hear(self, piece: Piece, *, is_muted: bool = False) -> list[Detection]:
        """Process a piece; after a gap in all stages anew.

        Parameters
        ----------
        piece : Piece
            The next one.
        is_muted : bool
            Pass over the piece: it is a gap.
        """
        started_s = time.thread_time()
        found: list[Detection] = []
        if piece.is_after_gap or is_muted != self._is_deaf:
            self._is_deaf = is_muted
            self._history.clear()
            for one in self.listeners:
                found += one.begin(piece.start_sample)
        if not is_muted:
            self._remember(piece)
            if piece.audio:
                self.level_dbfs = level_dbfs(np.frombuffer(piece.audio, "<i2"))
            for one in self.listeners:
                found += one.hear(piece.audio)
        self._position = piece.start_sample + len(piece.audio) // 2
        return self._counted(found, started_s)

    def near_misses(self) -> list[NearMiss]:
        """Return what came near a detection since the last call."""
        found = [miss for one in self.listeners for miss in one.near_misses()]
        return [replace(one, source=self.ear.label) for one in found]

    def adopt(self, listeners: list[Listener]) -> list[Detection]:
        """Go on with other listeners, of which any may be old; return what only new ones heard."""
        started_s = time.thread_time()
        audio = b"".join(self._history)
        found: list[Detection] = []
        for one in listeners:
            if one not in self.listeners:
                one.begin(self._position - len(audio) // 2)
                found += one.hear(audio)
        self.listeners = listeners
        return self._counted([one for one in found if not self._is_known(one)], started_s)

    def end(self) -> list[Detection]:
        """End the stream; return what is still heard."""
        return self.hear(Piece(self._position, b"", is_after_gap=True))

    def balance(self) -> End:
        """Return what a file that has ended comes to."""
        return End(
            audio_s=round(self.ear.backlog.n_received / SAMPLE_RATE_HZ, 3),
            detections=self.n_detections,
            cpu_s=round(self.cpu_s, 6),
            source=self.ear.label,
        )

    def _remember(self, piece: Piece) -> None:
        self._history.append(piece.audio)
        n_bytes = sum(map(len, self._history))
        while n_bytes - len(self._history[0]) >= 2 * _HISTORY_S * SAMPLE_RATE_HZ:
            n_bytes -= len(self._history.popleft())

    def _is_known(self, detection: Detection) -> bool:
        return any(
            known.keyword == detection.keyword
            and known.model == detection.model
            and abs(known.end_s - detection.end_s) < _SAME_WORD_S
            for known in self._recent
        )

    def _counted(self, found: list[Detection], started_s: float) -> list[Detection]:
        found = [replace(one, source=self.ear.label) for one in found]
        self._recent.extend(found)
        self.n_detections += len(found)
        self.cpu_s += time.thread_time() - started_s
        return found


def voices_of(config: Config) -> list[Voice]:
    """Return what is to listen to every source.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    recording = config.recording
    near_miss_score = recording.min_score if recording.folder else None
    voices = []
    for settings in config.every_model:
        at = model_path(settings.name).stat()
        file = (at.st_ino, at.st_size, at.st_mtime_ns)
        voices.append(Voice(settings, config.gate, near_miss_score, file))
    return voices
