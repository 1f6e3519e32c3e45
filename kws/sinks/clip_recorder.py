"""Recording of clips: the audio around each detection, and around near misses.

Off unless a folder is set. The thread that calls `feed` and `send` only copies; another encodes and
writes. If the disk is full or read-only, clips are lost and nothing else.
"""

import contextlib
import logging
import os
import queue
import re
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeGuard

import msgspec
from msgspec.structs import replace

from kws.config import Config, RecordingSettings, SourceSettings
from kws.errors import ConfigError
from kws.events import Detection, Event, NearMiss, Peak, rfc3339
from kws.paths import expanded
from kws.sinks.clip_buffer import AudioBuffer, Clip, PendingClip
from kws.sinks.clip_encoders import flac_encoder, wav_encoder
from kws.sinks.clip_folder import ClipFolder

__all__ = ["ClipCounts", "ClipRecorder"]

_RATE_HZ = 16_000
_MAX_WORD_S = 10.0
"""The longest word whose clip is complete."""
_WORD_S = 0.6  # before the end of a word whose start is unknown
_MAX_PENDING = 32
_MAX_QUEUED = 8
_SWEEP_S = 3600.0
_CLOSE_S = 2.0

_log = logging.getLogger("kws.recording")


@dataclass
class ClipCounts:
    """Counts of clips: `failed` on the disk, `dropped` as too many were queued."""

    written: int = 0
    failed: int = 0
    dropped: int = 0
    removed: int = 0


class ClipRecorder:
    """Record clips around detections and near misses.

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
    counts : ClipCounts
    is_on : bool

    Raises
    ------
    ConfigError
        If FLAC is set and soundfile is missing, or the folder is a link, belongs to another user
        or may be entered by others.
    """

    def __init__(
        self,
        settings: RecordingSettings,
        *,
        config: Config | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counts = ClipCounts()
        self.is_on = settings.folder is not None
        if settings.folder is None:
            return
        self._settings = settings
        self._context = _context(config)
        self._clock = clock
        self._encode = (
            flac_encoder(_RATE_HZ) if settings.format == "flac" else wav_encoder(_RATE_HZ)
        )
        folder = expanded(settings.folder, what="`[recording] folder`").absolute()
        _check_private(folder)
        self._folder = ClipFolder(
            folder,
            max_clips=settings.max_clips,
            max_bytes=int(settings.max_mb * 1_000_000),
            max_days=settings.max_days,
        )
        self._lock = threading.Lock()
        self._buffers: dict[str, AudioBuffer] = {}
        self._queue: queue.Queue[Clip | None] = queue.Queue(_MAX_QUEUED)
        self._is_broken = self._closed = False
        self._n_lost = 0
        # A disk that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="kws-recording", daemon=True)
        self._thread.start()
        # A warning, as it concerns the privacy of everybody near the microphone.
        _log.warning(
            "Recording is on: clips are kept in %s, at most %d clips, %g days, %g MB.",
            folder,
            settings.max_clips,
            settings.max_days,
            settings.max_mb,
        )

    def feed(self, source: str | None, audio: bytes, *, start_sample: int | None = None) -> None:
        """Append audio of a source, before the events found in it are sent.

        Parameters
        ----------
        source : str or None
            As in events.
        audio : bytes
            s16le, mono, 16 kHz.
        start_sample : int or None
            Number of the first sample, in the time of the events; None continues from the last
            call. Pending clips end at a gap.
        """
        if not self.is_on or self._closed:
            return
        with self._lock:
            buffer = self._buffers.setdefault(source or "", AudioBuffer(self._kept_samples()))
            if start_sample is not None and start_sample != buffer.end_sample:
                self._finish(buffer)
                buffer.restart(start_sample)
            buffer.append(audio)
            self._finish(buffer, buffer.end_sample)
            buffer.trim()

    def send(self, event: Event) -> None:
        """Begin the clip of a detection, or of a near miss with at least `min_score`.

        A peak is added to the clip of its detection, if that is not written yet.
        """
        if not self.is_on or self._closed:
            return
        if isinstance(event, Peak):
            with self._lock:
                if buffer := self._buffers.get(event.source or ""):
                    buffer.add_peak(event)
            return
        if not self._is_wanted(event):
            return
        now = datetime.fromtimestamp(self._clock(), UTC)
        with self._lock:
            buffer = self._buffers.get(event.source or "")
            if buffer is None:
                return
            if len(buffer.pending) >= _MAX_PENDING:
                self.counts.dropped += 1
                return
            start_s = event.end_s - _WORD_S if event.start_s is None else event.start_s
            first = round((start_s - self._settings.pre_roll_s) * _RATE_HZ)
            last = round((event.end_s + self._settings.post_roll_s) * _RATE_HZ)
            buffer.pending.append(PendingClip(event, now, max(0, first), last))
            self._finish(buffer, buffer.end_sample)

    def close(self) -> None:
        """Cut the pending clips short, and wait up to 2 s until all are written."""
        if not self.is_on or self._closed:
            return
        with self._lock:
            self._closed = True
            for buffer in self._buffers.values():
                self._finish(buffer)
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=_CLOSE_S)
        self._thread.join(_CLOSE_S)

    def _is_wanted(self, event: Event) -> TypeGuard[Detection | NearMiss]:
        least = self._settings.min_score
        if isinstance(event, NearMiss):
            return least is not None and event.score >= least
        return isinstance(event, Detection)

    def _kept_samples(self) -> int:
        kept_s = self._settings.pre_roll_s + _MAX_WORD_S + self._settings.post_roll_s
        return int(kept_s * _RATE_HZ)

    def _finish(self, buffer: AudioBuffer, end_sample: int | None = None) -> None:
        """Queue the clips that end by `end_sample`; None queues all."""
        going = []
        for one in buffer.pending:
            if end_sample is not None and one.last_sample > end_sample:
                going.append(one)
                continue
            try:
                self._queue.put_nowait(buffer.cut(one))
            except queue.Full:
                self.counts.dropped += 1
        buffer.pending = going

    def _work(self) -> None:
        """Write queued clips; remove old ones every hour."""
        self._attempt(None)
        while True:
            try:
                clip = self._queue.get(timeout=_SWEEP_S)
            except queue.Empty:
                self._attempt(None)
                continue
            if clip is None:
                break
            self._attempt(clip)
        self._folder.close()

    def _attempt(self, clip: Clip | None) -> None:
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
                _log.warning("Recording works again; %d clips were lost.", self._n_lost)
        self.counts.removed = self._folder.n_removed

    def _write(self, clip: Clip) -> None:
        sound = self._encode(clip.audio)
        ending = self._settings.format
        about = {
            "event": msgspec.to_builtins(clip.event),
            **({} if clip.peak is None else {"peak": clip.peak}),
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
                "Clips cannot be written: %s. Detection continues; recording is retried with each "
                "clip.",
                error,
            )
        self._n_lost += is_clip


def _context(config: Config | None) -> dict[str, Any]:
    """Return the settings for the JSON of each clip, without what may hold secrets.

    Those are hooks, and the arguments of commands.
    """
    if config is None:
        return {}
    parts = {
        "models": config.every_model,
        "sources": [_without_arguments(one) for one in config.every_source],
        "gate": config.gate,
    }
    return {name: msgspec.to_builtins(part) for name, part in parts.items()}


def _without_arguments(source: SourceSettings) -> SourceSettings:
    if not source.command:
        return source
    words = source.command.split() if isinstance(source.command, str) else source.command
    return replace(source, command=[*words[:1], "..."])


def _check_private(folder: Path) -> None:
    try:
        at = folder.lstat()
    except OSError:  # it will be created, or the error logged
        return
    if stat.S_ISLNK(at.st_mode) or at.st_uid != os.geteuid():
        what = "a link" if stat.S_ISLNK(at.st_mode) else f"which belongs to user {at.st_uid}"
        raise ConfigError(
            f"`[recording] folder` must be a folder of the user of kws, and no link. Received: "
            f"{folder}, {what}. Name another."
        )
    mode = stat.S_IMODE(at.st_mode) & 0o777
    if mode & 0o077:
        raise ConfigError(
            f"`[recording] folder` must be one that only its owner may enter. Received: {folder} "
            f"with mode {mode:o}. Run `chmod 700 {folder}`, or name a new one."
        )


def _kind(event: Detection | NearMiss) -> str:
    return "near-miss" if isinstance(event, NearMiss) else ""


def _ascii(name: str) -> str:
    return name.encode("ascii", "replace").decode().replace("?", "-")
