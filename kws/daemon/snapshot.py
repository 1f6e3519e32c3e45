"""The state of the daemon at one time, for `kws status` and for metrics."""

import os
import time
from collections import Counter, deque
from pathlib import Path

import msgspec

from kws.events import Detection, Event

__all__ = [
    "DetectionCount",
    "DetectionCounter",
    "LogLine",
    "MqttState",
    "RecordingState",
    "Snapshot",
    "SourceState",
    "cpu_seconds",
    "rss_mb",
]

_MAX_COUNTED = 10_000
_LAST_DETECTIONS = 5


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """Immutable; a JSON object."""


class SourceState(_State, frozen=True, kw_only=True):
    """The state of one source.

    Attributes
    ----------
    name : str
        Its label in events.
    state : str
        `opening`, `listening`, `silent`, `stalled` or `ended`.
    since_s : float
        Unix time at which it entered that state.
    level_dbfs : float or None
        Of its last audio, by `kws.audio.level_dbfs`; None if there was none.
    gate_open : bool or None
        Whether a model runs on it now; None before the first audio.
    audio_s, dropped_s, waiting_s : float
        Seconds of audio received, dropped as the machine was too busy, and waiting.
    n_overruns : int
        Number of losses of audio before the daemon received it.
    n_reopened : int
        Number of recoveries after a stall.
    muted_by : list of str
        What mutes it now, for people.
    description : str
        Its name, for people.
    last_error : str or None
    """

    name: str
    state: str
    since_s: float
    level_dbfs: float | None = None
    gate_open: bool | None = None
    audio_s: float = 0.0
    dropped_s: float = 0.0
    waiting_s: float = 0.0
    n_overruns: int = 0
    n_reopened: int = 0
    muted_by: list[str] = []
    description: str = ""
    last_error: str | None = None


class DetectionCount(_State, frozen=True, kw_only=True):
    """Number of detections of a keyword by a model on a source."""

    keyword: str
    model: str
    source: str
    n: int


class RecordingState(_State, frozen=True, kw_only=True):
    """Counts of recorded clips: written, and lost."""

    n_clips: int = 0
    n_failed: int = 0


class MqttState(_State, frozen=True, kw_only=True):
    """The connection to the MQTT broker, and messages of events by what became of them."""

    broker: str
    connected: bool
    n_sent: int = 0
    n_queued: int = 0
    n_dropped: int = 0


class LogLine(_State, frozen=True, kw_only=True):
    """A logged warning or error, the last of `n` from one line of code, at Unix time `time_s`."""

    time_s: float
    level: str
    logger: str
    message: str
    n: int = 1


class Snapshot(_State, frozen=True, kw_only=True):
    """The state of the daemon at one time.

    Attributes
    ----------
    version : str
        Of kws.
    pid : int
    time_s : float
        Unix time of the snapshot.
    uptime_s : float
    cpu_s : float
        CPU seconds of the process since its start, without the capture processes.
    rss_mb : float
        Resident memory, in 10^6 bytes.
    sources : list of SourceState
    models : list of str
        Names of the models that run on every source.
    detections : list of DetectionCount
    last_detections : list of Detection
        In order of time.
    hooks : dict of str to int
        Number of runs of hooks by outcome, as in `HookCounts`.
    recording : RecordingState or None
        None while recording is off.
    mqtt : MqttState or None
        None without a broker.
    last_errors : list of LogLine
        Warnings and errors, in order of time.
    page : str or None
        Link of the page of `[ui]`.
    """

    version: str
    pid: int
    time_s: float
    uptime_s: float
    cpu_s: float
    rss_mb: float
    sources: list[SourceState]
    models: list[str]
    detections: list[DetectionCount] = []
    last_detections: list[Detection] = []
    hooks: dict[str, int] = {}
    recording: RecordingState | None = None
    mqtt: MqttState | None = None
    last_errors: list[LogLine] = []
    page: str | None = None

    @property
    def cpu_share(self) -> float:
        """Mean share of one core since the start, 0..1 and more."""
        return self.cpu_s / self.uptime_s if self.uptime_s else 0.0


class DetectionCounter:
    """Count detections by keyword, model and source, and keep the last few.

    A sink for the daemon's loop: `send` takes microseconds and never fails.
    """

    def __init__(self) -> None:
        self._n: Counter[tuple[str, str, str]] = Counter()
        self.last: deque[Detection] = deque(maxlen=_LAST_DETECTIONS)
        self.started_s = time.monotonic()

    def send(self, event: Event) -> None:
        """Count a detection; ignore other events."""
        if not isinstance(event, Detection):
            return
        self.last.append(event)
        key = (event.keyword, event.model, event.source or "")
        # A model of phrases may detect any number of different ones.
        if key in self._n or len(self._n) < _MAX_COUNTED:
            self._n[key] += 1

    def counts(self) -> list[DetectionCount]:
        """Return the counts, in the order of their first detection."""
        return [
            DetectionCount(keyword=keyword, model=model, source=source, n=n)
            for (keyword, model, source), n in self._n.items()
        ]

    @property
    def uptime_s(self) -> float:
        """Seconds since this object was created."""
        return time.monotonic() - self.started_s


def cpu_seconds() -> float:
    """Return the CPU seconds of this process, user and system."""
    return time.process_time()


def rss_mb() -> float:
    """Return this process's resident memory in 10^6 bytes; 0 where /proc is missing."""
    try:
        n_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return n_pages * os.sysconf("SC_PAGE_SIZE") / 1e6
