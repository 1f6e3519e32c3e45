"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


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
