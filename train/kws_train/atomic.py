"""Files that are written whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["link", "replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to that becomes `path` once all is written.

    Where that fails, what was there before stays, and nothing else is left.
    """
    begun = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield begun
        begun.replace(path)
    finally:
        begun.unlink(missing_ok=True)


def link(path: Path, to: Path) -> None:
    """Put a file in a second place, stored once where that is possible; what is there stays."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, to)
    except FileExistsError:
        return
    except OSError:
        with replacing(to) as begun:
            shutil.copyfile(path, begun)
