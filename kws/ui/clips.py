"""The recorded clips of the daemon: their list, and their audio.

The folder is opened once for a list or a clip, not through a link, and its files by its descriptor:
no name in a request leads out of it.
"""

import contextlib
import errno
import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kws.clip_sidecar import ClipSidecar, read_sidecar
from kws.errors import FormatError
from kws.ui.requests import NotThereError

__all__ = ["ClipInfo", "ClipLibrary"]

_STEM = re.compile(r"\d{8}T\d{6}\.\d{3}Z(?:-\d+)?_[\w.-]{1,200}", re.ASCII)
_FILE = re.compile(r"(.+)\.(wav|flac|json)")
_MAX_BYTES = 64_000_000
_MAX_SIDECAR_BYTES = 65_536


class ClipInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded clip.

    Attributes
    ----------
    id : str
        The stem of its files.
    format : str
        `wav` or `flac`.
    time : str
        RFC 3339 in UTC.
    source, model, keyword : str
    kind : str
        `detection` or `near_miss`.
    score : float
        The greatest smoothed posterior that is known.
    word_s : (float, float)
        Start and end of the word in the clip.
    duration_s : float
    """

    id: str
    format: str
    time: str
    source: str
    model: str
    keyword: str
    kind: str
    score: float
    word_s: tuple[float, float]
    duration_s: float


class ClipLibrary:
    """The clips in the folder of `[recording]`; a JSON file is read again only when it changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[Path, str, int], ClipInfo | None] = {}

    def list(self, folder: Path | None) -> list[ClipInfo]:
        """Return the clips, the newest first; none where there is no folder."""
        if folder is None:
            return []
        with self._lock:
            try:
                with _opened(folder) as descriptor:
                    known = dict(self._read(folder, descriptor))
            except FileNotFoundError:
                known = {}
            self._known = known
        return sorted(filter(None, known.values()), key=lambda one: one.id, reverse=True)

    def read(self, folder: Path | None, clip_id: str, *, ending: str) -> bytes:
        """Return the bytes of a clip's file.

        Raises
        ------
        NotThereError
            If there is no such clip, or no longer.
        """
        if folder is None or not _STEM.fullmatch(clip_id) or ending not in {"wav", "flac", "json"}:
            raise _gone(clip_id)
        try:
            with _opened(folder) as descriptor:
                return _read_file(f"{clip_id}.{ending}", descriptor, most=_MAX_BYTES)
        except (FileNotFoundError, FormatError) as error:
            raise _gone(clip_id) from error

    def find(self, folder: Path | None, clip_id: str) -> ClipInfo:
        """Return a clip; errors as of `read`."""
        for one in self.list(folder):
            if one.id == clip_id:
                return one
        raise _gone(clip_id)

    def _read(
        self, folder: Path, descriptor: int
    ) -> Iterator[tuple[tuple[Path, str, int], ClipInfo | None]]:
        with os.scandir(descriptor) as entries:
            files = {entry.name: entry for entry in entries}
        for name, entry in files.items():
            found = _FILE.fullmatch(name)
            if not found or found[2] != "json" or not _STEM.fullmatch(found[1]):
                continue
            stem = found[1]
            format_ = next((one for one in ("wav", "flac") if f"{stem}.{one}" in files), None)
            if format_ is None:
                continue
            try:
                changed_ns = entry.stat(follow_symlinks=False).st_mtime_ns
            except OSError:  # removed meanwhile
                continue
            key = folder, stem, changed_ns
            yield key, self._known[key] if key in self._known else _info(stem, format_, descriptor)


def _info(stem: str, format_: str, descriptor: int) -> ClipInfo | None:
    try:
        content = _read_file(f"{stem}.json", descriptor, most=_MAX_SIDECAR_BYTES)
        about: ClipSidecar = read_sidecar(content)
    except (OSError, FormatError):  # not of the daemon, or removed meanwhile
        return None
    start_s, end_s = about.word_s
    return ClipInfo(
        id=stem,
        format=format_,
        time=about.time,
        source=about.event.source or "",
        model=about.event.model,
        keyword=about.event.keyword,
        kind=about.kind,
        score=about.score,
        word_s=(round(start_s, 3), round(end_s, 3)),
        duration_s=about.clip.duration_s,
    )


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_file(name: str, folder: int, *, most: int) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FormatError(f"{name} is a link") from error
        raise
    at = os.fstat(descriptor)
    if not stat.S_ISREG(at.st_mode) or at.st_size > most:
        os.close(descriptor)
        raise FormatError(f"{name} is no file of a clip")
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _gone(clip_id: str) -> NotThereError:
    return NotThereError(
        f"The clip is not there, or no longer: {clip_id[:80]}. The oldest are removed by the "
        f"limits of `[recording]`. Choose another."
    )
