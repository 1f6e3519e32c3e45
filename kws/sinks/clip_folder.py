"""The folder of recorded clips, within limits of count, age and bytes.

A clip is a sound file and a JSON file of the same stem, which begins with its time: names sort by
age. Other files are neither counted nor removed.

A clock may be wrong, as on a board without a battery before it has the time from the network. So
the age of a clip does not count from the wall time, but from the newest clip that was there at the
start and is not of the future, plus the time since then.

The folder is opened once, not through a link, and its files are used by its descriptor: nobody who
may change a folder above it can divert what is written or removed.
"""

import contextlib
import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

__all__ = ["ClipFolder"]

_NAME = re.compile(r"(\d{8}T\d{6}\.\d{3}Z(?:-\d+)?_[^/]*)\.(wav|flac|json)")
_PART = ".part"

_log = logging.getLogger("kws.recording")


class ClipFolder:
    """Write clips into a folder, and remove the oldest beyond the limits.

    Parameters
    ----------
    path : Path
        Created with the first clip, with access for its owner only.
    max_clips, max_bytes, max_days
        Limits for all clips in it, those of earlier runs included.
    monotonic : callable
        Returns seconds of a clock that nobody sets.

    Attributes
    ----------
    n_removed : int
        Clips removed so far.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_clips: int,
        max_bytes: int,
        max_days: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.n_removed = 0
        self._folder: int | None = None
        self._max_clips = max_clips
        self._max_bytes = max_bytes
        self._max_days = max_days
        self._monotonic = monotonic
        self._begin: tuple[datetime, float] | None = None

    def write(self, name: str, files: Mapping[str, bytes], *, now: datetime) -> str:
        """Write a clip, after removing the oldest to make room.

        Parameters
        ----------
        name : str
            Second part of the stem, after the time.
        files : mapping of str to bytes
            Content by file extension, without the dot.
        now : datetime
            In UTC.

        Returns
        -------
        str
            The stem.

        Raises
        ------
        OSError
            If it cannot be written, room cannot be made, or the folder is a link, belongs to
            another user or is open to others; no part of it is left.
        """
        folder = self._opened()
        n_bytes = sum(map(len, files.values()))
        if n_bytes > self._max_bytes:
            raise OSError(f"a clip of {n_bytes} bytes is more than `max_mb` allows")
        clips = self.sweep(now=now, for_clips=1, for_bytes=n_bytes)
        stem = _free_stem(f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z", name, clips)
        done: list[str] = []
        try:
            for ending, content in files.items():
                done.append(part := f".{stem}.{ending}{_PART}")
                _write_new(part, content, folder=folder)
            for ending in files:
                done.append(final := f"{stem}.{ending}")
                part = f".{stem}.{ending}{_PART}"
                os.rename(part, final, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            for one in done:
                with contextlib.suppress(OSError):
                    _remove(one, folder=folder)
            raise
        return stem

    def sweep(self, *, now: datetime, for_clips: int = 0, for_bytes: int = 0) -> set[str]:
        """Remove clips beyond the limits, and partial files; return the stems that remain.

        Raises
        ------
        OSError
            If a file cannot be removed, or the folder cannot be used.
        """
        try:
            folder = self._opened(create=False)
        except FileNotFoundError:
            return set()
        clips = _read(folder)
        total = sum(clips.values())
        oldest = self._trusted_time(now, clips) - timedelta(days=self._max_days)
        removed: dict[str, list[str]] = {}
        try:
            for stem in sorted(clips):
                if _time_of(stem) < oldest:
                    reason = f"older than {self._max_days:g} days, `max_days`"
                elif len(clips) + for_clips > self._max_clips:
                    reason = f"more than {self._max_clips}, `max_clips`"
                elif total + for_bytes > self._max_bytes:
                    reason = f"more than {self._max_bytes / 1e6:g} MB, `max_mb`"
                else:
                    break
                for ending in ("wav", "flac", "json"):
                    _remove(f"{stem}.{ending}", folder=folder)
                total -= clips.pop(stem)
                self.n_removed += 1
                removed.setdefault(reason, []).append(stem)
        finally:
            _log_removed(removed)
        return set(clips)

    def close(self) -> None:
        """Close the folder; it may be used again."""
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _trusted_time(self, now: datetime, stems: Iterable[str]) -> datetime:
        """Return the time of the newest clip at the start, plus the time since then."""
        if self._begin is None:
            past = [time for time in map(_time_of, stems) if time <= now]
            self._begin = max(past, default=now), self._monotonic()
        begin, started_s = self._begin
        return min(now, begin + timedelta(seconds=self._monotonic() - started_s))

    def _opened(self, *, create: bool = True) -> int:
        """Return the descriptor of the folder; open another if that one was removed."""
        if self._folder is not None and not os.fstat(self._folder).st_nlink:
            self.close()
        if self._folder is None:
            if create:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder = _open_private(self.path)
        return self._folder


def _open_private(path: Path) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(path, flags)
    at = os.fstat(folder)
    if at.st_uid != os.geteuid() or stat.S_IMODE(at.st_mode) & 0o077:
        os.close(folder)
        raise OSError(errno.EPERM, "the folder is not for the user of kws alone", str(path))
    return folder


def _read(folder: int) -> dict[str, int]:
    """Return the size of each clip in bytes; remove the partial files of a crash."""
    clips: dict[str, int] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(_PART):
                if _NAME.fullmatch(entry.name[1 : -len(_PART)]):
                    _remove(entry.name, folder=folder)
            elif found := _NAME.fullmatch(entry.name):
                size = entry.stat(follow_symlinks=False).st_size
                clips[found[1]] = clips.get(found[1], 0) + size
    return clips


def _time_of(stem: str) -> datetime:
    try:
        return datetime.strptime(stem[:19], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
    except ValueError:  # no date, such as the 31st of June: not ours to remove for its age
        return datetime.max.replace(tzinfo=UTC)


def _log_removed(removed: Mapping[str, list[str]]) -> None:
    for reason, stems in removed.items():
        which = stems[0] if len(stems) == 1 else f"{len(stems)} clips, {stems[0]} to {stems[-1]}"
        _log.info("Removed %s: %s.", which, reason)


def _free_stem(time: str, name: str, taken: set[str]) -> str:
    stem, n = f"{time}_{name}", 1
    while stem in taken:
        n += 1
        stem = f"{time}-{n}_{name}"
    return stem


def _remove(name: str, *, folder: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _write_new(name: str, content: bytes, *, folder: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
