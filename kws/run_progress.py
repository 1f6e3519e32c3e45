"""The progress of a run of `kws new`, in its working folder: written by the run, read by the page.

progress.json  the stages with their estimates, the current one, the last message, an error
running.lock   locked while the run goes on: a process that was killed holds no lock
"""

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

__all__ = ["ProgressWriter", "RunProgress", "is_running", "read_progress"]

_FILE, _LOCK = "progress.json", "running.lock"


class RunProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run is.

    Attributes
    ----------
    stages : dict of str to float
        The stages in order, with an estimate of each in minutes.
    stage : str
        The current one; empty before the first.
    began_s : float
        Unix time at which it began.
    text : str
        The last message.
    error : str
        What ended the run; empty if nothing did.
    """

    stages: dict[str, float]
    stage: str = ""
    began_s: float = 0.0
    text: str = ""
    error: str = ""


class ProgressWriter:
    """Write the progress of a run; a context manager for as long as it goes on.

    Parameters
    ----------
    folder : Path
        The working folder.
    stages : mapping of str to float
        As of `RunProgress`.
    """

    def __init__(self, folder: Path, stages: Mapping[str, float]) -> None:
        self._folder = folder
        self._now = RunProgress(stages=dict(stages))
        self._lock: int | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError, ImportError):  # a folder without locks, or Windows
            import fcntl

            self._lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._write()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            what = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            self._change(error=what or type(error).__name__)
        if self._lock is not None:
            os.close(self._lock)

    def begin(self, stage: str) -> None:
        """Write that a stage has begun."""
        self._change(stage=stage, began_s=time.time(), text="")

    def tell(self, text: str) -> None:
        """Write a message."""
        self._change(text=text.strip())

    def _change(self, **fields: str | float) -> None:
        self._now = msgspec.structs.replace(self._now, **fields)
        self._write()

    def _write(self) -> None:
        part = self._folder / f".{_FILE}.part"
        with contextlib.suppress(OSError):  # of a full disk: the run itself will say so
            part.write_bytes(msgspec.json.encode(self._now) + b"\n")
            part.replace(self._folder / _FILE)


def read_progress(folder: Path) -> RunProgress | None:
    """Return the progress in a working folder; None if there is none that can be read."""
    try:
        return msgspec.json.decode((folder / _FILE).read_bytes(), type=RunProgress)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def is_running(folder: Path) -> bool:
    """Return whether a process works in the folder now."""
    try:
        import fcntl

        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ImportError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
