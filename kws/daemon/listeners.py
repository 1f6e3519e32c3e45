"""One source with the models that run on it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from msgspec.structs import replace

from kws.audio import SAMPLE_RATE_HZ, level_dbfs
from kws.config import Config, GateSettings, ListenerSettings
from kws.daemon.backlog import AudioBlock
from kws.daemon.source_supervisor import SourceSupervisor
from kws.detector import Posteriors
from kws.errors import ModelError
from kws.events import Detection, End, NearMiss, Peak
from kws.model import model_path
from kws.spotter import Spotter
from kws.surest import SurestDetections, Timed

__all__ = ["Listener", "ListenerKey", "SourceListeners", "listener_keys"]

_HISTORY_S = 2.0
"""Audio replayed to a model added by a reload, so that a word in progress is not lost."""
_SAME_WORD_S = 0.5
"""Detections of one keyword that end within this time are of the same word."""

_SLICE_S = 0.1
"""Audio that a new model gets at once: short, as the loop waits for it."""

_SHOWN_SCORE = 0.3
"""Least score of the near misses on the page of `[ui]`."""

_Event = TypeVar("_Event", Detection, NearMiss, Peak)


class ListenerKey(NamedTuple):
    """All settings of a listener: a reload keeps the listeners whose key is the same."""

    settings: ListenerSettings
    gate: GateSettings
    near_miss_score: float | None
    file: tuple[int, ...]
    """Inode, size and time of the model file."""


class Listener:
    """A spotter on one source, with the sample at which its stream began.

    Parameters
    ----------
    spotter : Spotter
        Not shared with other listeners.
    key : ListenerKey
        Its settings.

    Attributes
    ----------
    position : int
        Number of the next sample.
    stream : int or None
        Which of the streams of its source it processes, counted by gaps; None: none yet.
    has_failed : bool
        Whether its model has ended by an error.
    """

    def __init__(self, spotter: Spotter, key: ListenerKey) -> None:
        self.spotter = spotter
        self.key = key
        (self.name,) = (one.name for one in spotter.manifests)
        self._start_sample = self.position = 0
        self.stream: int | None = None
        self.has_failed = False
        self._near_misses: list[NearMiss] = []
        self._peaks: list[Peak] = []

    @classmethod
    def open(cls, key: ListenerKey) -> "Listener":
        """Open the model; errors as in `Spotter`."""
        settings = key.settings
        spotter = Spotter(
            settings,
            gate=key.gate,
            decision=settings.decision,
            near_miss_score=key.near_miss_score,
        )
        return cls(spotter, key)

    def restart(self, start_sample: int) -> list[Detection]:
        """End the stream, return its last detections, and begin a stream at a sample."""
        found = self._in_source_time(self.spotter.flush())
        self._near_misses, self._peaks = self.take_near_misses(), self.take_peaks()
        self._start_sample = self.position = start_sample
        return found

    def process(self, audio: bytes) -> list[Detection]:
        """Process mono s16le; return the detections."""
        self.position += len(audio) // 2
        return self._in_source_time(self.spotter.process(audio))

    def take_near_misses(self) -> list[NearMiss]:
        """Return the near misses since the last call."""
        ended, self._near_misses = self._near_misses, []
        return ended + self._in_source_time(self.spotter.take_near_misses())

    def take_peaks(self) -> list[Peak]:
        """Return the peaks of detections whose rise has ended since the last call."""
        ended, self._peaks = self._peaks, []
        return ended + self._in_source_time(self.spotter.take_peaks())

    def take_posteriors(self) -> list[Posteriors]:
        """Return the posteriors of all outputs since the last call."""
        offset_s = self._start_sample / SAMPLE_RATE_HZ
        found = self.spotter.take_posteriors()
        return [one._replace(end_s=round(one.end_s + offset_s, 3)) for one in found]

    def _in_source_time(self, events: list[_Event]) -> list[_Event]:
        offset_s = self._start_sample / SAMPLE_RATE_HZ
        return [event.shifted(offset_s) for event in events]


class SourceListeners:
    """One source with its listeners.

    Parameters
    ----------
    supervisor : SourceSupervisor
        Of the source.
    listeners : list of Listener
        New ones, one for each model.

    Attributes
    ----------
    n_detections : int
    level_dbfs : float or None
        Of the last block.
    cpu_s : float
        CPU seconds spent on the audio, all stages.
    is_finished : bool
        Whether the end of a file was reported.
    failures : list of str
        Errors of models that ended while they ran; the caller removes them.
    """

    def __init__(self, supervisor: SourceSupervisor, listeners: list[Listener]) -> None:
        self.supervisor = supervisor
        self.listeners = listeners
        self.n_detections = 0
        self.level_dbfs: float | None = None
        self.cpu_s = 0.0
        self.is_finished = False
        self.failures: list[str] = []
        self._early: list[Detection] = []
        self._n_streams = 0
        self._position = 0
        self._is_muted = False
        self._history: deque[bytes] = deque()
        self._recent: deque[Detection] = deque(maxlen=16)
        self._surest = _surest(listeners)
        self._peaks: list[Peak] = []

    def process(self, block: AudioBlock, *, is_muted: bool = False) -> list[Detection]:
        """Process a block with every listener; after a gap, all stages are reset first.

        Parameters
        ----------
        block : AudioBlock
            The next one.
        is_muted : bool
            Skip the block, as if it were a gap.
        """
        started_s = time.thread_time()
        found: list[Detection] = []
        if block.is_after_gap or is_muted != self._is_muted:
            self._is_muted = is_muted
            self._history.clear()
            self._n_streams += 1
            found = self._run_each(lambda one: one.restart(block.start_sample))
            found = self._chosen(found, position=self._position) + self._surest.flush()
        if not is_muted:
            self._remember(block)
            if block.audio:
                self.level_dbfs = level_dbfs(np.frombuffer(block.audio, "<i2"))
            new = self._run_each(lambda one: one.process(block.audio))
            found += self._chosen(new, position=block.start_sample + len(block.audio) // 2)
        self._position = block.start_sample + len(block.audio) // 2
        return self._counted(found, started_s)

    def take_near_misses(self) -> list[NearMiss]:
        """Return the near misses of all listeners since the last call."""
        found = [miss for listener in self.listeners for miss in listener.take_near_misses()]
        return [replace(miss, source=self.supervisor.label) for miss in found]

    def take_peaks(self) -> list[Peak]:
        """Return the peaks of the detections of all listeners since the last call."""
        found = [peak for listener in self.listeners for peak in listener.take_peaks()]
        ended, self._peaks = self._peaks, []
        found = ended + self._surest.peaks(found)
        return [replace(peak, source=self.supervisor.label) for peak in found]

    def keep_posteriors(self, keep: bool, /) -> None:
        """Keep the posteriors of all listeners for `take_posteriors`, or no longer."""
        for listener in self.listeners:
            listener.spotter.keep_posteriors(keep)

    def take_posteriors(self) -> list[Posteriors]:
        """Return the posteriors of all listeners since the last call."""
        return [one for listener in self.listeners for one in listener.take_posteriors()]

    @property
    def gate_open(self) -> bool:
        """Whether a model runs on the source now."""
        return any(one.spotter.gate_open for one in self.listeners)

    async def warm_up(self, listeners: list[Listener]) -> None:
        """Run new listeners on the last 2 s of audio, in slices between which the loop runs.

        `replace_listeners` does what is left, and returns the detections.
        """
        n_slices = round(4 * _HISTORY_S / _SLICE_S)  # one that cannot keep up is waited for no more
        for listener in listeners:
            for _ in range(n_slices):
                if listener in self.listeners or listener.has_failed or self._is_current(listener):
                    break
                self._early += self._run(listener, lambda one: self._catch_up(one, _SLICE_S))
                await asyncio.sleep(0)

    def replace_listeners(self, listeners: list[Listener]) -> list[Detection]:
        """Continue with other listeners; the new ones among them first get the last 2 s of audio.

        Returns
        -------
        list of Detection
            Those of new listeners in that audio, without words that were detected before.
        """
        started_s = time.thread_time()
        found, self._early = self._early, []
        listeners = [one for one in listeners if not one.has_failed]
        new = [one for one in listeners if one not in self.listeners]
        self.listeners = listeners
        for listener in new:
            found += self._run(listener, lambda one: self._catch_up(one, _HISTORY_S + _SLICE_S))
        chosen = self._surest.flush()
        self._peaks += self._surest.peaks([])
        self._surest = _surest(self.listeners)
        unknown = [one for one in found if not self._is_known(one, chosen)]
        chosen += self._chosen(unknown, position=self._position)
        return self._counted(chosen, started_s)

    def flush(self) -> list[Detection]:
        """End the stream; return its last detections."""
        return self.process(AudioBlock(self._position, b"", is_after_gap=True))

    def end_event(self) -> End:
        """Return the event for the end of a file."""
        return End(
            audio_s=round(self.supervisor.backlog.n_received / SAMPLE_RATE_HZ, 3),
            detections=self.n_detections,
            cpu_s=round(self.cpu_s, 6),
            source=self.supervisor.label,
        )

    def _run_each(self, action: Callable[[Listener], list[Detection]]) -> list[Detection]:
        return [found for one in list(self.listeners) for found in self._run(one, action)]

    def _run(
        self, listener: Listener, action: Callable[[Listener], list[Detection]]
    ) -> list[Detection]:
        """Return what a listener detects; one whose model fails is ended, and nothing else."""
        try:
            return action(listener)
        except ModelError as error:
            self.listeners = [one for one in self.listeners if one is not listener]
            listener.has_failed = True
            self.failures.append(
                f"The model `{listener.name}` has ended on {self.supervisor.label}; a reload opens "
                f"it again. {error}"
            )
            return []

    def _is_current(self, listener: Listener) -> bool:
        return listener.stream == self._n_streams and listener.position >= self._position

    def _catch_up(self, listener: Listener, most_s: float) -> list[Detection]:
        """Run a new listener on the next seconds of the history; the stream's start resets it."""
        audio = b"".join(self._history)
        start = self._position - len(audio) // 2
        found: list[Detection] = []
        if listener.stream != self._n_streams or listener.position < start:
            listener.stream = self._n_streams
            found += listener.restart(start)
        at = 2 * (listener.position - start)
        return found + listener.process(audio[at : at + 2 * round(most_s * SAMPLE_RATE_HZ)])

    def _remember(self, block: AudioBlock) -> None:
        self._history.append(block.audio)
        n_bytes = sum(map(len, self._history))
        while n_bytes - len(self._history[0]) >= 2 * _HISTORY_S * SAMPLE_RATE_HZ:
            n_bytes -= len(self._history.popleft())

    def _chosen(self, found: list[Detection], *, position: int) -> list[Detection]:
        """Return the detections that are chosen by a sample, one for each utterance."""
        now_s = position / SAMPLE_RATE_HZ
        found.sort(key=lambda one: one.end_s)
        return self._surest.process([Timed(now_s, one, one.model) for one in found], now_s=now_s)

    def _is_known(self, detection: Detection, chosen: list[Detection]) -> bool:
        return any(
            known.keyword == detection.keyword and abs(known.end_s - detection.end_s) < _SAME_WORD_S
            for known in (*self._recent, *chosen)
        )

    def _counted(self, found: list[Detection], started_s: float) -> list[Detection]:
        found = [replace(one, source=self.supervisor.label) for one in found]
        self._recent.extend(found)
        self.n_detections += len(found)
        self.cpu_s += time.thread_time() - started_s
        return found


def _surest(listeners: list[Listener]) -> SurestDetections:
    return SurestDetections(listener.spotter.keywords for listener in listeners)


def listener_keys(config: Config) -> list[ListenerKey]:
    """Return the keys of the listeners that every source gets.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    recording = config.recording
    least = [
        recording.min_score if recording.folder else None,
        _SHOWN_SCORE if config.ui.port else None,
    ]
    near_miss_score = min((one for one in least if one is not None), default=None)
    keys = []
    for settings in config.every_model:
        at = model_path(settings.name).stat()
        file = (at.st_ino, at.st_size, at.st_mtime_ns)
        keys.append(ListenerKey(settings, config.gate, near_miss_score, file))
    return keys
