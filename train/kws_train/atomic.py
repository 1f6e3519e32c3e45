"""Atomic file writes."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["link", "replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` on success.

    On an exception, an existing `path` is unchanged and the temporary file is deleted.
    """
    unfinished = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def link(path: Path, to: Path) -> None:
    """Hard-link a file to a second path, or copy it where links fail; an existing `to` is kept."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, to)
    except FileExistsError:
        return
    except OSError:
        with replacing(to) as unfinished:
            shutil.copyfile(path, unfinished)
