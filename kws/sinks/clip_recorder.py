"""Recordings of what was heard: a clip around each detection, and around near misses.

Off unless a folder is set. Samples and events come in one thread and are only copied there; another
encodes and writes. Where the disk is full or read-only, clips are lost and nothing else.
"""

import contextlib
import io
import logging
import queue
import re
import threading
import time
import wave
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeGuard

import msgspec

from kws.config import Config, RecordingSettings
from kws.errors import ConfigError
from kws.events import Detection, Event, NearMiss, rfc3339
from kws.sinks.clip_folder import ClipFolder

__all__ = ["Recording", "RecordingCounts"]

_RATE_HZ = 16_000
_LONGEST_WORD_S = 10.0
_WORD_S = 0.6  # before the end of a word whose start is unknown
"""How long before now a word may begin whose clip is still whole."""
_MOST_PENDING = 32
_MOST_QUEUED = 8
_SWEEP_S = 3600.0
_CLOSE_S = 2.0

_log = logging.getLogger("kws.recording")


@dataclass
class RecordingCounts:
    """What became of the clips: `failed` on the disk, `dropped` as too many came at once."""

    written: int = 0
    failed: int = 0
    dropped: int = 0
    removed: int = 0


class Recording:
    """Record clips.

    Parameters
    ----------
    settings : RecordingSettings
        `[recording]`; without a folder every method does nothing.
    config : Config or None
        Its models, sources, gate and decision go into the JSON beside each clip.
    clock : callable
        Gives the wall time in seconds since 1970.

    Attributes
    ----------
    counts : RecordingCounts
    is_on : bool

    Raises
    ------
    ConfigError
        If FLAC is asked for and soundfile is missing, or the folder is open to others.
    """

    def __init__(
        self,
        settings: RecordingSettings,
        *,
        config: Config | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counts = RecordingCounts()
        self.is_on = settings.folder is not None
        if settings.folder is None:
            return
        self._settings = settings
        self._context = _context(config)
        self._clock = clock
        self._encode = _flac_encoder() if settings.format == "flac" else _wav
        folder = Path(settings.folder).expanduser().absolute()
        _check_private(folder)
        self._folder = ClipFolder(
            folder,
            max_clips=settings.max_clips,
            max_bytes=int(settings.max_mb * 1_000_000),
            max_days=settings.max_days,
        )
        self._lock = threading.Lock()
        self._tapes: dict[str, _Tape] = {}
        self._queue: queue.Queue[_Clip | None] = queue.Queue(_MOST_QUEUED)
        self._is_broken = self._closed = False
        self._n_lost = 0
        # A disk that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="kws-recording", daemon=True)
        self._thread.start()
        # A warning, as everybody near the microphone is concerned.
        _log.warning(
            "Recording is on: what is heard is kept in %s, at most %d clips, %g days, %g MB.",
            folder,
            settings.max_clips,
            settings.max_days,
            settings.max_mb,
        )

    def hear(self, source: str | None, audio: bytes, *, start_sample: int | None = None) -> None:
        """Take audio of a source, before the events that are heard in it.

        Parameters
        ----------
        source : str or None
            As events name it.
        audio : bytes
            s16le, mono, 16 kHz.
        start_sample : int or None
            Its place in the time of the events; None follows on what came last. After a gap the
            clips under way end.
        """
        if not self.is_on or self._closed:
            return
        with self._lock:
            tape = self._tapes.setdefault(source or "", _Tape(self._kept_samples()))
            if start_sample is not None and start_sample != tape.end_sample:
                self._finish(tape)
                tape.restart(start_sample)
            tape.append(audio)
            self._finish(tape, tape.end_sample)
            tape.trim()

    def send(self, event: Event) -> None:
        """Begin the clip of a detection, or of a near miss that scored enough."""
        if not self.is_on or self._closed or not self._is_wanted(event):
            return
        now = datetime.fromtimestamp(self._clock(), UTC)
        with self._lock:
            tape = self._tapes.get(event.source or "")
            if tape is None:
                return
            if len(tape.pending) >= _MOST_PENDING:
                self.counts.dropped += 1
                return
            start_s = event.end_s - _WORD_S if event.start_s is None else event.start_s
            first = round((start_s - self._settings.pre_roll_s) * _RATE_HZ)
            last = round((event.end_s + self._settings.post_roll_s) * _RATE_HZ)
            tape.pending.append(_Pending(event, now, max(0, first), last))
            self._finish(tape, tape.end_sample)

    def close(self) -> None:
        """Cut the clips under way short, and wait a little until all are written."""
        if not self.is_on or self._closed:
            return
        with self._lock:
            self._closed = True
            for tape in self._tapes.values():
                self._finish(tape)
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=_CLOSE_S)
        self._thread.join(_CLOSE_S)

    def _is_wanted(self, event: Event) -> TypeGuard[Detection | NearMiss]:
        least = self._settings.min_score
        if isinstance(event, NearMiss):
            return least is not None and event.score >= least
        return isinstance(event, Detection)

    def _kept_samples(self) -> int:
        kept_s = self._settings.pre_roll_s + _LONGEST_WORD_S + self._settings.post_roll_s
        return int(kept_s * _RATE_HZ)

    def _finish(self, tape: "_Tape", end_sample: int | None = None) -> None:
        """Queue the clips that end by then; None is all."""
        going = []
        for one in tape.pending:
            if end_sample is not None and one.last_sample > end_sample:
                going.append(one)
                continue
            try:
                self._queue.put_nowait(tape.cut(one))
            except queue.Full:
                self.counts.dropped += 1
        tape.pending = going

    def _work(self) -> None:
        """Write what is queued; remove what is too old, also when nothing is heard."""
        self._attempt(None)
        while True:
            try:
                clip = self._queue.get(timeout=_SWEEP_S)
            except queue.Empty:
                self._attempt(None)
                continue
            if clip is None:
                return
            self._attempt(clip)

    def _attempt(self, clip: "_Clip | None") -> None:
        try:
            if clip:
                self._write(clip)
            else:
                self._folder.sweep(now=datetime.fromtimestamp(self._clock(), UTC))
        except (OSError, RuntimeError) as error:  # libsndfile's errors are RuntimeErrors
            self._fail(error, is_clip=clip is not None)
        else:
            if clip and self._is_broken:
                self._is_broken = False
                _log.warning("Recording goes on; %d clips were lost.", self._n_lost)
        self.counts.removed = self._folder.n_removed

    def _write(self, clip: "_Clip") -> None:
        sound = self._encode(clip.audio)
        ending = self._settings.format
        about = {
            "event": msgspec.to_builtins(clip.event),
            "time": rfc3339(clip.time),
            "clip": {
                "rate_hz": _RATE_HZ,
                "start_s": round(clip.start_sample / _RATE_HZ, 3),
                "duration_s": round(len(clip.audio) / 2 / _RATE_HZ, 3),
            },
            "settings": self._context | {"recording": msgspec.to_builtins(self._settings)},
        }
        text = msgspec.json.format(msgspec.json.encode(about)) + b"\n"
        names = (clip.event.source or "", _kind(clip.event), clip.event.keyword)
        name = "_".join(re.sub(r"[^\w-]+", "-", part)[:40].strip("-") for part in names if part)
        self._folder.write(_ascii(name), {ending: sound, "json": text}, now=clip.time)
        self.counts.written += 1

    def _fail(self, error: Exception, *, is_clip: bool) -> None:
        self.counts.failed += is_clip
        if not self._is_broken:
            self._is_broken, self._n_lost = True, 0
            _log.error(
                "Clips cannot be recorded: %s. Listening goes on, and recording when it can.", error
            )
        self._n_lost += is_clip


@dataclass(frozen=True)
class _Pending:
    """A clip whose end has not been heard yet."""

    event: Detection | NearMiss
    time: datetime
    first_sample: int
    last_sample: int


@dataclass(frozen=True)
class _Clip:
    """A clip to be written."""

    event: Detection | NearMiss
    time: datetime
    start_sample: int
    audio: bytes


class _Tape:
    """The last audio of a source."""

    def __init__(self, n_kept: int) -> None:
        self._n_kept = n_kept
        self.pending: list[_Pending] = []
        self.restart(0)

    @property
    def end_sample(self) -> int:
        return self._start_sample + len(self._audio) // 2

    def restart(self, start_sample: int) -> None:
        self._start_sample = start_sample
        self._audio = bytearray()

    def append(self, audio: bytes) -> None:
        self._audio += audio

    def trim(self) -> None:
        n_over = len(self._audio) // 2 - self._n_kept
        if n_over > 0:
            del self._audio[: 2 * n_over]
            self._start_sample += n_over

    def cut(self, one: _Pending) -> _Clip:
        start = max(0, one.first_sample - self._start_sample)
        stop = max(start, one.last_sample - self._start_sample)
        audio = bytes(memoryview(self._audio)[2 * start : 2 * stop])
        return _Clip(one.event, one.time, self._start_sample + start, audio)


def _context(config: Config | None) -> dict[str, Any]:
    """Return what the clip was heard with; hooks may hold secrets and stay out."""
    if config is None:
        return {}
    parts = {
        "models": config.every_model,
        "sources": config.every_source,
        "gate": config.gate,
    }
    return {name: msgspec.to_builtins(part) for name, part in parts.items()}


def _check_private(folder: Path) -> None:
    try:
        mode = folder.stat().st_mode & 0o777
    except OSError:  # it will be made, or the log will say why not
        return
    if mode & 0o077:
        raise ConfigError(
            f"`[recording] folder` must be one that only its owner may enter. Received: {folder} "
            f"with mode {mode:o}. Run `chmod 700 {folder}`, or name one that is not there yet."
        )


def _wav(audio: bytes) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE_HZ)
        file.writeframes(audio)
    return buffer.getvalue()


def _flac_encoder() -> Callable[[bytes], bytes]:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without its C library
        raise ConfigError(
            f'`[recording] format = "flac"` needs soundfile. Received: {error}. Run '
            f"`pip install 'kws[files]'`, or record wav."
        ) from error

    def encode(audio: bytes) -> bytes:
        buffer = io.BytesIO()
        with soundfile.SoundFile(buffer, "w", _RATE_HZ, 1, "PCM_16", format="FLAC") as file:
            file.buffer_write(audio, dtype="int16")
        return buffer.getvalue()

    return encode


def _kind(event: Detection | NearMiss) -> str:
    return "near-miss" if isinstance(event, NearMiss) else ""


def _ascii(name: str) -> str:
    return name.encode("ascii", "replace").decode().replace("?", "-")
